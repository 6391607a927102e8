"""What resources of the Southbound have besides their columns (ovn-sb(5)).

A chassis tells by `Chassis_Private` how far it has come with what the Northbound asks for, and by
its encapsulations how it is reached. A logical flow belongs to one datapath, or to all of a group.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ovncp.ovn import names
from ovncp.ovn.filters import Filter
from ovncp.ovn.names import Sees
from ovncp.ovn.replica import Replica
from ovncp.ovn.rows import Rows
from ovncp.ovn.values import Unresolved, refuse
from ovncp.ovsdb.atom import uuid_from_string
from ovncp.ovsdb.row import Row

Fields = Callable[[Replica, Rows, Row], dict[str, Any]]
Parse = Callable[[Replica, Rows, str, Sees], Filter]


def _chassis(sb: Replica, rows: Rows, row: Row) -> dict[str, Any]:
    encaps = sb.rows["Encap"]
    found = (encaps.get(uuid) for uuid in rows.object(row.values, ["encaps"])["encaps"])
    return {
        "encapsulations": [
            encaps.object(encap.values, ["type", "ip", "options"]) for encap in found if encap
        ],
        **_progress(sb, rows.object(row.values, ["name"])["name"]),
    }


def _progress(sb: Replica, name: str) -> dict[str, Any]:
    """How far the chassis of that name has come, and how long ago it said so."""
    progress = {"nb_cfg_seen": None, "nb_cfg_behind": None, "nb_cfg_age_seconds": None}
    private = sb.rows.get("Chassis_Private")
    own = [] if private is None else list(names.named(private, name))
    if private is None or not own:
        return progress
    seen = private.object(own[0].values, ["nb_cfg", "nb_cfg_timestamp"])
    wanted = sb.rows["SB_Global"]
    for each in wanted.values():
        number = wanted.object(each.values, ["nb_cfg"])["nb_cfg"]
        progress["nb_cfg_behind"] = number - seen["nb_cfg"]
    if seen["nb_cfg_timestamp"]:
        age = time.time() - seen["nb_cfg_timestamp"] / 1000
        progress["nb_cfg_age_seconds"] = round(age, 3)
    return progress | {"nb_cfg_seen": seen["nb_cfg"]}


FIELDS: Mapping[str, Fields] = {"chassis": _chassis}
"""What the rows of a resource have besides their columns."""

FIELD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "chassis": {
        "encapsulations": {
            "type": "array",
            "description": "How the chassis is reached.",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "ip": {"type": "string"},
                    "options": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        },
        "nb_cfg_seen": {
            "type": ["integer", "null"],
            "description": "The configuration that the chassis has.",
        },
        "nb_cfg_behind": {
            "type": ["integer", "null"],
            "description": "By how many it is behind the newest one.",
        },
        "nb_cfg_age_seconds": {
            "type": ["number", "null"],
            "description": "For how long it has it.",
        },
    }
}
"""The same, in JSON Schema."""


def _flows_of_datapath(sb: Replica, rows: Rows, text: str, sees: Sees) -> Filter:
    uuid = uuid_from_string(text)
    if uuid is None:
        try:
            uuid = names.find(sb, "Datapath_Binding", text, sees).uuid
        except Unresolved as error:
            raise refuse("datapath", "reference", str(error)) from error
    own = rows.table.columns["logical_datapath"]
    shared = rows.table.columns.get("logical_dp_group")
    groups: set[str] = set()
    if shared is not None:
        members = sb.rows["Logical_DP_Group"]
        column = members.table.columns["datapaths"]
        groups = {row.uuid for row in members.where(column, "includes", (uuid,))}

    def test(row: Row) -> bool:
        if uuid in row.values[own.index]:
            return True
        return shared is not None and not groups.isdisjoint(row.values[shared.index])

    def lookup() -> Iterator[Row]:
        yield from rows.where(own, "includes", (uuid,))
        if shared is not None:
            for group in groups:
                yield from rows.where(shared, "includes", (group,))

    return Filter(test, lookup)


FILTERS: Mapping[tuple[str, str], Parse] = {("logical-flows", "datapath"): _flows_of_datapath}
"""What a resource is filtered by besides its columns."""
