"""New files for members of a cluster of the C server (ovsdb(5), "Clustered Format").

The first member's has the data; the others' say only whom to ask, and the server makes a member's
file of one when it has joined.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from ovncp.log import clustered
from ovncp.ops import database_file
from ovncp.ops.database_file import UuidSource
from ovncp.ops.raft_record import check_address
from ovncp.ops.refusal import Refusal
from ovncp.ovsdb.errors import UNKNOWN_TAG, OvsdbError
from ovncp.ovsdb.parser import is_id
from ovncp.ovsdb.schema import DatabaseSchema

_logger = logging.getLogger("ovncp.ovsdb")

_FIRST_TERM = _FIRST_INDEX = 1


def create_cluster(
    path: str,
    schema: DatabaseSchema,
    content: Iterable[bytes],
    address: str,
    new_uuid: UuidSource,
    election_timer_msec: int = 0,
) -> None:
    """Make the file `path` of the one member, at `address`, of a new cluster.

    `content` is the JSON text, in pieces, of a transaction that inserts all there is into an empty
    database (see `snapshot_entry.encode`). A cluster stores all columns, so call `persist` on the
    schema before. An election timer of 0 leaves it to the server. Raises OvsdbError.
    """
    check_address(address)
    server_id = new_uuid()
    members = {
        "server_id": server_id,
        "cluster_id": new_uuid(),
        "local_address": address,
        "name": schema.name,
        "prev_servers": {server_id: address},
        "prev_term": _FIRST_TERM,
        "prev_index": _FIRST_INDEX,
        "prev_eid": new_uuid(),
    }
    header = b"".join(
        (
            orjson.dumps(members)[:-1],
            b',"prev_data":[%b,' % orjson.dumps(schema.to_json()),
            *content,
            b"]}",
        )
    )
    timer = {
        "term": _FIRST_TERM,
        "index": _FIRST_INDEX + 1,
        "election_timer": election_timer_msec,
    }
    _create(path, [header, *([orjson.dumps(timer)] if election_timer_msec else [])])


def persist(schema: DatabaseSchema, name: str) -> None:
    """`DatabaseSchema.persist`, with a warning about `name` if any column was not stored."""
    if ephemeral := schema.persist():
        table, column = ephemeral[0]
        _logger.warning(
            "%s: changed %d columns in '%s' database from ephemeral to persistent, including '%s' "
            "column in '%s' table, because clusters do not support ephemeral columns",
            name,
            len(ephemeral),
            schema.name,
            column.name,
            table.name,
        )


def join_cluster(
    path: str,
    name: str,
    address: str,
    remotes: Sequence[str],
    new_uuid: UuidSource,
    cluster_id: str | None = None,
) -> None:
    """Make the file `path` of a server at `address` that is to join the cluster of database `name`.

    It asks the members at `remotes`; with `cluster_id`, it joins that cluster only. Raises
    OvsdbError, and Refusal for a name that no database has.
    """
    if not is_id(name):
        raise Refusal(
            f'{name}: not a valid schema name (use "schema-name" command to find the correct name)'
        )
    for each in (address, *remotes):
        check_address(each)
    if address in remotes:
        message = "remote addresses cannot be the same as the local address"
        raise OvsdbError(UNKNOWN_TAG, message)
    members: dict[str, Any] = {
        "server_id": new_uuid(),
        "local_address": address,
        "name": name,
        "remote_addresses": list(dict.fromkeys(remotes)),
    }
    if cluster_id is not None:
        members["cluster_id"] = cluster_id
    _create(path, [orjson.dumps(members)])


def _create(path: str, texts: list[bytes]) -> None:
    with database_file.log_errors():
        clustered.create(path, texts)
