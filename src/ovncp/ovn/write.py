"""One write of a resource, as a client asks for it, put into a draft.

A row that belongs to a parent is made by a reference of the parent to it, and deleted by taking all
references away: the database collects what nothing refers to. That is made sure of, by deleting the
row outright too, which the database refuses if there is a reference that we do not know of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ovncp.ovn import names
from ovncp.ovn.draft import Draft, Gone, Stale, Taken
from ovncp.ovn.replica import new_uuid
from ovncp.ovn.resources import BY_NAME, Parent, Resource
from ovncp.ovn.rows import Rows
from ovncp.ovn.values import Unresolved, refuse
from ovncp.ovsdb.row import Row, Values
from ovncp.ovsdb.schema import VERSION, format_uuid
from ovncp.ovsdb.table import Table


class Place(NamedTuple):
    """Where a row is asked for: in which column of which row, a uuid or a name."""

    parent: Parent
    text: str


@dataclass(frozen=True)
class Write:
    """What is asked for: `target` is None for a new row.

    `versions` are those of which the row has to be in one, None for any. `uuid` is that of a new
    row, and `name` what other writes of the same transaction call it.
    """

    action: str
    resource: Resource
    target: str | None = None
    place: Place | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    versions: frozenset[str] | None = None
    uuid: str | None = None
    name: str | None = None


class Written(NamedTuple):
    """The row that a write is about; `before` is what it was, None for a new one."""

    action: str
    resource: Resource
    uuid: str
    before: Values | None


CREATE, CHANGE, DELETE = "create", "change", "delete"


def put(write: Write, draft: Draft) -> Written:
    """Add the operations of `write` to `draft`. Raises Invalid, Unmet."""
    return _ACTIONS[write.action](write, draft)


def _create(write: Write, draft: Draft) -> Written:
    resource, uuid = write.resource, write.uuid or new_uuid()
    rows = draft.replica.rows[resource.table]
    _check_parent(write, rows.table)
    name = write.fields.get("name")
    if resource.has_own_name and type(name) is str and name:
        _expect_name_is_free(resource, name, draft, rows)
    belongs = write.place is not None
    draft.insert(resource.table, uuid, draft.view.stamp(rows.table, write.fields, belongs))
    if write.place is not None:
        parent = BY_NAME[write.place.parent.resource]
        parent_uuid = draft_uuid(parent, write.place.text, draft)
        draft.attach(parent.table, parent_uuid, write.place.parent.column, uuid)
    if write.name is not None:
        draft.given[write.name] = (resource.table, uuid)
    return Written(CREATE, resource, uuid, None)


def _check_parent(write: Write, table: Table) -> None:
    if write.place is None and not table.schema.is_root:
        raise refuse(
            "",
            "parent",
            f"a row of {table.name} exists only while another row refers to it: "
            "create it where it belongs",
        )


def _expect_name_is_free(resource: Resource, name: str, draft: Draft, rows: Rows) -> None:
    for row in names.named(rows, name):
        if draft.view.sees(rows, row):
            raise Taken(f"there is a {resource.singular} {name!r} already: {row.uuid}")
    draft.expect_no_name(resource.table, name)


def _change(write: Write, draft: Draft) -> Written:
    resource = write.resource
    draft.view.check_change(write.fields)
    uuid, row = _target(write, draft)
    _expect(write, uuid, row, draft)
    draft.change(resource.table, uuid, write.fields)
    return Written(CHANGE, resource, uuid, None if row is None else row.values)


def _delete(write: Write, draft: Draft) -> Written:
    resource = write.resource
    uuid, row = _target(write, draft)
    _expect(write, uuid, row, draft)
    rows = draft.replica.rows[resource.table]
    if not rows.table.schema.is_root:
        for holding, column, holder in rows.holders(uuid):
            draft.detach(holding.table.name, holder.uuid, column.name, uuid)
    draft.delete(resource.table, uuid)
    return Written(DELETE, resource, uuid, None if row is None else row.values)


_ACTIONS = {CREATE: _create, CHANGE: _change, DELETE: _delete}


def _target(write: Write, draft: Draft) -> tuple[str, Row | None]:
    """The uuid of the row, and the row if it is there already."""
    assert write.target is not None
    uuid = draft_uuid(write.resource, write.target, draft)
    row = draft.replica.rows[write.resource.table].get(uuid)
    if row is not None and write.place is not None:
        _check_place(write.place, write.resource, uuid, draft)
    return uuid, row


def draft_uuid(resource: Resource, text: str, draft: Draft) -> str:
    """The uuid of the row that is called `text`, there or in the draft. Raises Gone."""
    try:
        return draft.resolve(resource.table, text)
    except Unresolved as error:
        raise Gone(str(error)) from error


def _check_place(place: Place, resource: Resource, uuid: str, draft: Draft) -> None:
    """See that the row `uuid` is where it is asked for. Raises Gone."""
    parent = BY_NAME[place.parent.resource]
    rows = draft.replica.rows[parent.table]
    row = rows.get(draft_uuid(parent, place.text, draft))
    if row is None or uuid not in row.values[rows.table.columns[place.parent.column].index]:
        raise Gone(f"{parent.singular} {place.text!r} has no {resource.singular} {uuid}")


def _expect(write: Write, uuid: str, row: Row | None, draft: Draft) -> None:
    """Make it a condition that the row is there, in the one it is in of those asked for."""
    if row is None or write.versions is None:
        draft.expect(write.resource.table, uuid)
        return
    if format_uuid(row.values[VERSION]) not in write.versions:
        raise Stale(f"the {write.resource.singular} {uuid} has changed")
    draft.expect_version(write.resource.table, row)
