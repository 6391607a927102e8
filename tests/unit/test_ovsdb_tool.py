"""ovsdb-tool(1): ours and the C program do the same with the same command line and files.

Each case runs both in directories of their own that hold the same files, and compares what they
print, their exit status, and what the C program then finds in the file. Where the manual page and
the C program disagree, the manual page decides, and a test of its own says so. Ours runs within
the test if it only looks, which takes a tenth of the time.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ovncp
from ovncp.cli import ovsdb_tool
from ovncp.ops.hash_order import in_hash_order

OURS = [str(Path(sys.executable).with_name("ovncp")), "ovsdb-tool"]
C = ["ovsdb-tool"]
PACKAGE_SCHEMAS = [
    Path("/usr/share/openvswitch/vswitch.ovsschema"),
    Path("/usr/share/openvswitch/vtep.ovsschema"),
    Path("/usr/share/ovn/ovn-nb.ovsschema"),
    Path("/usr/share/ovn/ovn-sb.ovsschema"),
]

MANY = {"min": 0, "max": "unlimited"}
SCHEMA: dict[str, Any] = {
    "name": "T",
    "version": "1.2.3",
    "cksum": "1 2",
    "tables": {
        "A": {
            "columns": {
                "name": {"type": "string"},
                "ints": {"type": {"key": "integer", **MANY}},
                "real": {"type": "real"},
                "map": {"type": {"key": "string", "value": "string", **MANY}},
                "flag": {"type": {"key": "boolean", "min": 0, "max": 1}},
                "enum": {
                    "type": {
                        "key": {"type": "string", "enum": ["set", ["x", "y"]]},
                        "min": 0,
                        "max": 2,
                    }
                },
            },
            "isRoot": True,
            "indexes": [["name"]],
        },
        "B": {"columns": {"a": {"type": {"key": {"type": "uuid", "refTable": "A"}}}}},
        "C": {"columns": {"n": {"type": "integer"}, "gone": {"type": "string"}}, "isRoot": True},
    },
}
UUIDS = [f"{n:08x}-0000-4000-8000-00000000000{n}" for n in range(1, 8)]


def schema_without(table: str, column: str | None = None, **others: Any) -> dict[str, Any]:
    """SCHEMA without a table or a column of it."""
    schema: dict[str, Any] = json.loads(json.dumps(SCHEMA | others))
    if column is None:
        del schema["tables"][table]
    else:
        del schema["tables"][table]["columns"][column]
    return schema


def insert(table: str, number: int, **row: Any) -> dict[str, Any]:
    """An "insert" of a row with a known uuid."""
    return {"op": "insert", "table": table, "uuid": UUIDS[number], "row": row}


def request(*operations: Any) -> str:
    """The argument of "query" and "transact"."""
    return json.dumps(["T", *operations])


HISTORY = [
    request(
        insert(
            "A",
            0,
            name="one two",
            ints=["set", [3, 1, 2]],
            real=1e20,
            map=["map", [["a", "b"], ["c d", 'é\n"']]],
            flag=True,
            enum="x",
        ),
        insert("A", 1, name="b"),
        {"op": "comment", "comment": "first"},
        {"op": "comment", "comment": 'the "second"'},
    ),
    request(
        {
            "op": "mutate",
            "table": "A",
            "where": [["name", "==", "one two"]],
            "mutations": [["ints", "insert", 7], ["map", "delete", ["set", ["a"]]]],
        },
        {"op": "update", "table": "A", "where": [], "row": {"real": 0.1, "flag": False}},
    ),
    request({"op": "update", "table": "A", "where": [["name", "==", "b"]], "row": {"name": "bb"}}),
    request(
        {
            "op": "update",
            "table": "A",
            "where": [["name", "==", "bb"]],
            "row": {"enum": ["set", ["x", "y"]]},
        }
    ),
    request(*(insert("C", n, n=n, gone=f"row {n}") for n in range(2, 7))),
    request({"op": "delete", "table": "A", "where": [["name", "==", "bb"]]}),
]


def record(data: Any, kind: str = "JSON") -> bytes:
    """One record of a database file; `data` is JSON, or text that is to pass for it."""
    body = (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n"
    return f"OVSDB {kind} {len(body)} {hashlib.sha1(body).hexdigest()}\n".encode() + body


def crafted(*transactions: Any) -> bytes:
    """A database file of SCHEMA with these transactions."""
    return record(SCHEMA) + b"".join(map(record, transactions))


FILES: dict[str, bytes] = {
    "t.ovsschema": json.dumps(SCHEMA).encode(),
    "newer.ovsschema": json.dumps(schema_without("C", "gone", version="1.3.0")).encode(),
    "smaller.ovsschema": json.dumps(schema_without("C")).encode(),
    "bare.ovsschema": json.dumps({"name": "Bare", "tables": {}}).encode(),
    "strict.ovsschema": json.dumps(
        {
            "name": "T",
            "tables": {
                "A": {"columns": {"name": {"type": {"key": {"type": "string", "maxLength": 1}}}}}
            },
        }
    ).encode(),
    "truncated.ovsschema": b'{"name":"x"\n',
    "trailing.ovsschema": b'{"name":"x"}\n[',
    "string.ovsschema": b'"x"',
    "tableless.ovsschema": b'{"name":"x"}',
    "misversioned.ovsschema": b'{"name":"x","version":"1.2","tables":{}}',
    "unknown.ovsschema": b'{"name":"x","tables":{},"more":1}',
    "array.ovsschema": b"[]",
    "dangling.ovsschema": json.dumps(schema_without("A")).encode(),
    "empty": b"",
    "schemaless.db": record({}),
    "text.db": b"some text\n",
    "unsound.db": crafted({"A": {}}).replace(b"1.2.3", b"1.2.4"),
    "torn.db": crafted({"A": {UUIDS[0]: {"name": "x"}}}, {"A": {UUIDS[1]: {"name": "y"}}})[:-5],
    "torn_header.db": crafted({"A": {UUIDS[0]: {"name": "x"}}}) + b"OVSDB JSON 12",
    "junk_after.db": crafted({"A": {UUIDS[0]: {"name": "x"}}}) + b"junk\n",
    "not_json.db": crafted("{x"),
    "not_object.db": crafted([]),
    "unknown_table.db": crafted({"A": {UUIDS[0]: {"name": "x"}}, "Z": {}, "_date": 1}),
    "unknown_column.db": crafted({"A": {UUIDS[0]: {"z": 1}}, "_comment": "c"}),
    "bad_value.db": crafted({"A": {UUIDS[0]: {"name": 1}}}),
    "bad_uuid.db": crafted({"A": {"x": {"name": "n"}}}),
    "bad_rows.db": crafted({"A": 3}),
    "bad_row.db": crafted({"A": {UUIDS[0]: 3}}),
    "bad_delete.db": crafted({"A": {UUIDS[0]: None}}),
    "old_date.db": crafted({"_date": 1234567890, "A": {UUIDS[0]: {"name": "x"}}}),
    "odd_date.db": crafted({"_date": 1795247100519.0}, {"_comment": 'a "b"\n c\u00e9'}),
    "constraint.db": crafted({"A": {UUIDS[0]: {"enum": "z"}}}),
    "strange.db": crafted({"Z": {UUIDS[1]: {"q": {"b": 1, "a": [True, None]}, "name": 3}}}),
    "upper_case.db": crafted({"A": {"ABCDEF01-0000-4000-8000-000000000000": {"name": "x"}}}),
    "bad_date.db": crafted({"_date": "today"}),
    "clustered.db": record({"name": "T"}, "CLUSTER"),
}


class Result(NamedTuple):
    """What a program did."""

    status: int
    stdout: str
    stderr: str


RunHere = Callable[[Iterable[str]], Result]


class Pair:
    """Two directories with the same files, one for each program.

    `run_here` runs ours within the test, in its directory.
    """

    def __init__(self, template: Path, path: Path, run_here: RunHere) -> None:
        self.run_here = run_here
        self.c_place = path / "c"
        self.our_place = path / "ours"
        for place in self.places:
            shutil.copytree(template, place, symlinks=True)

    @property
    def places(self) -> tuple[Path, Path]:
        return self.c_place, self.our_place

    def c(self, *arguments: str, at: Path | None = None) -> Result:
        """Run the C program."""
        return run(C, arguments, at or self.c_place)

    def ours(self, *arguments: str, at: Path | None = None) -> Result:
        """Run ours."""
        return run(OURS, arguments, at or self.our_place)

    def same(self, *arguments: str) -> Result:
        """Run both, and check that they did the same."""
        theirs = self.c(*arguments)
        ours = self.ours(*arguments) if writes(arguments) else self.run_here(arguments)
        assert plain(ours) == plain(theirs)
        return ours

    def same_content(self, name: str) -> None:
        """Check that the C program finds the same in the file of either."""
        listings = [self.c("-mm", "show-log", name, at=place) for place in self.places]
        assert sorted_lines(listings[1]) == sorted_lines(listings[0])
        assert listings[0].status == 0


def writes(arguments: Iterable[str]) -> bool:
    """Whether these have ours write to a database."""
    commands = ovsdb_tool.COMMANDS
    return any(commands[argument].writes for argument in arguments if argument in commands)


def environment(place: Path) -> dict[str, str]:
    """What keeps a program to `place`."""
    names = ("OVS_DBDIR", "OVS_PKGDATADIR", "OVS_LOGDIR")
    return dict.fromkeys(names, str(place)) | {"OVS_SYSLOG_METHOD": "null"}


def run(program: list[str], arguments: Iterable[str], place: Path) -> Result:
    done = subprocess.run(
        [*program, *arguments],
        cwd=place,
        env=os.environ | environment(place),
        capture_output=True,
        check=False,
        timeout=120,
    )
    printed = [out.decode().replace(str(place), "PLACE") for out in (done.stdout, done.stderr)]
    return Result(done.returncode, *printed)


_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_VARYING = [
    (r'ovsdb-tool [0-9.]+"', 'ovsdb-tool VERSION"'),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"^(record \d+): 20[2-9]\d-\S+ [0-9:.]+", r"\1: TIME"),
    (rf'"_version":\["uuid","{_UUID}"\]', '"_version":UUID'),
]


def plain(result: Result) -> Result:
    """`result` without what differs from one run to the next."""
    stdout, stderr = result.stdout, result.stderr
    for pattern, text in _VARYING:
        stdout = re.sub(pattern, text, stdout, flags=re.MULTILINE)
        stderr = re.sub(pattern, text, stderr, flags=re.MULTILINE)
    return Result(result.status, stdout, stderr)


def sorted_lines(result: Result) -> list[str]:
    """The lines of a listing of a file; the order of rows depends on that in the file."""
    return sorted(plain(result).stdout.splitlines())


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every file of FILES, and t.db, which the C program made."""
    place = tmp_path_factory.mktemp("template")
    for name, data in FILES.items():
        (place / name).write_bytes(data)
    run(C, ["create", "t.db", "t.ovsschema"], place)
    for step in HISTORY:
        done = run(C, ["transact", "t.db", step], place)
        assert "error" not in done.stdout, done
        assert done.status == 0, done
    for lock in place.glob(".*~lock~"):
        lock.unlink()
    shutil.copy(place / "t.db", place / "conf.db")
    shutil.copy(place / "t.ovsschema", place / "vswitch.ovsschema")
    (place / "link.db").symlink_to("t.db")
    return place


@pytest.fixture
def pair(
    template: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Pair:
    def run_here(arguments: Iterable[str]) -> Result:
        capfd.readouterr()
        status = ovsdb_tool.main(list(arguments))
        printed = [out.replace(str(pair.our_place), "PLACE") for out in capfd.readouterr()]
        return Result(status, *printed)

    pair = Pair(template, tmp_path, run_here)
    monkeypatch.chdir(pair.our_place)
    for name, value in environment(pair.our_place).items():
        monkeypatch.setenv(name, value)
    return pair


COMMAND_LINES = [
    [],
    ["nonsense"],
    ["-x"],
    ["--nonsense"],
    ["--rbac-role"],
    ["--more=1", "db-name"],
    ["-vnonsense", "db-name"],
    ["query"],
    ["db-name", "a", "b"],
    ["db-is-standalone"],
    ["compare-versions", "1.2.3", "=="],
    ["create", "1", "2", "3"],
    ["list-commands"],
    ["list-commands", "and", "more"],
    ["-vconsole:off", "db-name", "t.db"],
    ["db-name", "t.db", "-v"],
    ["--", "db-name", "t.db"],
]


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=" ".join)
def test_command_line(pair: Pair, arguments: list[str]) -> None:
    assert plain(pair.ours(*arguments)) == plain(pair.c(*arguments))


DATABASES = ["t.db", "link.db", "nosuch.db", ".", *(n for n in FILES if not n.endswith("schema"))]


@pytest.mark.parametrize("name", DATABASES)
def test_looking_at_a_database(pair: Pair, name: str) -> None:
    pair.same("db-name", name)
    pair.same("-mm", "show-log", name)
    pair.same("db-version", name)
    pair.same("db-is-standalone", name)


def test_every_look_at_a_database(pair: Pair) -> None:
    pair.same("db-cksum", "t.db")
    pair.same("db-is-clustered", "t.db")
    pair.same("db-is-clustered", "clustered.db")
    pair.same("needs-conversion", "clustered.db", "t.ovsschema")
    for arguments in ([], ["-m"], ["-mm"], ["-m", "-m", "-m"], ["--more"]):
        pair.same(*arguments, "show-log", "t.db")
        pair.same("show-log", "t.db", *arguments)


@pytest.mark.parametrize("name", DATABASES)
def test_reading_the_data_of_a_database(pair: Pair, name: str) -> None:
    select = {"op": "select", "table": "A", "where": []}
    pair.same("query", name, request(select))
    pair.same("transact", name, request(select, {"op": "comment", "comment": "nothing"}))
    if pair.same("convert", name, "t.ovsschema", "new.db").status == 0:
        pair.same_content("new.db")


@pytest.mark.parametrize(
    "name", ["nosuch", ".", *(name for name in FILES if name.endswith("schema"))]
)
def test_schema_file(pair: Pair, name: str) -> None:
    pair.same("needs-conversion", "t.db", name)
    if pair.same("create", "made.db", name).status == 0:
        pair.same_content("made.db")


@pytest.mark.parametrize("path", PACKAGE_SCHEMAS, ids=lambda path: path.name)
def test_schema_of_a_package(pair: Pair, path: Path) -> None:
    pair.same("create", "made.db", str(path))
    for place in pair.places:
        for other in pair.places:
            arguments = ("needs-conversion", str(other / "made.db"), str(path))
            assert pair.c(*arguments, at=place) == pair.ours(*arguments, at=place)
            assert pair.ours(*arguments, at=place).stdout == "no\n"
    pair.same("db-cksum", "made.db")
    pair.same("needs-conversion", "made.db", "t.ovsschema")


def test_default_paths(pair: Pair) -> None:
    pair.same("db-name")
    pair.same("db-version")
    pair.same("db-cksum")
    pair.same("schema-name")
    pair.same("schema-version")
    pair.same("schema-cksum")
    pair.same("needs-conversion")
    pair.same("query", request({"op": "select", "table": "A", "where": []}))
    pair.same("transact", request(insert("A", 4, name="new")))
    pair.same("compact")
    pair.same("convert")
    pair.same("-mm", "show-log")
    assert "create failed (File exists)" in pair.same("create").stderr
    for place in pair.places:
        (place / "conf.db").unlink()
    assert pair.same("create").status == 0
    pair.same_content("conf.db")


VERSIONS = ["1.2.3", "1.10.0", "01.2.3", " 1.2.3", "1.2.-3", "+1.2.3", "4294967297.2.3"]
BAD_VERSIONS = ["1.2", "1.2.3x", "1.2.3.4", "", "x", "1 .2.3", "1.2.3 "]


@pytest.mark.parametrize("operator", ["<", "<=", "==", ">=", ">", "!=", "<>", ""])
def test_compare_versions(pair: Pair, operator: str) -> None:
    for version in ("1.2.3", "1.10.0"):
        pair.same("compare-versions", "1.2.3", operator, version)


@pytest.mark.parametrize("version", [*VERSIONS, *BAD_VERSIONS])
def test_version(pair: Pair, version: str) -> None:
    pair.same("compare-versions", version, "==", "1.2.3")


SELECT = {"op": "select", "table": "C", "where": [], "sort": ["n"]}
REQUESTS = [
    request(),
    request(SELECT),
    request({"op": "select", "table": "A", "where": [["name", "==", "one two"]]}),
    request({"op": "select", "table": "Z", "where": []}),
    request({"op": "nonsense"}),
    request(3),
    request(insert("A", 3, name="x", enum=["set", ["x", "z"]])),
    request(insert("A", 3, name="x"), {"op": "abort"}, SELECT),
    request({"op": "assert", "lock": "x"}),
    request({"op": "commit", "durable": True}),
    request({"op": "update", "table": "A", "where": [], "row": {"real": 1.5e-7}}),
    request({"op": "delete", "table": "C", "where": [["n", ">", 3]]}, SELECT),
    request({"op": "wait", "table": "C", "where": [], "columns": ["n"], "until": "==", "rows": []}),
    *(
        request(
            SELECT,
            {"op": "wait", "timeout": timeout, "table": "C", "where": []}
            | {"columns": ["n"], "until": "==", "rows": []},
            SELECT,
        )
        for timeout in (0, 10, -1)
    ),
    "[]",
    "{}",
    "[3]",
    '["Z"]',
    '[["T"]]',
    "",
    "[",
    "x",
    '"T"',
    '["T"] x',
    '["T", "\\u0000"]',
]


CHANGES = "insert|update|delete"


@pytest.mark.parametrize("text", REQUESTS)
def test_transact(pair: Pair, text: str) -> None:
    pair.same("transact", "t.db", text)
    pair.same_content("t.db")


@pytest.mark.parametrize("text", [text for text in REQUESTS if not re.search(CHANGES, text)])
def test_query(pair: Pair, text: str) -> None:
    before = (pair.our_place / "t.db").read_bytes()
    pair.same("query", "t.db", text)
    assert (pair.our_place / "t.db").read_bytes() == before


def test_query_may_specify_changes_that_have_no_effect(pair: Pair) -> None:
    """As the manual says; the C program reports that it could not write them."""
    text = request(insert("A", 3, name="new"), {"op": "select", "table": "A", "where": []})
    before = (pair.our_place / "t.db").read_bytes()
    ours, theirs = pair.ours("query", "t.db", text), pair.c("query", "t.db", text)
    assert (ours.status, ours.stderr) == (0, "")
    assert len(json.loads(ours.stdout)) == 2
    assert json.loads(theirs.stdout)[2]["error"] == "I/O error"
    assert (pair.our_place / "t.db").read_bytes() == before
    assert not list(pair.our_place.glob(".*lock*"))


@pytest.mark.parametrize("role", ["", "ovn-controller"])
@pytest.mark.parametrize("schema", ["t.ovsschema", "/usr/share/ovn/ovn-sb.ovsschema"])
def test_role(pair: Pair, role: str, schema: str) -> None:
    pair.same("create", "rbac.db", schema)
    name = pair.same("db-name", "rbac.db").stdout.strip()
    table, row = ("A", {"name": "x"}) if name == "T" else ("Chassis", {"name": "x"})
    text = json.dumps([name, {"op": "insert", "table": table, "uuid": UUIDS[0], "row": row}])
    pair.same(f"--rbac-role={role}", "transact", "rbac.db", text)


@pytest.mark.parametrize("by", [C, OURS], ids=["c", "ours"])
@pytest.mark.parametrize("path", PACKAGE_SCHEMAS[2:], ids=lambda path: path.name)
def test_show_log_of_what_either_wrote(pair: Pair, by: list[str], path: Path) -> None:
    place = pair.our_place
    name = run(C, ["schema-name", str(path)], place).stdout.strip()
    run(by, ["create", "ovn.db", str(path)], place)
    rows = [
        {"op": "insert", "table": "Connection", "row": {"target": f"ptcp:{n}", "external_ids": m}}
        for n in range(30)
        for m in [["map", [[f"key {n} {k}", "x" * k] for k in range(n % 9)]]]
    ]
    run(by, ["transact", "ovn.db", json.dumps([name, *rows])], place)
    change = {"op": "update", "table": "Connection", "where": [], "row": {"max_backoff": 2000}}
    run(by, ["transact", "ovn.db", json.dumps([name, change])], place)
    for more in ([], ["-m"], ["-mm"], ["-mmm"]):
        listing = run(C, [*more, "show-log", "ovn.db"], place)
        assert listing.status == 0
        assert run(OURS, [*more, "show-log", "ovn.db"], place) == listing
    run(by, ["compact", "ovn.db"], place)
    assert run(OURS, ["-mm", "show-log", "ovn.db"], place) == run(
        C, ["-mm", "show-log", "ovn.db"], place
    )


def test_hash_order_keeps_every_name() -> None:
    """Whatever their number; that it is the C program's order shows in the listings above."""
    assert in_hash_order([]) == []
    names = [f"name{n}" for n in range(1000)]
    assert sorted(in_hash_order(names)) == sorted(names)


def test_compact_in_place(pair: Pair) -> None:
    pair.same("compact", "t.db")
    pair.same_content("t.db")
    assert pair.same("-mm", "show-log", "t.db").stdout.count("record ") == 2
    pair.same("compact", "link.db")
    pair.same_content("t.db")
    assert all((place / "link.db").is_symlink() for place in pair.places)


def test_compact_of_an_empty_database(pair: Pair) -> None:
    pair.same("create", "made.db", "t.ovsschema")
    pair.same("compact", "made.db")
    pair.same_content("made.db")


def records(path: Path) -> list[tuple[Any, list[str]]]:
    """The records in the file `path`, each as a value, and as sorted characters.

    So two that are equal may differ in the order of their members alone, beside their dates.
    """
    found = []
    for header, text in re.findall(r"(OVSDB JSON .*)\n(.*)\n", path.read_text()):
        assert len(text.encode()) + 1 == int(header.split()[2])
        text = re.sub(r'"_date":\d{13}', '"_date":0', text)
        found.append((json.loads(text), sorted(text)))
    return found


@pytest.mark.parametrize(
    "command",
    [["compact", "t.db"], ["compact", "t.db", "x.db"], ["convert", "t.db", "more.ovsschema"]],
    ids=" ".join,
)
def test_what_is_written_is_what_the_c_program_writes(pair: Pair, command: list[str]) -> None:
    """Every byte of it, but for the order of members, which has no meaning."""
    more = json.loads(json.dumps(SCHEMA))
    more["tables"]["C"]["columns"]["more"] = {"type": "integer"}
    for place in pair.places:
        (place / "more.ovsschema").write_text(json.dumps(more))
    pair.same(*command)
    name = "x.db" if "x.db" in command else "t.db"
    theirs = records(pair.c_place / name)
    assert len(theirs) == 2
    assert theirs == records(pair.our_place / name)


def test_compact_and_convert_do_not_overwrite(pair: Pair) -> None:
    """As the manual says of the target; the C program overwrites a database."""
    before = (pair.our_place / "conf.db").read_bytes()
    for arguments in (["compact", "t.db"], ["convert", "t.db", "t.ovsschema"]):
        result = pair.ours(*arguments, "conf.db")
        assert result.status == 1
        assert result.stderr == "ovsdb-tool: I/O error: conf.db: create failed (File exists)\n"
    assert (pair.our_place / "conf.db").read_bytes() == before


@pytest.mark.parametrize(
    "schema", [name for name in FILES if name.endswith("schema") and name != "dangling.ovsschema"]
)
@pytest.mark.parametrize("target", [[], ["new.db"]], ids=["in-place", "target"])
def test_convert(pair: Pair, schema: str, target: list[str]) -> None:
    done = pair.same("convert", "t.db", schema, *target)
    pair.same_content("t.db")
    if done.status == 0:
        pair.same_content((target or ["t.db"])[0])
        assert pair.same("needs-conversion", (target or ["t.db"])[0], schema).stdout == "no\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "t.db", "t.ovsschema"],
        ["create", "nosuch/t.db", "t.ovsschema"],
        ["compact", "nosuch/t.db"],
        ["compact", "t.db", "nosuch/t.db"],
        ["convert", "t.db", "t.ovsschema", "nosuch/t.db"],
        ["transact", "nosuch/t.db", "[]"],
        ["query", "nosuch/t.db", "[]"],
    ],
    ids=" ".join,
)
def test_places_that_cannot_be_written(pair: Pair, arguments: list[str]) -> None:
    assert pair.same(*arguments).status == 1


def test_locked(pair: Pair) -> None:
    """Another process, such as a server, has the database: it may be read, not written."""
    files = [(place / ".t.db.~lock~").open("w") for place in pair.places]
    for file in files:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert pair.same("transact", "t.db", request(SELECT)).status == 1
    assert pair.same("compact", "t.db").status == 1
    assert pair.same("convert", "t.db", "t.ovsschema").status == 1
    assert pair.same("query", "t.db", request(SELECT)).status == 0
    assert pair.same("compact", "t.db", "new.db").status == 0
    for file in files:
        file.close()


@pytest.mark.parametrize("verb", ["db-cid", "db-sid", "db-local-address"])
@pytest.mark.parametrize("name", ["t.db", "nosuch", "text.db", "clustered.db"])
def test_verbs_of_clusters_on_other_files(pair: Pair, verb: str, name: str) -> None:
    assert pair.same(verb, name).status == 1


def test_help_and_version(pair: Pair) -> None:
    version = pair.ours("-V")
    assert version.stdout.splitlines()[0] == pair.c("-V").stdout.splitlines()[0]
    assert version.stdout.splitlines()[1] == f"ovncp {ovncp.__version__}"
    assert pair.ours("--version", "--nonsense") == version
    help_text = pair.ours("--help").stdout
    assert pair.ours("-h").stdout == pair.ours("help", "me").stdout == help_text
    defaults = [line for line in help_text.splitlines() if line.startswith("The default")]
    assert defaults == [
        "The default DB is PLACE/conf.db.",
        "The default SCHEMA is PLACE/vswitch.ovsschema.",
    ]


@pytest.mark.parametrize("option", ["--option", "-o"])
def test_the_options_are_listed_for_shells_to_complete(pair: Pair, option: str) -> None:
    theirs = set(pair.c(option).stdout.splitlines())
    assert theirs <= set(pair.ours(option).stdout.splitlines())


def test_log_file(pair: Pair) -> None:
    assert pair.ours("--log-file", "compact", "nosuch/t.db").status == 1
    assert "|lockfile|WARN|" in (pair.our_place / "ovsdb-tool.log").read_text()


def test_a_reader_that_leaves(pair: Pair) -> None:
    big = request(
        insert("A", 3, name="x"), *({"op": "comment", "comment": "x" * 30000} for _ in range(4))
    )
    assert pair.ours("transact", "t.db", big).status == 0
    done = subprocess.run(
        f"{' '.join(OURS)} -mm show-log t.db | head -c 10",
        shell=True,
        cwd=pair.our_place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_starts_fast(pair: Pair) -> None:
    """Scripts run it many times over, so that it imports nothing that only the server needs."""
    program = "import sys; from ovncp.cli import ovsdb_tool; ovsdb_tool.main(sys.argv[1:]); "
    command = [sys.executable, "-c", program + "print(*sys.modules)", "db-name", "t.db"]
    done = subprocess.run(command, cwd=pair.our_place, capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "ovncp.cli.ovsdb_tool" in imported
    assert not {"asyncio", "uvloop", "ssl", "importlib.metadata"} & set(imported)
