"""What the records of a clustered database file say, for people (ovsdb-tool(1), "show-log").

A record that makes no sense is told as its error, and the listing goes on.
"""

from collections.abc import Iterator
from typing import Any

from ovncp.ops import raft_file, raft_record
from ovncp.ops.hash_order import in_hash_order
from ovncp.ops.raft_record import CommitIndex, Entry, Header, Leader, Note, Record, Servers, Vote
from ovncp.ops.show_log import Listing
from ovncp.ovsdb.errors import OvsdbError, json_text
from ovncp.ovsdb.schema import DatabaseSchema


def show(path: str, listing: Listing) -> Iterator[str]:
    """The listing of the file `path`, in pieces. Raises OvsdbError where it cannot be read."""
    for number, json in enumerate(raft_file.records(path)):
        yield f"record {number}:\n"
        try:
            lines = _record_lines(json, listing) if number else _header_lines(json, listing)
        except OvsdbError as error:
            lines = iter((f"{error}\n",))
        yield from lines
        yield "\n"


def _header_lines(json: Any, listing: Listing) -> Iterator[str]:
    return _lines_of_header(raft_record.header_from_json(json), listing)


def _record_lines(json: Any, listing: Listing) -> Iterator[str]:
    return _lines_of_record(raft_record.record_from_json(json), listing)


def _lines_of_header(header: Header, listing: Listing) -> Iterator[str]:
    # Of the two quotes around the name the C program has one wrong.
    yield f" name: \"{header.name}'\n"
    yield f' local address: "{header.local_address}"\n'
    yield f" server_id: {header.server_id:.4}\n"
    if header.cluster_id is not None:
        yield f" cluster_id: {header.cluster_id:.4}\n"
    if header.remote_addresses:
        yield f" remote_addresses: {' '.join(in_hash_order(header.remote_addresses))}\n"
    snapshot = header.snapshot
    if snapshot is not None and snapshot.index:
        yield f" prev_index: {snapshot.index}\n"
        yield f" prev_term: {snapshot.term}\n"
        yield from _entry_lines(snapshot, "prev_", listing)


def _lines_of_record(record: Record, listing: Listing) -> Iterator[str]:
    if record.comment is not None:
        yield f' comment: "{record.comment}"\n'
    if term := getattr(record, "term", 0):
        yield f" term: {term}\n"
    match record:
        case Entry():
            yield f" index: {record.index}\n"
            yield from _entry_lines(record, "", listing)
        case Vote():
            yield f" vote: {record.server_id:.4}\n"
        case Leader():
            yield f" leader: {record.server_id:.4}\n"
        case CommitIndex():
            yield f" commit_index: {record.commit_index}\n"
        case Note():
            yield f' note: "{record.note}"\n'


def _entry_lines(entry: Entry, prefix: str, listing: Listing) -> Iterator[str]:
    if entry.servers is not None:
        yield f" {prefix}servers: {_servers_text(entry.servers)}\n"
    if entry.eid is not None:
        yield f" {prefix}eid: {entry.eid:.4}\n"
    if entry.data is not None:
        yield from _data_lines(entry.data, prefix, listing)


def _servers_text(servers: Servers) -> str:
    return ", ".join(f"{sid:.4}({json_text(servers[sid])})" for sid in sorted(servers))


def _data_lines(data: Any, prefix: str, listing: Listing) -> Iterator[str]:
    if type(data) is not list or len(data) != 2:
        yield " ***invalid data***\n"
        return
    schema_json, transaction = data
    if schema_json is not None:
        schema = listing.schema = DatabaseSchema.from_json(schema_json)
        yield (
            f' {prefix}schema: "{schema.name}", '
            f'version="{schema.version}", cksum="{schema.cksum}"\n'
        )
    if type(transaction) is dict:
        yield from listing.transaction_lines(transaction)
