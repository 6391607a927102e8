"""`ovsdb-client`, `ovs-vsctl` and `vtep-ctl` do all that they can on ours, and as on the C server.

What a program prints is compared with what the same program prints on the C server, with the
uuids, which chance decides, replaced by their rank of appearance.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.programs import (
    VSWITCH_SCHEMA,
    VTEP_SCHEMA,
    wait_for,
    without_directories,
)
from servers import ENGINES, Server, run

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def pair(kind: str) -> Iterator[tuple[Server, Server]]:
    """Ours and the C server with the same empty databases."""
    databases = [("conf", schema_on(kind, VSWITCH_SCHEMA)), ("vtep", schema_on(kind, VTEP_SCHEMA))]
    with Server(kind, databases) as ours, Server("c", databases) as theirs:
        yield ours, theirs


def schema_on(kind: str, path: Path) -> dict[str, Any]:
    """The schema in the file `path`, for a database that a server of that kind is to have too."""
    schema: dict[str, Any] = json.loads(path.read_text())
    if kind in ENGINES:  # A cluster stores all columns.
        for table in schema["tables"].values():
            for column in table["columns"].values():
                column.pop("ephemeral", None)
    return schema


def plain(text: str) -> str:
    """`text` with each uuid replaced by its rank of appearance, and the directory left out."""
    ranks: dict[str, str] = {}
    text = UUID.sub(lambda match: ranks.setdefault(match[0], f"<{len(ranks)}>"), text)
    return without_directories(text)


def lines(text: str) -> list[str]:
    """What is left of `text` when the order of its rows is free, as that of a table's rows is."""
    return sorted(text.splitlines())


def said(server: Server, program: str, *args: str | Path) -> str:
    done = subprocess.run(
        [program, "--timeout=60", f"--db={server.remote}", *map(str, args)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return plain(f"{done.stdout}{re.sub('^.*Z.', '', done.stderr)}[{done.returncode}]")


def client(server: Server, verb: str, *args: str | Path, stdin: Path = Path("/dev/null")) -> str:
    with stdin.open() as file:
        done = subprocess.run(
            ["ovsdb-client", "--timeout=60", verb, server.remote, *map(str, args)],
            stdin=file, capture_output=True, text=True, check=False,
        )  # fmt: skip
    message = re.sub(r"^\S+\|\d+\|", "", done.stderr, flags=re.MULTILINE)
    return f"{done.stdout}{without_directories(message)}[{done.returncode}]"


def fill(server: Server) -> None:
    run(
        "ovs-vsctl", f"--db={server.remote}", "--no-wait", "init", "--",
        "add-br", "br0", "--", "set", "bridge", "br0", "external_ids:a=b", "fail_mode=secure", "--",
        "add-port", "br0", "p0", "tag=7", "--", "set", "interface", "p0", "mtu_request=1400",
    )  # fmt: skip


VSCTL = """
    --no-wait init
    --no-wait add-br br0
    --no-wait add-br br0
    --no-wait --may-exist add-br br0
    --no-wait add-br br1 br0 12
    --no-wait add-bond br0 bond0 e1 e2 lacp=active
    --no-wait add-port br0 p0 tag=7 -- set interface p0 type=internal options:x=y
    --no-wait --id=@q create queue other_config:max-rate=1 -- \
set port p0 external_ids:queue=@q -- --id=@n create qos type=linux-htb queues:0=@q -- \
set port p0 qos=@n
    --no-wait set bridge br0 other_config:a=1 other_config:b=2 datapath_id=0000000000000001
    --no-wait remove bridge br0 other_config a
    --no-wait clear bridge br0 other_config
    --no-wait add port p0 trunks 3 4 5
    --no-wait set bridge br0 no_such_column=1
    --no-wait set port p0 tag=5000
    --no-wait set-controller br0 tcp:127.0.0.1:6653 ssl:127.0.0.1:6654
    --no-wait set-ssl key.pem certificate.pem ca.pem
    --no-wait set-manager ptcp:0:127.0.0.1
    list-br
    list-ports br0
    iface-to-br e1
    get-controller br0
    get-manager
    get-ssl
    --columns=name,tag,trunks list port
    --format=csv --columns=name,type,options find interface type=internal
    --if-exists get bridge nothing name
    get bridge nothing name
    --no-wait del-port br0 p0
    --no-wait del-br br0
    --columns=name list port
    --columns=type list qos
    --no-wait emer-reset
    wait-until open_vswitch . bridges=[]
    show
"""


def test_ovs_vsctl_says_the_same_on_both(pair: tuple[Server, Server]) -> None:
    for line in filter(None, map(str.strip, VSCTL.splitlines())):
        ours, theirs = (said(server, "ovs-vsctl", *line.split()) for server in pair)
        assert lines(ours) == lines(theirs), line


VTEP = """
    add-ps ps0
    add-port ps0 port0
    add-ls ls0
    bind-ls ps0 port0 100 ls0
    add-lr lr0
    bind-lr lr0 ls0 10.0.0.1/24
    set physical_switch ps0 tunnel_ips=192.0.2.1
    add-ucast-local ls0 00:00:00:00:00:01 192.0.2.1
    add-ucast-remote ls0 00:00:00:00:00:02 vxlan_over_ipv4 192.0.2.2
    add-mcast-remote ls0 unknown-dst 192.0.2.3
    add-mcast-remote ls0 unknown-dst 192.0.2.4
    list-local-macs ls0
    list-remote-macs ls0
    list-bindings ps0 port0
    list-ls-bindings lr0
    del-mcast-remote ls0 unknown-dst 192.0.2.3
    clear-remote-macs ls0
    list-remote-macs ls0
    unbind-ls ps0 port0 100
    del-ls ls0
    del-ps ps0
    show
"""


def test_vtep_ctl_says_the_same_on_both(pair: tuple[Server, Server]) -> None:
    for line in filter(None, map(str.strip, VTEP.splitlines())):
        ours, theirs = (said(server, "vtep-ctl", *line.split()) for server in pair)
        assert lines(ours) == lines(theirs), line


INSERT = json.dumps(
    ["Open_vSwitch", {"op": "insert", "table": "SSL", "row": dict.fromkeys(
        ("private_key", "certificate", "ca_cert"), "x")}, {"op": "comment", "comment": "kept"}]
)  # fmt: skip
SELECT = json.dumps(
    ["Open_vSwitch", {"op": "select", "table": "Bridge", "where": [], "columns": ["name"]},
     {"op": "delete", "table": "Bridge", "where": []}]
)  # fmt: skip
READING: list[tuple[str, ...]] = [
    ("list-dbs",),
    ("get-schema", "Open_vSwitch"),
    ("get-schema", "_Server"),
    ("get-schema", "nothing"),
    ("get-schema-version", "Open_vSwitch"),
    ("get-schema-cksum", "Open_vSwitch"),
    ("list-tables", "hardware_vtep"),
    ("list-columns", "Open_vSwitch"),
    ("dump", "Open_vSwitch", "Bridge", "name", "fail_mode", "external_ids"),
    ("dump", "Open_vSwitch", "Port", "name", "tag"),
    ("dump", "Open_vSwitch", "Interface", "name", "mtu_request"),
    ("dump", "_Server", "Database", "name", "model", "connected", "leader"),
    ("dump", "nothing"),
    ("transact", INSERT.replace("insert", "nonsense")),
    ("transact", "[1]"),
    ("query", SELECT),
    ("needs-conversion", "schema"),
    ("wait", "Open_vSwitch", "added"),
    ("wait", "hardware_vtep", "connected"),
    ("wait", "nothing", "removed"),
]


def test_ovsdb_client_reads_the_same_from_both(
    pair: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schema").write_text(json.dumps(schema_on(pair[0].kind, VSWITCH_SCHEMA)))
    for server in pair:
        fill(server)
    for arguments in READING:
        ours, theirs = (client(server, *arguments) for server in pair)
        ours = ours.replace("clustered ", "standalone")
        assert lines(plain(ours)) == lines(plain(theirs)), arguments


def test_ovsdb_client_backs_up_and_restores(pair: tuple[Server, Server], tmp_path: Path) -> None:
    ours, theirs = pair
    fill(ours)
    backup = tmp_path / "backup"
    backup.write_text(run("ovsdb-client", "backup", ours.remote, "Open_vSwitch"))
    before = client(ours, "dump", "Open_vSwitch", "Bridge", "name", "external_ids")
    run("ovs-vsctl", f"--db={ours.remote}", "--no-wait", "del-br", "br0", "--", "add-br", "other")
    assert client(ours, "restore", "Open_vSwitch", stdin=backup) == "[0]"
    assert client(ours, "dump", "Open_vSwitch", "Bridge", "name", "external_ids") == before
    assert client(theirs, "restore", "Open_vSwitch", stdin=backup) == "[0]"
    assert client(theirs, "dump", "Open_vSwitch", "Bridge", "name", "external_ids") == before


def test_a_backup_is_a_database_file_that_both_open(pair: tuple[Server, Server]) -> None:
    fill(pair[0])
    backup = run("ovsdb-client", "backup", pair[0].remote, "Open_vSwitch").encode()
    for server in pair:
        with Server(server.kind, [("copy", backup)]) as copy:
            assert "br0" in client(copy, "dump", "Open_vSwitch", "Bridge", "name")


def version(server: Server) -> str:
    return client(server, "get-schema-version", "Open_vSwitch")


def test_ovsdb_client_converts_a_database_that_is_in_use(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    schema = schema_on(pair[0].kind, VSWITCH_SCHEMA)
    schema["version"] = "99.0.0"
    del schema["tables"]["Bridge"]["columns"]["fail_mode"]
    schema["tables"]["Bridge"]["columns"]["colour"] = {"type": "string"}
    newer = tmp_path / "newer.ovsschema"
    newer.write_text(json.dumps(schema))
    for server in pair:
        fill(server)
        assert client(server, "needs-conversion", newer) == "yes\n[0]"
        assert client(server, "convert", newer) == "[0]"
        for member in server.members:
            # One of them did it, and the others disconnect their clients a moment later.
            wait_for(lambda member=member: version(member) == "99.0.0\n[0]", "the new version")
        assert client(server, "needs-conversion", newer) == "no\n[0]"
        server.restart()
        columns = ("name", "colour", "external_ids")
        assert '""' in client(server, "dump", "Open_vSwitch", "Bridge", *columns)
    columns = ("Open_vSwitch", "Bridge", "name", "fail_mode")
    assert client(pair[0], "dump", *columns) == client(pair[1], "dump", *columns)


MONITORS = [
    ("monitor", "Open_vSwitch", "Bridge", "name,external_ids"),
    ("monitor", "Open_vSwitch", "Bridge", "name,!initial,!delete", "external_ids"),
    ("monitor", "Open_vSwitch", "ALL"),
    ("monitor-cond", "Open_vSwitch", '[["name","==","br1"]]', "Bridge", "name,external_ids"),
    (
        "monitor-cond-since", "Open_vSwitch", "00000000-0000-0000-0000-000000000000", "[true]",
        "Bridge", "name,external_ids",
    ),
]  # fmt: skip


def is_monitored(server: Server) -> bool:
    """Whether a client monitors anything there."""
    shown = [member.own_appctl("memory/show") for member in server.members]
    return any("monitors:1" in each or "n-monitors" in each for each in shown)


def monitored(server: Server, arguments: tuple[str, ...]) -> str:
    """What `ovsdb-client` prints while bridges come, change and go."""
    verb, *rest = arguments
    wait_for(lambda: not is_monitored(server), "the end of who monitored before")
    # One row in each table, for the order of rows is free.
    with (server.directory / "printed").open("w+") as printed:
        process = subprocess.Popen(
            ["ovsdb-client", "--format=json", verb, server.remote, *rest], stdout=printed
        )
        vsctl = ("ovs-vsctl", f"--db={server.remote}", "--no-wait")
        try:
            wait_for(lambda: is_monitored(server), "the monitor")
            run(*vsctl, "add-br", "br1")
            run(*vsctl, "set", "bridge", "br1", "external_ids:seen=no")
            run(*vsctl, "set", "bridge", "br1", "external_ids:seen=yes", "external_ids:and=more")
            run(*vsctl, "del-br", "br1")
            run(*vsctl, "add-br", "end", "--", "set", "bridge", "end", "external_ids:end=1")
            last = "delete" if "br1" in rest[1] else "end"
            wait_for(lambda: last in Path(printed.name).read_text(), "the end")
        finally:
            process.terminate()
            process.wait()
        # The C server gives no transaction ids for a standalone database, ours does.
        return plain(re.sub(r"last_id: [0-9a-f-]{36}", "last_id", Path(printed.name).read_text()))


@pytest.mark.parametrize("arguments", MONITORS, ids=[" ".join(each[:3]) for each in MONITORS])
def test_ovsdb_client_monitors_the_same_on_both(
    pair: tuple[Server, Server], arguments: tuple[str, ...]
) -> None:
    for server in pair:
        run("ovs-vsctl", f"--db={server.remote}", "--no-wait", "init")
    ours, theirs = (monitored(server, arguments) for server in pair)
    if "ALL" in arguments:
        assert sorted(re.findall(r'"caption":"\w+"', ours)) == sorted(
            re.findall(r'"caption":"\w+"', theirs)
        )
    else:
        assert ours == theirs


def test_a_lock_is_held_by_one_and_can_be_stolen(pair: tuple[Server, Server]) -> None:
    answers = []
    for server in pair:
        printed = [server.directory / name for name in ("holder", "waiter", "thief")]
        processes = []
        for verb, path in zip(("lock", "lock", "steal"), printed, strict=True):
            with path.open("w") as output:
                command = ["ovsdb-client", verb, server.remote, "north"]
                processes.append(subprocess.Popen(command, stdout=output))
            wait_for(lambda path=path: "locked" in path.read_text(), verb)
        wait_for(lambda path=printed[0]: "stolen" in path.read_text(), "the theft")
        for process, heir in ((processes[2], printed[0]), (processes[0], printed[1])):
            already = heir.read_text().count("locked\n[")
            process.terminate()
            process.wait()
            wait_for(
                lambda heir=heir, already=already: heir.read_text().count("locked\n[") > already,
                "the lock to pass on",
            )
        processes[1].terminate()
        processes[1].wait()
        answers.append([path.read_text() for path in printed])
    assert answers[0] == answers[1]


def test_transact_prints_the_reply(pair: tuple[Server, Server]) -> None:
    for server in pair:
        fill(server)
        (inserted, comment) = json.loads(run("ovsdb-client", "transact", server.remote, INSERT))
        assert UUID.fullmatch(inserted["uuid"][1]) and comment == {}
