"""The records of a clustered database file (ovsdb(5), "Clustered Format"): JSON in, values out.

The first record is the header, each further one tells of one step of the C server's Raft. Which
kind it is follows from the member that only this kind has; the sentences of errors are C's.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ovncp.ovsdb.atom import uuid_from_string
from ovncp.ovsdb.errors import UNKNOWN_TAG, OvsdbError, syntax_error
from ovncp.ovsdb.parser import (
    Member,
    Shape,
    failed,
    is_anything,
    is_array,
    is_integer,
    is_object,
    is_string,
    parse,
)

Servers = dict[str, str]
"""The addresses of a cluster's members by their server ids."""

_LAST_PORT = 65535
_ZERO_UUID = "00000000-0000-0000-0000-000000000000"
_ADDRESS = re.compile(r"(?:tcp|ssl):(?:\[[^][]+\]|[^][:]+):([0-9]{1,5})\Z").match


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the Raft log; 0 and None stand for what it does not have.

    `data` is `[schema or null, transaction or null]`; `election_timer` is in milliseconds.
    """

    term: int
    index: int
    eid: str | None = None
    data: Any = None
    servers: Servers | None = None
    election_timer: int = 0
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A term begins."""

    term: int
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """The member votes for `server_id` to lead in the term."""

    term: int
    server_id: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Leader:
    """The member has learned that `server_id` leads in the term."""

    term: int
    server_id: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class CommitIndex:
    """The member has learned that the entries up to `commit_index` are committed."""

    commit_index: int
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that people should know; "left" is that the member has left its cluster."""

    note: str
    comment: str | None = None


Record = Entry | Term | Vote | Leader | CommitIndex | Note


@dataclass(frozen=True, slots=True)
class Header:
    """The first record: whose file it is, and the snapshot that its log begins with.

    A member that is yet to join has `remote_addresses` to ask, no snapshot, and perhaps no
    cluster id. The snapshot is the entry at the index before the log's first.
    """

    name: str
    server_id: str
    local_address: str
    cluster_id: str | None
    remote_addresses: tuple[str, ...] = ()
    snapshot: Entry | None = None


def _is_data(value: Any) -> bool:
    return is_object(value) or is_array(value)


_COMMENT = Member("comment", is_string, True)
_TERM = Member("term", is_integer)
_IDENTITY = (
    Member("server_id", is_string),
    Member("name", is_string),
    Member("local_address", is_string),
)
_JOINING: Shape = (
    *_IDENTITY,
    Member("remote_addresses", is_array),
    Member("cluster_id", is_string, True),
)
_SERVERS_ONLY: Shape = (
    *_IDENTITY,
    Member("prev_servers", is_object),
    Member("prev_index", is_integer, True),
    Member("cluster_id", is_string),
)
_SNAPSHOT: Shape = (
    *_SERVERS_ONLY,
    Member("prev_data", is_anything),
    Member("prev_eid", is_string),
    Member("prev_term", is_integer),
    Member("prev_election_timer", is_integer, True),
)
_ENTRY: Shape = (
    _COMMENT,
    _TERM,
    Member("index", is_integer),
    Member("servers", is_object, True),
    Member("election_timer", is_integer, True),
)
_DATA_ENTRY: Shape = (*_ENTRY, Member("data", _is_data), Member("eid", is_string))
_HEADER, _RECORD = "raft header", "raft log record"


def header_from_json(json: Any) -> Header:
    """The header. Raises OvsdbError."""
    shape = _header_shape(json)
    parse(json, shape, _HEADER)
    is_joining = shape is _JOINING
    return Header(
        json["name"],
        _uuid(json, "server_id", _HEADER),
        json["local_address"],
        _uuid(json, "cluster_id", _HEADER) if "cluster_id" in json else None,
        _remotes(json) if is_joining else (),
        None if is_joining else _snapshot(json),
    )


def _header_shape(json: Any) -> Shape:
    if "remote_addresses" in json:
        return _JOINING
    return _SNAPSHOT if json.get("prev_index") else _SERVERS_ONLY


def _remotes(json: dict[str, Any]) -> tuple[str, ...]:
    addresses = json["remote_addresses"]
    if not addresses:
        raise OvsdbError("syntax error", "at least one remote address is required", addresses)
    for address in addresses:
        _check_address(address)
    others = tuple(dict.fromkeys(a for a in addresses if a != json["local_address"]))
    if not others:
        message = "at least one remote address (other than the local address) is required"
        raise failed(json, _HEADER, message)
    return others


def _snapshot(json: dict[str, Any]) -> Entry:
    servers = _servers(json["prev_servers"])
    if not json.get("prev_index"):
        return Entry(0, 0, servers=servers)
    return Entry(
        _uint64(json["prev_term"]),
        _uint64(json["prev_index"]),
        _uuid(json, "prev_eid", _HEADER),
        json["prev_data"],
        servers,
        _uint64(json.get("prev_election_timer", 0)),
    )


def record_from_json(json: Any) -> Record:
    """One of the records after the header. Raises OvsdbError."""
    return next((read for name, read in _KINDS.items() if name in json), _term)(json)


def _note(json: dict[str, Any]) -> Note:
    parse(json, (_COMMENT, Member("note", is_string)), _RECORD)
    return Note(json["note"], json.get("comment"))


def _commit_index(json: dict[str, Any]) -> CommitIndex:
    parse(json, (_COMMENT, Member("commit_index", is_integer)), _RECORD)
    return CommitIndex(_uint64(json["commit_index"]), json.get("comment"))


def _leader(json: dict[str, Any]) -> Leader:
    parse(json, (_COMMENT, _TERM, Member("leader", is_string)), _RECORD)
    server_id = _server_id(json, "leader", "says leader is")
    return Leader(_uint64(json["term"]), server_id, json.get("comment"))


def _vote(json: dict[str, Any]) -> Vote:
    parse(json, (_COMMENT, _TERM, Member("vote", is_string)), _RECORD)
    server_id = _server_id(json, "vote", "votes for")
    return Vote(_uint64(json["term"]), server_id, json.get("comment"))


def _server_id(json: dict[str, Any], name: str, verb: str) -> str:
    uuid = _uuid(json, name, _RECORD)
    if uuid == _ZERO_UUID:
        raise failed(json, _RECORD, f"record {verb} all-zeros SID")
    return uuid


def _entry(json: dict[str, Any]) -> Entry:
    has_data = "data" in json
    parse(json, _DATA_ENTRY if has_data else _ENTRY, _RECORD)
    return Entry(
        _uint64(json["term"]),
        _uint64(json["index"]),
        _uuid(json, "eid", _RECORD) if has_data else None,
        json.get("data"),
        _servers(json["servers"]) if "servers" in json else None,
        _uint64(json.get("election_timer", 0)),
        json.get("comment"),
    )


def _term(json: dict[str, Any]) -> Term:
    parse(json, (_COMMENT, _TERM), _RECORD)
    return Term(_uint64(json["term"]), json.get("comment"))


_KINDS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "note": _note,
    "commit_index": _commit_index,
    "leader": _leader,
    "vote": _vote,
    "index": _entry,
}


def _uint64(value: Any) -> int:
    # JSON has signed integers only, so that the upper half is written as negative ones.
    return int(value) % 2**64


def _uuid(json: dict[str, Any], name: str, what: str) -> str:
    uuid = uuid_from_string(json[name])
    if uuid is None:
        raise failed(json, what, f"{name} is not a valid UUID")
    return uuid


def _servers(json: dict[str, Any]) -> Servers:
    if not json:
        raise syntax_error(json, "must have at least one server")
    servers = {}
    for name, address in json.items():
        uuid = uuid_from_string(name)
        if uuid is None:
            raise syntax_error(json, f"{name} is not a UUID")
        _check_address(address)
        servers[uuid] = address
    return servers


def _check_address(address: Any) -> None:
    if type(address) is not str:
        raise syntax_error(address, "server address is not string")
    check_address(address)


def check_address(address: str) -> None:
    """Raise OvsdbError unless `address` is one where a member of a cluster may listen."""
    if not address.startswith(("tcp:", "ssl:", "unix:")):
        raise OvsdbError(UNKNOWN_TAG, f'{address}: expected "tcp" or "ssl" address')
    match = _ADDRESS(address)
    if not address.startswith("unix:") and (match is None or int(match[1]) > _LAST_PORT):
        raise OvsdbError(UNKNOWN_TAG, f"{address}: syntax error in address")
