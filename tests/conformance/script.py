"""The text cases: their format, how one runs against a server, and what makes answers comparable.

A case file is schemas followed by cases.  Comments are lines that begin with `#`.

    schema db: {"T": {"columns": {"i": {"type": "integer"}}}}      the "tables" of a schema
    schema OVN_Northbound from /usr/share/ovn/ovn-nb.ovsschema     or one of the system's
    fresh                                                          new servers for each case

    == the title of a case
    1 transact: insert T {"i": 1}        session 1 sends a request and waits for its reply
    2 monitor: "db" "m" {"T": {}}        a request's params, one after the other
    1 transact#slow&: wait T [] ...      with the id "slow", its reply not waited for
    1 each:                              each line is a transaction of its own
        insert T {"i": 2}
        {"op": "insert", "table": "T", "row": {}}
    1 notify cancel: "slow"              a message without an id
    1 raw: {"any": "text"}               the text itself
    1 close:                             the session ends (its next step begins a new one)
    1 reply: "slow"                      waits for a reply that is not waited for otherwise, and
                                         shows it here, even if it came before

Lines that follow a step and are indented belong to it.  Transactions are on the file's first
schema's database unless `transact@NAME` says otherwise; a `!` after the method keeps the order of
rows in answers (see below).  An operation is JSON, or a verb and its members in the order that
`POSITIONS` gives.  `<0>` in a request is the uuid that the transcript calls so.

What a server answers is written down as a transcript: after each step, every session's replies
and notifications in the order of their arrival.  Uuids are random, and so is whatever is in their
order: they become `<0>`, `<1>`... by first appearance, and the rows of a select, sets of uuids,
the rows of an update and those of an index's error are sorted by the rest of their content.
Milliseconds that were waited are left out.

The expectation is the C server's own transcript of the same run.  Where ours differs by design,
the step is followed by the reason and by our answer, both indented:

        differs: why
        ours: 1 <- {"id": 1, ...}
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import Client, Closed, Server, Timeout

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
STEP = re.compile(r"(?:(\d+) )?(notify )?(\w+)(?:@(\w+))?(?:#(\w+))?([&!]*):(.*)", re.DOTALL)
TOKEN = re.compile(r"\s*([A-Za-z_]\w*)(?=\s|$)")
TWO_ROWS = re.compile(r"First row, (with UUID [^.]*\.)  Second row, (with UUID [^.]*\.)")
WAITED = re.compile(r"timed out after \d+ ms")
LITERALS = ("true", "false", "null")

POSITIONS = {
    "insert": ("table", "row", "uuid-name"),
    "select": ("table", "where", "columns"),
    "update": ("table", "where", "row"),
    "mutate": ("table", "where", "mutations"),
    "delete": ("table", "where"),
    "wait": ("table", "where", "columns", "until", "rows", "timeout"),
    "commit": ("durable",),
    "abort": (),
    "comment": ("comment",),
    "assert": ("lock",),
}


@dataclass
class Step:
    text: str
    session: int
    method: str
    notify: bool
    database: str | None
    id: str | None
    flags: str
    body: list[str]
    reason: str = ""
    ours: list[str] = field(default_factory=list)


@dataclass
class Case:
    title: str
    steps: list[Step] = field(default_factory=list)


@dataclass
class CaseFile:
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    fresh: bool = False
    cases: list[Case] = field(default_factory=list)


def parse_file(path: Path) -> CaseFile:
    file = CaseFile()
    for head, rest in blocks(path.read_text().splitlines()):
        if head.startswith("== "):
            file.cases.append(Case(head[3:]))
        elif head == "fresh":
            file.fresh = True
        elif head.startswith("schema "):
            schema = parse_schema("\n".join([head[len("schema ") :], *rest]))
            file.schemas[schema["name"]] = schema
        else:
            file.cases[-1].steps.append(parse_step(head, rest))
    return file


def blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each unindented line with the indented ones that follow it."""
    head: str | None = None
    rest: list[str] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith("# "):
            continue
        if line[0].isspace():
            rest.append(line.strip())
            continue
        if head is not None:
            yield head, rest
        head, rest = line.rstrip(), []
    if head is not None:
        yield head, rest


def parse_schema(text: str) -> dict[str, Any]:
    if match := re.fullmatch(r"(\w+) from (\S+)", text):
        return dict(json.loads(Path(match[2]).read_text()))
    name, tables = text.split(":", 1)
    return {"name": name, "version": "1.0.0", "tables": json.loads(tables)}


def parse_step(head: str, rest: list[str]) -> Step:
    match = STEP.fullmatch(head)
    assert match, f"not a step: {head}"
    session, notify, method, database, id, flags, first = match.groups()
    ours = [line[len("ours:") :].strip() for line in rest if line.startswith("ours:")]
    reason = " ".join(line[len("differs:") :] for line in rest if line.startswith("differs:"))
    body = [line for line in rest if not line.startswith(("ours:", "differs:"))]
    body = [line for line in [first.strip(), *body] if line]
    text = head.split(":", 1)[0] + ": " + "\n    ".join(body)
    number = int(session or 0)
    return Step(text, number, method, bool(notify), database, id, flags, body, reason, ours)


def parse_operations(line: str) -> list[Any]:
    """The operations of one line: JSON values, or verbs with their members."""
    operations: list[Any] = []
    members: Iterator[str] = iter(())
    for value, bare in tokens(line):
        if bare and value in POSITIONS and (not operations or not expects_table(operations[-1])):
            operations.append({"op": value})
            members = iter(POSITIONS[value])
        elif operations and (name := next(members, None)):
            operations[-1][name] = value
        else:
            operations.append(value)
            members = iter(())
    return operations


def expects_table(operation: Any) -> bool:
    verb = operation.get("op") if isinstance(operation, dict) else None
    return "table" in POSITIONS.get(verb, ()) and "table" not in operation


def tokens(text: str) -> Iterator[tuple[Any, bool]]:
    """The JSON values and bare words of `text`, each with whether it is a word."""
    text = text.strip()
    while text:
        word = TOKEN.match(text)
        if word and word[1] not in LITERALS:
            yield word[1], True
            text = text[word.end() :].lstrip()
        else:
            value, end = json.JSONDecoder().raw_decode(text)
            yield value, False
            text = text[end:].lstrip()


def sorted_rows(text: str) -> str:
    """`text` with the two rows of an index's error in an order that is not that of their uuids."""
    return TWO_ROWS.sub(lambda match: "{}  {}".format(*sorted(match.groups())), text)


class Names:
    """The uuids of one transcript, named by first appearance."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def text(self, message: Any, keep_order: bool = False) -> str:
        """The message as JSON with sorted keys, named uuids, and uuid-ordered content sorted."""
        text = self._plain(self._sorted(message, keep_order), self._name)
        return WAITED.sub("timed out after <n> ms", sorted_rows(text))

    def resolve(self, text: str) -> str:
        """`text` with the uuids in the place of their names."""
        for uuid, name in self.names.items():
            text = text.replace(f'"{name}"', f'"{uuid}"')
        return text

    def _name(self, match: re.Match[str]) -> str:
        return self.names.setdefault(match[0], f"<{len(self.names)}>")

    def _mask(self, match: re.Match[str]) -> str:
        return self.names.get(match[0], "<?>")

    def _plain(self, value: Any, replacement: Any) -> str:
        return UUID.sub(replacement, json.dumps(value, ensure_ascii=False))

    def _key(self, value: Any) -> str:
        return self._plain(self._sorted(value, False), self._mask)

    def _sorted(self, value: Any, keep_order: bool) -> Any:
        if isinstance(value, dict):
            items = value.items()
            ordered = sorted(items, key=lambda item: self._key([item[0], item[1]]))
            return {key: self._member(key, member, keep_order) for key, member in ordered}
        if isinstance(value, list):
            if len(value) == 2 and value[0] in ("set", "map") and holds_uuids(value[1]):
                return [value[0], sorted(value[1], key=self._key)]
            return [self._sorted(element, keep_order) for element in value]
        return value

    def _member(self, key: str, value: Any, keep_order: bool) -> Any:
        value = self._sorted(value, keep_order)
        if key == "rows" and not keep_order and isinstance(value, list):
            return sorted(value, key=self._key)
        return value


def holds_uuids(elements: Any) -> bool:
    """Whether these elements of a set, or pairs of a map, are in the order of uuids."""
    if not isinstance(elements, list) or not elements or not isinstance(elements[0], list):
        return False
    first = elements[0][0]
    return bool(first == "uuid" or (isinstance(first, list) and first and first[0] == "uuid"))


def in_order_of_monitors(messages: list[Any]) -> list[Any]:
    """`messages` with the updates of one transaction in the order of their monitors' ids.

    One session's monitors are told in any order; of each monitor the order is kept.
    """
    ordered: list[Any] = []
    for is_update, run in itertools.groupby(
        messages, lambda message: str(message.get("method")).startswith("update")
    ):
        found = list(run)
        ordered += sorted(found, key=lambda m: json.dumps(m["params"][0])) if is_update else found
    return ordered


class Run:
    """One case being run on one server."""

    def __init__(self, server: Server, file: CaseFile) -> None:
        self.server = server
        self.file = file
        self.sessions: dict[int, Client] = {}
        self.seen: dict[int, int] = {}
        self.gone: set[int] = set()
        # The replies, by session and id, that a later step waits for, and those that have come.
        self.awaited: set[tuple[int, str]] = set()
        self.early: dict[tuple[int, str], Any] = {}
        # Whether requests of the case are left to wait.
        self.has_open_requests = False
        self.names = Names()
        self.transcript: list[list[str]] = []

    def case(self, case: Case) -> list[list[str]]:
        """For each step, what the sessions got."""
        self.has_open_requests = any("&" in step.flags for step in case.steps)
        self.awaited = {
            (step.session, "\n".join(step.body)) for step in case.steps if step.method == "reply"
        }
        try:
            for step in case.steps:
                self.step(step)
        finally:
            for session in self.sessions.values():
                session.close()
        return self.transcript

    def session(self, number: int) -> Client:
        if number not in self.sessions or self.sessions[number].closed:
            try:
                self.sessions[number] = self.server.client(parse_float=Real)
            except ConnectionRefusedError as error:
                raise Closed("the server is gone") from error
            self.seen[number] = 0
            self.gone.discard(number)
        return self.sessions[number]

    def step(self, step: Step) -> None:
        events: list[str] = []
        try:
            ACTIONS.get(step.method, request)(self, step)
        except Timeout:
            events.append(f"{step.session} no answer")
        except Closed:
            pass
        self.collect(events, "!" in step.flags)
        self.transcript.append(events)

    def collect(self, events: list[str], keep_order: bool) -> None:
        if self.has_open_requests:
            let_go_round(self.server)
        for number, client in sorted(self.sessions.items()):
            if number in self.gone:
                continue
            try:
                client.sync(next(iter(self.file.schemas)))
            except Timeout:
                events.append(f"{number} no answer to echo")
            except Closed:
                pass
            for message in in_order_of_monitors(client.log[self.seen[number] :]):
                key = (number, json.dumps(message.get("id")))
                if "method" not in message and key in self.awaited:
                    self.early[key] = message
                elif not str(message.get("id")).startswith("sync"):
                    events.append(f"{number} <- {self.names.text(message, keep_order)}")
            self.seen[number] = len(client.log)
            if client.closed:
                events.append(f"{number} closed")
                client.close()
                self.gone.add(number)

    def values(self, step: Step) -> list[Any]:
        text = self.names.resolve("\n".join(step.body))
        return [value for value, _ in tokens(text)]

    def operations(self, line: str) -> list[Any]:
        return parse_operations(self.names.resolve(line))

    def database(self, step: Step) -> str:
        return step.database or next(iter(self.file.schemas))


class Real(float):
    """A real that is printed as it was received, since 1.0 and 1 are not the same answer."""

    def __new__(cls, text: str) -> Real:
        real = super().__new__(cls, text)
        real.text = text
        return real

    text: str

    def __repr__(self) -> str:
        return self.text


def request(run: Run, step: Step) -> None:
    if step.method == "transact":
        operations = [op for line in step.body for op in run.operations(line)]
        send(run, step, [run.database(step), *operations])
    else:
        send(run, step, run.values(step))


def send(run: Run, step: Step, params: list[Any]) -> None:
    client = run.session(step.session)
    if step.notify:
        client.notify(step.method, params)
    else:
        id = client.start(step.method, params, step.id)
        if "&" not in step.flags:
            client.wait_until(lambda: json.dumps(id) in client.replies, "reply")


def each(run: Run, step: Step) -> None:
    client = run.session(step.session)
    for line in step.body:
        client.request("transact", [run.database(step), *run.operations(line)])


def raw(run: Run, step: Step) -> None:
    client, text = run.session(step.session), run.names.resolve("\n".join(step.body))
    client.send_bytes(text.encode())
    # A reply can come after that of the echo request by which the answers are collected.
    with contextlib.suppress(ValueError, TypeError, KeyError):
        id = json.loads(text)["id"]
        client.wait_until(lambda: id is None or json.dumps(id) in client.replies, "reply", 1)


def close(run: Run, step: Step) -> None:
    """Returns when the server has seen that the connection is closed."""
    session, before = run.session(step.session), n_sessions(run.server)
    session.close()
    run.gone.add(step.session)
    deadline = time.monotonic() + session.timeout
    while n_sessions(run.server) >= before:
        assert time.monotonic() < deadline, "the server does not see that a connection is closed"


def n_sessions(server: Server) -> int:
    """How many connections the server has."""
    shown = [member.own_appctl("memory/show") for member in server.members]
    return sum(int(n) for each in shown for n in re.findall(r"sessions:(\d+)", each))


def reply(run: Run, step: Step) -> None:
    client, key = run.session(step.session), (step.session, "\n".join(step.body))
    client.wait_until(lambda: key in run.early or key[1] in client.replies, "reply")
    run.awaited.discard(key)
    if key in run.early:
        client.log.append(run.early.pop(key))


def let_go_round(server: Server) -> None:
    """Return when the server's loop has gone round.

    C's looks at what waits once it has heard all sessions, so that somebody else's request that
    comes soon enough is answered first. Commands come before both.
    """
    for member in server.members:
        with contextlib.suppress(OSError, Closed), Client(member.control) as control:
            control.request("version", [])


ACTIONS = {"each": each, "raw": raw, "close": close, "reply": reply}


def empty(server: Server, file: CaseFile) -> None:
    """Deletes every row of every database, as each case begins."""
    with server.client() as client:
        for name, schema in file.schemas.items():
            deletes = [{"op": "delete", "table": table, "where": []} for table in schema["tables"]]
            result = client.transact(name, *deletes)
            assert not any("error" in (each or {}) for each in result), result


def render(case: Case, transcript: list[list[str]]) -> list[str]:
    return [
        line
        for step, events in zip(case.steps, transcript, strict=True)
        for line in [*step.text.split("\n"), *(f"        {event}" for event in events)]
    ]
