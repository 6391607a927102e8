"""Every text case runs on the C server and on ours, which must give the same answers.

So must a server with workers, and one of a single process.  The format of the cases is in
`script.py`.  `CONFORMANCE_KINDS=c,c` compares the C server with itself, which shows what in a case
is left to chance; `CONFORMANCE_KINDS="ovncp,etcd ovncp,postgresql"` one server of ours with three
over an engine.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.script import Case, CaseFile, Run, empty, parse_file, render
from servers import ENGINES, Closed, Server

PAIRS = os.environ.get("CONFORMANCE_KINDS", "c,ovncp ovncp,workers").split()
FILES = {path.stem: parse_file(path) for path in sorted(Path(__file__).parent.glob("cases/*.txt"))}
NOT_ON_ENGINES = {
    "convert: ": "the other servers' clients are disconnected a moment later",
    "locks: ": "of clients of several servers any may be the next, and hears of it a moment later",
    "operations: what is not an operation": "shows the service model",
    "protocol: get_server_id": "each server has its own",
    "references: a weak reference to a row that": "shows _version, which each server makes up",
    "references: weak references": "shows _version, which each server makes up",
    "server_database: ": "shows the service model and the cluster's ids",
    "wait: until its time is over": "is over a moment later",
}
"""Beginnings of the names of cases that go otherwise on three servers over an engine, and why."""


def applies(kinds: list[str], name: str) -> bool:
    return not (set(kinds) & set(ENGINES) and name.startswith(tuple(NOT_ON_ENGINES)))


CASES = [
    pytest.param(kinds.split(","), stem, number, id=f"{kinds} {stem}: {case.title}")
    for kinds in PAIRS
    for stem, file in FILES.items()
    for number, case in enumerate(file.cases)
    if applies(kinds.split(","), f"{stem}: {case.title}")
]


class Pair:
    """The two servers that a file's cases run on."""

    def __init__(self, kinds: list[str], file: CaseFile) -> None:
        self.kinds = kinds
        self.file = file
        self.servers: list[Server] = []
        self.start()

    def start(self) -> None:
        self.close()
        self.servers = []
        for kind in self.kinds:
            self.servers.append(Server(kind, self.file.schemas.items()))

    def renew(self) -> None:
        """What a case needs before it begins: two servers that run, on empty databases."""
        if self.file.fresh:
            self.start()
        try:
            self.empty()
        except (OSError, Closed):
            # A case has ended a server.
            self.start()
            self.empty()

    def empty(self) -> None:
        for server in self.servers:
            empty(server, self.file)

    def close(self) -> None:
        for server in self.servers:
            server.close()


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, Pair]]:
    running: dict[str, Pair] = {}
    yield running
    for pair in running.values():
        pair.close()


@pytest.mark.parametrize(("kinds", "stem", "number"), CASES)
def test_case(pairs: dict[str, Pair], kinds: list[str], stem: str, number: int) -> None:
    file, case = FILES[stem], FILES[stem].cases[number]
    name = f"{kinds} {stem}"
    for other in [other for other in pairs if other != name]:
        pairs.pop(other).close()
    pair = pairs.get(name) or pairs.setdefault(name, Pair(kinds, file))
    pair.renew()
    one, other_one = (Run(server, file).case(case) for server in pair.servers)
    assert_same(kinds, case, one, other_one)


def assert_same(
    kinds: list[str], case: Case, theirs: list[list[str]], ours: list[list[str]]
) -> None:
    if kinds == ["c", "ovncp"]:
        steps = zip(case.steps, theirs, strict=True)
        theirs = [step.ours or events for step, events in steps]
    if theirs != ours:
        diff = difflib.unified_diff(render(case, theirs), render(case, ours), *kinds, lineterm="")
        pytest.fail("\n".join(diff), pytrace=False)
