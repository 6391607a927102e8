"""A node of the platform as a process, in front of real databases, and a client of it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from servers import OVNCP, Server

SCHEMAS = {
    "OVN_Northbound": "/usr/share/ovn/ovn-nb.ovsschema",
    "OVN_Southbound": "/usr/share/ovn/ovn-sb.ovsschema",
}


def databases(kind: str, **options: Any) -> Server:
    """One server of both databases."""
    return Server(kind, list(SCHEMAS.items()), **options)


@contextmanager
def northd(server: Server) -> Iterator[None]:
    """A real ovn-northd between the databases of `server`, which has made the rows of its own."""
    command = ["ovn-northd", f"--ovnnb-db={server.remote}", f"--ovnsb-db={server.remote}"]
    command += ["-vconsole:off", f"--unixctl={server.directory}/northd.ctl"]
    no_row = {"op": "wait", "table": "NB_Global", "where": [], "columns": ["name"]}
    until_made = no_row | {"until": "!=", "rows": [], "timeout": 60_000}
    with subprocess.Popen(command, env=server.env) as process:
        try:
            assert server.client(timeout=70).transact("OVN_Northbound", until_made) == [{}]
            yield
        finally:
            process.kill()


class Node:
    """`ovncp api` on a port of its own; `client` talks to it."""

    def __init__(self, nb: str, sb: str, *options: str, env: dict[str, str] | None = None) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="ovncp-api-")
        self.log_path = Path(self.directory.name) / "log"
        command = [OVNCP, "api", f"--nb={nb}", f"--sb={sb}", "--port=0"]
        command += ["--metrics-port=0", *options]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, cwd=self.directory.name, env=env
            )
        self.url = self.told("listening on ")
        self.metrics_url = self.told("metrics at ")
        self.client = httpx.Client(base_url=f"{self.url}/api/v1", timeout=20)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def told(self, start: str) -> str:
        """The last word of the next line of its output, which begins with `start`."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith(start), line + self.log
        return line.split()[-1]

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.directory.cleanup()

    # What tests ask for

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        """The answer, which must have that status."""
        return self._checked(self.client.get(path, params=query or None), status)

    def post(self, path: str, body: Any, status: int = 201, **headers: str) -> Any:
        return self._checked(self.client.post(path, json=body, headers=_headers(headers)), status)

    def patch(self, path: str, body: Any, status: int = 200, **headers: str) -> Any:
        return self._checked(self.client.patch(path, json=body, headers=_headers(headers)), status)

    def delete(self, path: str, status: int = 204, **headers: str) -> Any:
        return self._checked(self.client.delete(path, headers=_headers(headers)), status)

    @staticmethod
    def _checked(answer: httpx.Response, status: int) -> Any:
        assert answer.status_code == status, f"{answer.status_code}: {answer.text[:2000]}"
        return answer.json() if answer.content else None


def _headers(given: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


def names(page: Any, column: str = "name") -> Sequence[Any]:
    """What the rows of a page have in a column."""
    return [row[column] for row in page["items"]]
