"""Over compactions and restarts clients resume with exactly what they missed.

What is lost of the history costs them a whole dump, and nobody a warning.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from faults.schemas import NAMES, insert
from servers import Client, Server

NOTHING = "00000000-0000-0000-0000-000000000000"


class Follower:
    """A client's replica: the texts by the name. `last_id` is the transaction that it knows."""

    def __init__(self, **request: Any) -> None:
        self.request = request
        self.last_id = NOTHING
        self.rows: dict[str, dict[str, str]] = {}

    def resume(self, server: Server) -> dict[str, Any] | None:
        """Catch up; what it was sent of the table, or None if that was a whole dump."""
        with server.client() as client:
            params = ["Names", "m", {"Name": [self.request]}, self.last_id]
            found, self.last_id, updates = client.request("monitor_cond_since", params)["result"]
        sent = updates.get("Name", {})
        if not found:
            self.rows = {}
        for uuid, update in sent.items():
            ((kind, row),) = update.items()
            if kind == "delete":
                del self.rows[uuid]
            else:
                self.rows[uuid] = self.rows.get(uuid, {}) | row
        return sent if found else None

    @property
    def names(self) -> dict[str, str]:
        return {row["name"]: row.get("text", "") for row in self.rows.values()}


def update(name: str, text: str) -> dict[str, Any]:
    where = [["name", "==", name]]
    return {"op": "update", "table": "Name", "where": where, "row": {"text": text}}


def delete(name: str) -> dict[str, Any]:
    return {"op": "delete", "table": "Name", "where": [["name", "==", name]]}


def names(client: Client) -> dict[str, str]:
    operation = {"op": "select", "table": "Name", "where": []}
    (result,) = client.transact("Names", operation)
    return {row["name"]: row["text"] for row in result["rows"]}


def change(server: Server, *operations: dict[str, Any]) -> None:
    with server.client() as client:
        for operation in operations:
            (result,) = client.transact("Names", operation)
            assert "error" not in result


def filled() -> Server:
    server = Server("ovncp", [("names", NAMES)])
    change(server, *(insert(f"n{number}", "x") for number in range(20)))
    return server


def history_of(server: Server) -> Path:
    return server.directory / ".names.db.~history~"


def warnings(server: Server) -> list[str]:
    """What it complains of, other than that it had to wait for a processor."""
    found = re.findall(r".*\|(?:WARN|ERR|EMER)\|.*", server.log)
    return [line for line in found if "|timeval|" not in line]


@pytest.mark.parametrize("ends", ["stop", "kill9"])
def test_a_client_resumes_over_compactions_and_restarts(ends: str) -> None:
    with filled() as server:
        early, late = Follower(), Follower()
        assert early.resume(server) is None
        change(server, update("n1", "a"), delete("n2"), insert("new"), insert("fleeting"))
        assert late.resume(server) is None
        for round_ in range(3):
            change(server, update("n1", f"round {round_}"))
            server.appctl("ovsdb-server/compact", "Names")
            change(server, insert(f"later{round_}"))
            getattr(server, ends)()
            server.start()
        change(server, delete("fleeting"), update("n3", "b"))
        assert len(late.resume(server) or ()) == 1 + 3 + 1 + 1
        assert len(early.resume(server) or ()) == 2 + 1 + 3 + 1 + 0
        with server.client() as client:
            assert early.names == late.names == names(client)
        assert early.last_id == late.last_id
        assert early.resume(server) == {}
        assert warnings(server) == []


def test_what_the_c_server_adds_is_part_of_it() -> None:
    """It knows nothing of the history, and leaves it to the snapshot that it belongs to."""
    with filled() as server:
        follower = Follower()
        follower.resume(server)
        change(server, insert("ours"))
        server.appctl("ovsdb-server/compact", "Names")
        server.stop()
        server.kind = "c"
        server.start()
        change(server, insert("theirs"), update("n1", "theirs"))
        server.stop()
        server.kind = "ovncp"
        server.start()
        assert len(follower.resume(server) or ()) == 3
        with server.client() as client:
            assert follower.names == names(client)


def c_compacts(server: Server) -> None:
    subprocess.run(["ovsdb-tool", "compact", server.files["names"]], check=True)


def lose(server: Server) -> None:
    history_of(server).unlink()


def damage(server: Server) -> None:
    whole = bytearray(history_of(server).read_bytes())
    whole[len(whole) // 2] ^= 1
    history_of(server).write_bytes(whole)


def cut(server: Server) -> None:
    history_of(server).write_bytes(history_of(server).read_bytes()[:-1])


def make_unreadable(server: Server) -> None:
    history_of(server).unlink()
    history_of(server).mkdir()


@pytest.mark.parametrize("fault", [c_compacts, lose, damage, cut, make_unreadable])
def test_a_history_that_is_lost_costs_a_dump(fault: Any) -> None:
    with filled() as server:
        follower = Follower()
        follower.resume(server)
        server.appctl("ovsdb-server/compact", "Names")
        server.stop()
        fault(server)
        server.start()
        assert follower.resume(server) is None
        change(server, insert("new"))
        server.appctl("ovsdb-server/compact", "Names")
        server.restart()
        if fault is not make_unreadable:
            assert len(follower.resume(server) or ()) == 1
            with server.client() as client:
                assert follower.names == names(client)
        assert warnings(server) == []


def test_a_history_of_another_database_is_not_believed() -> None:
    with filled() as one, filled() as other:
        follower = Follower()
        for server in (one, other):
            server.appctl("ovsdb-server/compact", "Names")
        follower.resume(one)
        other.stop()
        history_of(other).write_bytes(history_of(one).read_bytes())
        other.start()
        assert follower.resume(other) is None
        with other.client() as client:
            assert follower.names == names(client)


@pytest.mark.parametrize("n_bytes", [0, 20_000])
def test_the_history_has_a_bound(n_bytes: int) -> None:
    """The state as of the snapshot is known even to a server that keeps nothing."""
    with Server("ovncp", [("names", NAMES)], options=[f"--history-bytes={n_bytes}"]) as server:
        old, new, last = Follower(), Follower(), Follower()
        change(server, insert("first"))
        old.resume(server)
        change(server, *(update("first", str(number)) for number in range(100)))
        new.resume(server)
        change(server, insert("last"))
        last.resume(server)
        server.appctl("ovsdb-server/compact", "Names")
        assert history_of(server).stat().st_size < 1000 + n_bytes
        server.restart()
        assert old.resume(server) is None
        assert (new.resume(server) is None) == (n_bytes == 0)
        assert last.resume(server) == {}


def test_a_conversion_ends_the_history_and_begins_another() -> None:
    with filled() as server:
        before, after = Follower(), Follower()
        before.resume(server)
        server.appctl("ovsdb-server/compact", "Names")
        columns = {**NAMES["tables"]["Name"]["columns"], "more": {"type": "integer"}}
        tables = {"Name": NAMES["tables"]["Name"] | {"columns": columns}}
        with server.client() as client:
            reply = client.request("convert", ["Names", NAMES | {"tables": tables}])
            assert reply["error"] is None
        assert not history_of(server).exists()
        assert before.resume(server) is None
        after.resume(server)
        change(server, insert("new"))
        server.restart()
        assert len(after.resume(server) or ()) == 1
        assert after.resume(server) == {}
        assert warnings(server) == []


FLEETING = NAMES["tables"]["Name"]["columns"] | {
    "seen": {"type": {"key": "string", "value": "integer", "min": 0, "max": 9}, "ephemeral": True}
}
WITH_FLEETING = NAMES | {"tables": {"Name": NAMES["tables"]["Name"] | {"columns": FLEETING}}}


def test_what_is_not_stored_is_no_obstacle_to_those_who_do_not_see_it() -> None:
    """A server that starts again has its defaults, which nobody is told who saw something else."""

    def see(number: int) -> dict[str, Any]:
        row = {"seen": ["map", [["times", number], ["always", 1]]]}
        return {"op": "update", "table": "Name", "where": [], "row": row}

    with Server("ovncp", [("names", WITH_FLEETING)]) as server:
        blind, seeing = Follower(columns=["name", "text"]), Follower(columns=["name", "seen"])
        change(server, insert("one"), see(1))
        for follower in (blind, seeing):
            assert follower.resume(server) is None
        change(server, see(2), see(3))
        assert blind.resume(server) == {}
        assert len(seeing.resume(server) or ()) == 1
        server.restart()
        assert blind.resume(server) == {}
        change(server, insert("two"), see(4))
        assert len(blind.resume(server) or ()) == 1
        assert seeing.resume(server) is None
        change(server, see(5))
        assert len(seeing.resume(server) or ()) == 2
        last = blind.last_id
        server.appctl("ovsdb-server/compact", "Names")
        server.restart()
        change(server, insert("three"))
        assert blind.last_id == last
        assert len(blind.resume(server) or ()) == 1


def test_a_client_that_knows_the_empty_database_resumes_after_a_restart() -> None:
    with Server("ovncp", [("names", NAMES)]) as server:
        follower = Follower()
        follower.resume(server)
        change(server, insert("first", "x"), insert("second", "x"))
        server.restart()
        sent = follower.resume(server)
        assert sent is not None
        assert follower.names == {"first": "x", "second": "x"}
