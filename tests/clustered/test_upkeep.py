"""Snapshots and compaction of a log that several servers share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from clustered.conftest import Start
from clustered.rows import PATIENCE_S, counter, put, resume, rows, wait_until_seen
from clustered.wired import Wired
from interop.programs import wait_for
from ovncp.log.contract.wire import Wire
from ovncp.log.engine import EngineLog
from ovncp.log.registry import open_log
from servers import Server

NOTHING_KEPT = {"keep_s": 0, "keep_mb": 0}


def indexes(server: Server) -> tuple[int, int]:
    """The snapshot's, and the last entry's, as cluster/status has them."""
    found = re.search(r"^Log: \[(\d+), (\d+)\]$", server.appctl("cluster/status", "D"), re.M)
    assert found
    return int(found[1]) - 1, int(found[2]) - 1


def fill(server: Server, n: int, value: str = "x") -> None:
    client = server.client()
    for i in range(n):
        put(client, f"k{i % 10}", f"{value}{i}")


def test_what_is_young_is_kept(start: Start) -> None:
    [one] = start(1)
    fill(one, 20)
    one.appctl("ovsdb-server/compact")
    assert indexes(one) == (0, 20)


def test_what_is_old_goes(start: Start) -> None:
    [one] = start(1, keep_s=0)
    fill(one, 20)
    # What is dated later than now is young, however long this takes.
    one.appctl("time/warp", "3600000")
    fill(one, 3)
    one.appctl("ovsdb-server/compact")
    assert indexes(one) == (20, 23)


def test_no_more_is_kept_than_there_is_room_for(start: Start) -> None:
    [one] = start(1, keep_mb=1)
    fill(one, 20, "x" * 100_000)
    one.appctl("ovsdb-server/compact")
    base, last = indexes(one)
    assert last == 20
    assert 9 <= last - base <= 10


def test_transaction_ids_go_on_over_a_snapshot(start: Start) -> None:
    one, other = start(2, **NOTHING_KEPT)
    fill(one, 5)
    _, early, _ = resume(one)
    fill(one, 25)
    other.appctl("ovsdb-server/compact")
    assert indexes(one) == (30, 30)
    fill(one, 1, "y")
    wait_until_seen(other, "k0", "y0")
    other.restart()
    # The one has lived through it, the other has read the snapshot.
    assert resume(one)[1] == resume(other)[1]
    for server in (one, other):
        found, _, updates = resume(server, early)
        assert found
        assert {row["insert"]["k"] for row in updates["T"].values() if "insert" in row} == {
            f"k{i}" for i in range(10)
        }
    assert rows(one) == rows(other)


def test_one_that_was_away_goes_on_from_entries(start: Start) -> None:
    one, other = start(2)
    os.kill(other.pid, signal.SIGSTOP)
    fill(one, 30)
    one.appctl("ovsdb-server/compact")
    os.kill(other.pid, signal.SIGCONT)
    wait_until_seen(other, "k9", "x29")
    assert rows(one) == rows(other)
    assert counter(other, "log_reload") == 0


def test_one_that_was_away_too_long_begins_again(wired: tuple[Wired, Server]) -> None:
    cut_off, other = wired
    # One that merely stands still may find all of it in its socket.
    cut_off.do(Wire.cut)
    fill(other, 30)
    other.appctl("ovsdb-server/compact")
    cut_off.do(Wire.mend)
    wait_until_seen(cut_off.server, "k9", "x29")
    assert counter(cut_off.server, "log_reload") == 1
    assert rows(cut_off.server) == rows(other) == {f"k{i}": f"x{20 + i}" for i in range(10)}
    assert resume(cut_off.server)[1] == resume(other)[1]


def test_what_is_asked_while_it_begins_again_builds_on_what_it_reads(
    wired: tuple[Wired, Server],
) -> None:
    cut_off, other = wired
    cut_off.do(Wire.cut)
    # So many that reading them takes its time.
    many = [{"op": "insert", "table": "T", "row": {"k": f"many {n}"}} for n in range(10_000)]
    other.client(timeout=PATIENCE_S).transact("D", *many)
    fill(other, 30)
    other.appctl("ovsdb-server/compact")
    client = cut_off.server.client(timeout=PATIENCE_S)
    # Else it is disconnected, as the database might have another schema.
    client.request("set_db_change_aware", [True])
    cut_off.do(Wire.mend)
    ids = {}
    while not counter(cut_off.server, "log_reload") or len(ids) % 100:
        key = f"asked {len(ids)}"
        insert = {"op": "insert", "table": "T", "row": {"k": key}}
        ids[key] = client.start("transact", ["D", insert])
        time.sleep(0.002)
    stored = {key for key, id in ids.items() if "error" not in client.reply(id)["result"][-1]}
    assert stored
    found = rows(other)
    assert {key for key in found if key.startswith("asked")} == stored
    assert rows(cut_off.server) == found


def test_two_who_are_told_at_once_do_it_once(start: Start) -> None:
    servers = start(2, **NOTHING_KEPT)
    fill(servers[0], 30)
    told = [
        subprocess.Popen(["ovs-appctl", "-t", str(server.control), "ovsdb-server/compact"])
        for server in servers
    ]
    assert [process.wait(PATIENCE_S) for process in told] == [0, 0]
    done = [server.log.count("the snapshot is as of 30") for server in servers]
    # Unless one had done it before the other began.
    assert sum(done) >= 1
    assert indexes(servers[0]) == indexes(servers[1]) == (30, 30)


def test_it_is_done_by_itself_and_by_one(start: Start) -> None:
    servers = start(2, **NOTHING_KEPT)
    fill(servers[0], 5)
    for server in servers:
        # They look a moment after they are warped, and find that a day has passed.
        server.appctl("time/warp", "86400000")
    deadline = time.monotonic() + PATIENCE_S
    while indexes(servers[0])[0] != 5:
        assert time.monotonic() < deadline, servers[0].log
        time.sleep(0.1)

    def n_done() -> int:
        return sum(server.log.count("the snapshot is as of 5") for server in servers)

    wait_for(n_done, "a word on who did it")
    time.sleep(1)
    assert n_done() == 1


def child_of(server: Server) -> int:
    """The process that does the upkeep for `server`, stopped as soon as it is there.

    It is known by its command, as it has a name of its own too late for one who looks at times.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for child in _children(server.pid):
            # A process, or a thread, may end meanwhile.
            with contextlib.suppress(OSError):
                if b"upkeep" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGSTOP)
                    return child
    raise AssertionError("there is no upkeep")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


@contextlib.contextmanager
def compacting(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """The command, under way."""
    command = ["ovs-appctl", "-t", str(server.control), "ovsdb-server/compact"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        yield process


def test_another_server_takes_over_from_one_that_dies(start: Start) -> None:
    one, other = start(2, **NOTHING_KEPT)
    fill(one, 30)
    with compacting(one):
        child = child_of(one)
        one.kill9()
        other.appctl("ovsdb-server/compact")
        assert indexes(other) == (30, 30)
    # It ends by itself, as its server has.
    os.kill(child, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "the process stays"
        time.sleep(0.02)
    one.start()
    assert rows(one) == rows(other) == {f"k{i}": f"x{20 + i}" for i in range(10)}


def test_clients_are_served_and_told_while_it_is_done(start: Start) -> None:
    one, other = start(2, **NOTHING_KEPT)
    fill(one, 30)
    with compacting(one) as command:
        child = child_of(one)
        fill(one, 5, "y")
        wait_until_seen(other, "k4", "y4")
        os.kill(child, signal.SIGCONT)
        assert command.wait(PATIENCE_S) == 0
    assert indexes(one)[1] == 35
    assert rows(one) == rows(other)


def test_what_fails_is_told_and_leaves_the_log_as_it_was(start: Start) -> None:
    [one] = start(1, **NOTHING_KEPT)
    fill(one, 30)
    with compacting(one) as command:
        os.kill(child_of(one), signal.SIGKILL)
        assert command.wait(PATIENCE_S) == 2
        assert command.stderr is not None
        assert b"the process ended with status -9" in command.stderr.read()
    assert indexes(one) == (0, 30)
    one.appctl("ovsdb-server/compact")
    assert indexes(one) == (30, 30)


def test_the_location_is_not_on_the_command_line(start: Start) -> None:
    [one] = start(1)
    fill(one, 1)
    with compacting(one):
        child = child_of(one)
        assert b"db=" not in Path(f"/proc/{child}/cmdline").read_bytes()
        assert b"db=" not in Path(f"/proc/{child}/environ").read_bytes()
        os.kill(child, signal.SIGCONT)


def test_a_snapshot_that_cannot_be_applied_is_never_replaced(start: Start) -> None:
    [one] = start(1, **NOTHING_KEPT)
    fill(one, 3)
    one.appctl("ovsdb-server/compact")
    url = one.options[0]

    async def spoil() -> None:
        log = await open_log(url)
        assert isinstance(log, EngineLog)
        twice = b'{"T":{"%b":{"k":"a"},"%b":{"k":"a"}},"_date":1}'
        uuids = [b"00000000-0000-4000-8000-00000000000%d" % i for i in (1, 2)]
        await log.save_snapshot(3, twice % tuple(uuids))
        await log.close()

    asyncio.run(spoil())
    fill(one, 3)
    try:
        one.appctl("ovsdb-server/compact")
    except subprocess.CalledProcessError as error:
        assert "the snapshot, as of 3, cannot be applied" in error.stderr
    assert indexes(one) == (3, 6)
