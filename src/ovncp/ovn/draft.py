"""A change of the Northbound, from what is wanted to the operations of a transaction.

Uuids of new rows are chosen here (ovsdb-server(7) section 5.2.1), so that operations do not depend
on each other's places, rows of one draft may refer to each other, and an insertion that is repeated
after a lost answer is found out. What a change relies on is made a condition of the transaction by
a "wait" that does not wait (RFC 7047 section 5.2.6): that a row is there, or in a certain version.

All conditions come first, since they are about the state before; then the deletions of rows that
were there, since C's server forgets a weak reference to a row that is deleted if the row that holds
it was changed before in the same transaction.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from ovncp.ovn import mentions, names
from ovncp.ovn.replica import Replica, new_uuid
from ovncp.ovn.tenancy import IDS, KEY, View
from ovncp.ovn.values import Invalid, Mistake, Unresolved, key_to_wire, refuse, to_wire
from ovncp.ovsdb.atom import uuid_from_string
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import VERSION, Column, format_uuid
from ovncp.ovsdb.table import Table

Operation = dict[str, Any]


class Unmet(Exception):
    """A condition of the change does not hold."""


class Gone(Unmet):
    """A row that the change is about is not there."""


class Stale(Unmet):
    """A row is not as the client knows it."""


class Taken(Unmet):
    """There is a row already that stands in the way."""


class Draft:
    """Operations on `replica` as they come together, for somebody who sees `view` of it.

    `given` has the rows of this draft that may be referred to as `@name`: table and uuid.
    `conditions` has, by the place of the "wait", what it means when one does not hold. `guards` are
    what the conditions look at, beside the existence of rows, and `touches` what the changes touch
    of such: two drafts of which one touches what the other guards are not for one transaction.
    `inserted` and `deleted` have the uuids of rows that are so outright, by table.
    """

    def __init__(self, replica: Replica, view: View) -> None:
        self.replica = replica
        self.view = view
        self.given: dict[str, tuple[str, str]] = {}
        self.conditions: list[Unmet] = []
        self.guards: set[Hashable] = set()
        self.touches: set[Hashable] = set()
        self.inserted: dict[str, set[str]] = {}
        self.deleted: dict[str, set[str]] = {}
        self._waits: list[Operation] = []
        self._deletions: list[Operation] = []
        self._changes: list[Operation] = []

    @property
    def operations(self) -> list[Operation]:
        """The operations of the transaction."""
        return [*self._waits, *self._deletions, *self._changes]

    @property
    def deletes(self) -> bool:
        """Whether rows are deleted that were there."""
        return bool(self._deletions)

    # Referring

    def resolve(self, table: str, text: str) -> str:
        """The uuid that a reference to a row of `table` stands for. Raises Unresolved."""
        if text.startswith("@"):
            known = self.given.get(text[1:])
            if known is None:
                raise Unresolved(f"nothing before this was given the name {text}")
            if known[0] != table:
                raise Unresolved(f"{text} is a row of {known[0]}, not of {table}")
            return known[1]
        uuid = uuid_from_string(text)
        if uuid is None or (table, uuid) not in self.given.values():
            uuid = names.find(self.replica, table, text, self.view.sees).uuid
        if uuid in self.deleted.get(table, ()):
            raise Unresolved(f"the row {uuid} of {table} was deleted before this")
        return uuid

    def _table(self, name: str) -> Table:
        return self.replica.rows[name].table

    # Conditions

    def expect(self, table: str, uuid: str) -> None:
        """Make it a condition that the row is there."""
        if (table, uuid) in self.given.values():
            return
        unmet = Gone(f"{table} has no row {uuid} any more")
        self._wait(unmet, table, _is(uuid), [{"_uuid": ["uuid", uuid]}])

    def expect_version(self, table: str, row: Row) -> None:
        """Make it a condition that the row is as it is here."""
        version = ["uuid", format_uuid(row.values[VERSION])]
        unmet = Stale(f"the row {row.uuid} of {table} has changed")
        self.guards.add(row.uuid)
        self._wait(unmet, table, _is(row.uuid), [{"_version": version}])

    def expect_no_name(self, table: str, name: str) -> None:
        """Make it a condition that no row that one sees has that name."""
        unmet = Taken(f"{table} has a row {name!r} already")
        self.guards.add((table, name))
        where: list[Any] = [["name", "==", name]]
        if self.view.tenant is not None:
            where.append([IDS, "includes", ["map", [[KEY, self.view.tenant]]]])
        self._wait(unmet, table, where, [], "name")

    def _wait(
        self, unmet: "Unmet", table: str, where: list[Any], rows: list[Any], column: str = ""
    ) -> None:
        self.conditions.append(unmet)
        self._waits.append(
            {
                "op": "wait",
                "timeout": 0,
                "table": table,
                "where": where,
                "columns": [column] if column else list(rows[0]),
                "until": "==",
                "rows": rows,
            }
        )

    def comment(self, text: str) -> None:
        """Have the database's log say `text` of the transaction."""
        self._changes.append({"op": "comment", "comment": text.replace("\0", "")})

    # Changes

    def insert(self, table: str, uuid: str, fields: Mapping[str, Any], prefix: str = "") -> None:
        """A new row. Raises Invalid."""
        row: dict[str, Any] = {}
        mistakes: list[Mistake] = []
        for name, value in fields.items():
            try:
                column = self._column(table, name, prefix)
                if value is not None or column.type.is_optional_scalar:
                    row[name] = self._to_wire(column, value, prefix + name)
            except Invalid as error:
                mistakes += error.mistakes
        mistakes += self._missing(table, row, fields, prefix)
        mistakes += self._misnamed(table, fields, prefix)
        if mistakes:
            raise Invalid(mistakes)
        self.given[uuid] = (table, uuid)
        self.inserted.setdefault(table, set()).add(uuid)
        self._touch_name(table, row)
        self._changes.append({"op": "insert", "table": table, "uuid": uuid, "row": row})

    def _touch_name(self, table: str, row: Mapping[str, Any]) -> None:
        name = row.get("name")
        if type(name) is str:
            self.touches.add((table, name))

    def _column(self, table: str, name: str, prefix: str) -> Column:
        column = self._table(table).columns.get(name)
        if column is None:
            known = ", ".join(c for c in self._table(table).columns if c[0] != "_")
            raise refuse(prefix + name, "additionalProperties", f"the fields are {known}")
        if name.startswith("_"):
            raise refuse(prefix + name, "readOnly", "the database sets it")
        return column

    def _missing(
        self, table: str, row: Mapping[str, Any], fields: Mapping[str, Any], prefix: str
    ) -> list[Mistake]:
        """The fields that have no default that the schema allows."""
        columns = self._table(table).column_list
        return [
            Mistake(prefix + columns[place].name, "required", error.details or str(error))
            for place, error in self._table(table).invalid_defaults.items()
            if columns[place].name not in fields
        ]

    def _misnamed(self, table: str, fields: Mapping[str, Any], prefix: str) -> Iterable[Mistake]:
        """The names of rows in texts that are not for who sees `view`."""
        return mentions.mistakes(table, fields, self.replica.rows, self.view, self, prefix)

    def makes(self, table: str, name: str) -> bool:
        """See `mentions.Made`."""
        return (table, name) in self.touches

    def _to_wire(self, column: Column, value: Any, field: str) -> Any:
        if type(value) is list and self._owns(column):
            value = [
                self._made(column, element, f"{field}[{place}]")
                for place, element in enumerate(value)
            ]
        return to_wire(column, value, self.resolve, field)

    def _owns(self, column: Column) -> bool:
        """Whether the rows that `column` refers to live only by that."""
        base = column.type.key
        if not base.is_strong_ref or base.ref_table is None:
            return False
        return not self._table(base.ref_table).schema.is_root

    def _made(self, column: Column, element: Any, field: str) -> Any:
        """The uuid of a row that is given in place of a reference, and is new."""
        if type(element) is not dict:
            return element
        table, uuid = column.type.key.ref_table, new_uuid()
        assert table is not None
        self.insert(table, uuid, element, f"{field}.")
        return uuid

    def attach(self, table: str, uuid: str, column: str, child: str) -> None:
        """Add a reference to `child` to a set of a row, which has to be there."""
        self.expect(table, uuid)
        self._mutate(table, uuid, [[column, "insert", ["set", [["uuid", child]]]]])

    def detach(self, table: str, uuid: str, column: str, child: str) -> None:
        """Take a reference to `child` out of a set of a row."""
        self._mutate(table, uuid, [[column, "delete", ["set", [["uuid", child]]]]])

    def change(self, table: str, uuid: str, fields: Mapping[str, Any], prefix: str = "") -> None:
        """Give a row these fields, as RFC 7396 has it. Raises Invalid.

        Of a map, what is named is changed, and what is null is removed. A set may be given as
        `{"add": [...], "remove": [...]}` too.
        """
        row: dict[str, Any] = {}
        mutations: list[Any] = []
        mistakes: list[Mistake] = []
        for name, value in fields.items():
            try:
                column = self._changeable(table, name, prefix)
                if type(value) is dict:
                    mutations += self._mutations(column, value, prefix + name)
                else:
                    row[name] = self._replacement(column, value, prefix + name)
            except Invalid as error:
                mistakes += error.mistakes
        mistakes += self._misnamed(table, fields, prefix)
        if mistakes:
            raise Invalid(mistakes)
        if row:
            update = {"op": "update", "table": table, "where": _is(uuid), "row": row}
            self.touches.add(uuid)
            self._touch_name(table, row)
            self._changes.append(update)
        self._mutate(table, uuid, mutations)

    def _changeable(self, table: str, name: str, prefix: str) -> Column:
        column = self._column(table, name, prefix)
        if not column.mutable:
            raise refuse(prefix + name, "readOnly", "it is set once, when the row is made")
        return column

    def _replacement(self, column: Column, value: Any, field: str) -> Any:
        if value is None and not column.type.is_scalar and column.type.n_max > 1:
            value = {} if column.type.is_map else []
        return self._to_wire(column, value, field)

    def _mutations(self, column: Column, value: dict[str, Any], field: str) -> list[Any]:
        """What changes some elements of a map or a set, and leaves the others alone."""
        if column.type.is_map:
            gone = [key for key, element in value.items() if element is None]
            new = {key: element for key, element in value.items() if element is not None}
            return self._map_mutations(column, gone, new, field)
        if column.type.n_max == 1 or not value.keys() <= {"add", "remove"}:
            self._to_wire(column, value, field)  # which says what is wanted
            raise refuse(field, "additionalProperties", 'an object has "add" and "remove"')
        relaxed = Column(
            column.name, column.diff_type, mutable=column.mutable, persistent=column.persistent
        )
        return [
            [column.name, mutator, self._to_wire(relaxed, value[member], f"{field}.{member}")]
            for member, mutator in (("remove", "delete"), ("add", "insert"))
            if value.get(member)
        ]

    def _map_mutations(
        self, column: Column, gone: list[str], new: dict[str, Any], field: str
    ) -> list[Any]:
        pairs: list[Any] = to_wire(column, new, self.resolve, field)[1] if new else []
        keys = [key_to_wire(column.type.key, key, self.resolve, field) for key in gone]
        keys += [key for key, _ in pairs]  # "insert" leaves a key that is there as it is
        mutations = [[column.name, "delete", ["set", keys]]] if keys else []
        return [*mutations, [column.name, "insert", ["map", pairs]]] if new else mutations

    def _mutate(self, table: str, uuid: str, mutations: list[Any]) -> None:
        if mutations:
            mutate = {"op": "mutate", "table": table, "where": _is(uuid), "mutations": mutations}
            self.touches.add(uuid)
            self._changes.append(mutate)

    def delete(self, table: str, uuid: str) -> None:
        """Delete a row."""
        is_new = (table, uuid) in self.given.values()
        operations = self._changes if is_new else self._deletions
        operations.append({"op": "delete", "table": table, "where": _is(uuid)})
        self.deleted.setdefault(table, set()).add(uuid)


def _is(uuid: str) -> list[Any]:
    """The condition on a row to be that one."""
    return [["_uuid", "==", ["uuid", uuid]]]
