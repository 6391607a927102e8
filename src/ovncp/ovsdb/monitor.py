"""Monitors: who is told of which changes.

"monitor" of RFC 7047 section 4.1.5, "monitor_cond", "monitor_cond_change" and
"monitor_cond_since" of ovsdb-server(7) sections 4.1.12 to 4.1.15. Monitors that ask for the same
form one group, for which an update is put together once. A group with a condition on a table is
found by the values that a change has, not by trying the condition of every group in turn.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ovncp.ovsdb import condition
from ovncp.ovsdb.column_type import MapType, SetType
from ovncp.ovsdb.condition import Clause, matches_any
from ovncp.ovsdb.errors import OvsdbError, json_text, syntax_error
from ovncp.ovsdb.history import Difference
from ovncp.ovsdb.parser import Member, is_array, is_boolean, is_object, parse
from ovncp.ovsdb.row import Change, Values
from ovncp.ovsdb.schema import Column
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.update import (
    DELETE,
    EVERYTHING,
    INITIAL,
    INSERT,
    MODIFY,
    Selection,
    Shape,
    table_member,
)

_SELECT = tuple(
    Member(name, is_boolean, True) for name in ("initial", "insert", "delete", "modify")
)
_SELECT_BITS = {"initial": INITIAL, "insert": INSERT, "delete": DELETE, "modify": MODIFY}
_REQUEST = (Member("columns", is_array, True), Member("select", is_object, True))
_COND_REQUEST = (Member("where", is_array, True), *_REQUEST)
_COND_CHANGE = (Member("columns", is_array, True), Member("where", is_array, True))

TRUE = Clause(None, "true", None)

_MOST_IDLE_SHAPES = 256

METHODS = {1: "update", 2: "update2", 3: "update3"}


@dataclass(eq=False)
class MonitoredTable:
    """One table of a group: what is shown of it, and of which rows.

    `clauses` is None for all rows; `where` is the condition's JSON text, by which equal ones are
    known.
    """

    shape: Shape
    clauses: tuple[Clause, ...] | None
    where: str


Key = tuple[Hashable, ...]


class Group:
    """Monitors that are told the same. `tables` is by name.

    `audiences` has the monitors that are sent the very same bytes, by their form and their id.
    `dump` is the first dump of the state that `generations` stands for, shared by all who ask
    before it changes.
    """

    __slots__ = ("audiences", "dump", "generations", "key", "tables")

    def __init__(self, key: Key, tables: dict[str, MonitoredTable]) -> None:
        self.key = key
        self.tables = tables
        self.audiences: dict[tuple[int, bytes], dict[Monitor, None]] = {}
        self.dump = b""
        self.generations: list[int] | None = None

    @property
    def is_conditional(self) -> bool:
        """Whether a table is not shown as a whole."""
        return any(monitored.clauses is not None for monitored in self.tables.values())


class Monitor:
    """One monitor of `owner`. `version` is 1, 2 or 3 for "update", "update2" or "update3"."""

    __slots__ = ("group", "id_bytes", "owner", "version")

    def __init__(self, owner: Any, monitor_id: Any, version: int) -> None:
        self.owner = owner
        self.version = version
        self.group: Group
        self.rename(monitor_id)

    @property
    def audience(self) -> tuple[int, bytes]:
        """What decides, within a group, of the bytes of a notification."""
        return self.version, self.id_bytes

    def rename(self, monitor_id: Any) -> None:
        """Use `monitor_id`, any JSON value, in the notifications; for a monitor in no group."""
        self.id_bytes = json_text(monitor_id).encode()

    def message(self, updates: bytes, transaction_id: str) -> bytes:
        """The notification with the `<table-updates>` object `updates`."""
        if self.version == 3:
            updates = b'"%b",%b' % (transaction_id.encode(), updates)
        method = METHODS[self.version].encode()
        return b'{"id":null,"method":"%b","params":[%b,%b]}' % (method, self.id_bytes, updates)


@dataclass(eq=False)
class Notification:
    """Bytes that each of `monitors` is to be sent."""

    monitors: Iterable[Monitor]
    message: bytes


class ConditionIndex:
    """The groups that monitor one table, by the values that make their conditions true."""

    __slots__ = ("always", "by_value", "scanned")

    def __init__(self) -> None:
        self.always: dict[Group, None] = {}
        self.scanned: dict[Group, None] = {}
        self.by_value: dict[int, dict[Any, dict[Group, None]]] = {}

    def add(self, group: Group, clauses: tuple[Clause, ...] | None) -> None:
        """Add `group`, whose condition on the table is `clauses`."""
        if clauses is None:
            self.always[group] = None
            return
        keys = [_index_key(clause) for clause in clauses if clause.function != "false"]
        if None in keys:
            self.scanned[group] = None
            return
        for key in keys:
            assert key is not None
            index, value = key
            self.by_value.setdefault(index, {}).setdefault(value, {})[group] = None

    def remove(self, group: Group, clauses: tuple[Clause, ...] | None) -> None:
        """The inverse of `add`."""
        self.always.pop(group, None)
        self.scanned.pop(group, None)
        for key in map(_index_key, clauses or ()):
            if key is None:
                continue
            index, value = key
            groups = self.by_value.get(index, {}).get(value, {})
            if group in groups:
                del groups[group]
                if not groups:
                    del self.by_value[index][value]

    def concerned(self, table: Table, change: Change) -> Iterator[Group]:
        """The groups with a condition whose outcome `change` may have a part in."""
        yield from self.scanned
        if not self.by_value:
            return
        found: dict[Group, None] = {}
        columns = table.column_list
        for index, groups_by_value in self.by_value.items():
            kind = columns[index].type
            for values in (change.old, change.new):
                if values is None:
                    continue
                for value in _lookup_keys(kind, values[index]):
                    found.update(groups_by_value.get(value, ()))
        yield from found


def _index_key(clause: Clause) -> tuple[int, Any] | None:
    """The column and the value by which rows that satisfy `clause` are known; None if by none."""
    column, arg = clause.column, clause.arg
    if column is None or clause.function not in ("==", "includes"):
        return None
    if isinstance(column.type, MapType):
        if clause.function == "includes" and len(arg) == 1:
            return column.index, next(iter(arg.items()))
        return None
    if isinstance(column.type, SetType):
        if clause.function == "==":
            return column.index, arg
        return (column.index, arg[0]) if len(arg) == 1 else None
    return column.index, arg


def _lookup_keys(kind: Any, datum: Any) -> Iterable[Any]:
    """The keys under which conditions that `datum` may satisfy are to be found."""
    if isinstance(kind, MapType):
        items: Iterable[Any] = datum.items()
        return items
    if isinstance(kind, SetType):
        return (datum, *datum)
    return (datum,)


class Monitors:
    """All monitors of one database."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._tables = tables
        self._shapes: dict[Hashable, Shape] = {}
        self._shapes_of: dict[str, list[Shape]] = {name: [] for name in tables}
        # The keys of the shapes that have no monitor, the longest unused first.
        self._idle_shapes: dict[Hashable, None] = {}
        self._groups: dict[Key, Group] = {}
        self._indexes = {name: ConditionIndex() for name in tables}

    def __len__(self) -> int:
        return sum(
            len(audience)
            for group in self._groups.values()
            for audience in group.audiences.values()
        )

    @property
    def n_groups(self) -> int:
        """The number of different things that are monitored."""
        return len(self._groups)

    @property
    def n_caches(self) -> int:
        """The number of shapes that keep the bytes of rows."""
        return sum(shape.is_cached for shape in self._shapes.values())

    def add(self, owner: Any, monitor_id: Any, requests: Any, version: int) -> Monitor:
        """A new monitor for the `<monitor-requests>` object `requests`. Raises OvsdbError."""
        if type(requests) is not dict:
            raise syntax_error(requests, "monitor-requests must be object")
        self._drop_idle_shapes()
        tables = {
            name: self._parse_requests(name, request, version) for name, request in requests.items()
        }
        monitor = Monitor(owner, monitor_id, version)
        self._join(monitor, tables)
        return monitor

    def remove(self, monitor: Monitor) -> None:
        """Forget `monitor`."""
        group = monitor.group
        audience = group.audiences[monitor.audience]
        del audience[monitor]
        if audience:
            return
        del group.audiences[monitor.audience]
        if group.audiences:
            return
        del self._groups[group.key]
        for name, monitored in group.tables.items():
            self._indexes[name].remove(group, monitored.clauses)
            monitored.shape.n_monitors -= 1
            if not monitored.shape.n_monitors:
                self._idle_shapes[monitored.shape.key] = None

    def _join(self, monitor: Monitor, tables: dict[str, MonitoredTable]) -> None:
        key = tuple((name, id(tables[name].shape), tables[name].where) for name in sorted(tables))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key, tables)
            for name, monitored in tables.items():
                self._indexes[name].add(group, monitored.clauses)
                monitored.shape.n_monitors += 1
                self._idle_shapes.pop(monitored.shape.key, None)
        group.audiences.setdefault(monitor.audience, {})[monitor] = None
        monitor.group = group

    def _parse_requests(self, name: str, json: Any, version: int) -> MonitoredTable:
        table = self._tables.get(name)
        if table is None:
            raise OvsdbError("syntax error", f"no table named {name}")
        selections: dict[Column, int] = {}
        select = 0
        clauses: list[Clause] = []
        for request in json if type(json) is list else [json]:
            select |= _parse_request(table, request, version, selections)
            where = request.get("where") if version > 1 else None
            clauses += condition.parse(table.schema, where, None) if where is not None else [TRUE]
        shape = self._shape(table, 1 if version == 1 else 2, tuple(selections.items()), select)
        return _monitored(shape, clauses)

    def _shape(
        self, table: Table, version: int, selections: tuple[Selection, ...], select: int
    ) -> Shape:
        ordered = tuple(sorted(selections, key=lambda selection: selection[0].index))
        names = tuple((column.index, bits) for column, bits in ordered)
        key = (table.name, version, names, select)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(table, version, ordered, key)
            shape.select_also(select)
            self._shapes_of[table.name].append(shape)
            self._idle_shapes[key] = None
        return shape

    def _drop_idle_shapes(self) -> None:
        """Forget the shapes that are unused for longest, beyond a number that may come back."""
        while len(self._idle_shapes) > _MOST_IDLE_SHAPES:
            key = next(iter(self._idle_shapes))
            del self._idle_shapes[key]
            shape = self._shapes.pop(key)
            self._shapes_of[shape.table.name].remove(shape)

    def initial(self, monitor: Monitor) -> bytes:
        """The `<table-updates>` of the first dump."""
        group = monitor.group
        if group.is_conditional:
            return self._dump(group)
        generations = [monitored.shape.generation for monitored in group.tables.values()]
        if generations != group.generations:
            group.dump, group.generations = self._dump(group), generations
        return group.dump

    def _dump(self, group: Group) -> bytes:
        members = []
        for name, monitored in group.tables.items():
            shape = monitored.shape
            if not shape.select & INITIAL:
                continue
            if monitored.clauses is None:
                rows = shape.snapshot()
            else:
                rows = b",".join(map(shape.row, self._matching(name, monitored.clauses)))
            if rows:
                members.append(table_member(name, rows))
        return b"{%b}" % b",".join(members)

    def _matching(self, name: str, clauses: tuple[Clause, ...]) -> Iterator[Any]:
        for row in self._tables[name].rows.values():
            if matches_any(clauses, row.values):
                yield row

    def since(self, monitor: Monitor, difference: Difference) -> bytes:
        """The `<table-updates>` that lead a client over `difference`."""
        rows: dict[str, list[bytes]] = {}
        for (name, uuid), (_, old, new) in difference.items():
            monitored = monitor.group.tables.get(name)
            if monitored is not None:
                update = _conditional_update(monitored, uuid, old, new)
                if update is not None:
                    rows.setdefault(name, []).append(update)
        return _table_updates(rows)

    def change_conditions(self, monitor: Monitor, new_id: Any, requests: Any) -> bytes | None:
        """Give `monitor` a new id and new conditions; the `<table-updates>` due to these, if any.

        Raises OvsdbError, and then leaves the monitor as it was.
        """
        if type(requests) is not dict:
            raise OvsdbError("syntax error", "monitor-cond-change-requests must be object")
        tables = dict(monitor.group.tables)
        for name, request in requests.items():
            clauses = self._parse_condition_change(monitor, name, request)
            if clauses is not None:
                tables[name] = _monitored(tables[name].shape, clauses)
        old = monitor.group.tables
        rows: dict[str, list[bytes]] = {}
        for name, monitored in tables.items():
            if monitored.where != old[name].where:
                rows[name] = list(self._condition_difference(name, old[name], monitored))
        self.remove(monitor)
        monitor.rename(new_id)
        self._join(monitor, tables)
        return _table_updates(rows) if any(rows.values()) else None

    def _parse_condition_change(
        self, monitor: Monitor, name: str, requests: Any
    ) -> list[Clause] | None:
        table = self._tables.get(name)
        if table is None:
            raise OvsdbError("syntax error", f"no table named {name}")
        if name not in monitor.group.tables:
            raise OvsdbError("syntax error", f"no table named {name} in monitor session")
        if type(requests) is not list:
            raise OvsdbError("syntax error", f"table {name} no monitor-cond-change JSON array")
        clauses = None
        for request in requests:
            members = parse(request, _COND_CHANGE, f"table {name}")
            if "columns" in members:
                raise syntax_error(request, "changing columns is unsupported")
            where = members.get("where")
            clauses = [] if where is None else condition.parse(table.schema, where, None)
        return clauses

    def _condition_difference(
        self, name: str, old: MonitoredTable, new: MonitoredTable
    ) -> Iterator[bytes]:
        for row in self._tables[name].rows.values():
            values = row.values
            before = old.clauses is None or matches_any(old.clauses, values)
            after = new.clauses is None or matches_any(new.clauses, values)
            if before != after:
                update = new.shape.update(
                    row.uuid, values if before else None, values if after else None
                )
                if update is not None:
                    yield update

    def notify(self, changes: Sequence[Change], transaction_id: str) -> list[Notification]:
        """Whom to tell what of a transaction with `changes`."""
        by_table: dict[str, list[Change]] = {}
        for change in changes:
            by_table.setdefault(change.table.name, []).append(change)
            for shape in self._shapes_of[change.table.name]:
                shape.forget(change.row.uuid)
        if not self._groups:
            return []
        rows: dict[Group, dict[str, list[bytes]]] = {}
        for name, table_changes in by_table.items():
            self._notify_always(name, table_changes, rows)
            self._notify_concerned(name, table_changes, rows)
        return [
            notification
            for group, tables in rows.items()
            for notification in _messages(group, _table_updates(tables), transaction_id)
        ]

    def _notify_always(
        self, name: str, changes: list[Change], rows: dict[Group, dict[str, list[bytes]]]
    ) -> None:
        encoded: dict[Shape, list[bytes]] = {}
        for group in self._indexes[name].always:
            shape = group.tables[name].shape
            updates = encoded.get(shape)
            if updates is None:
                found = (
                    shape.update(change.row.uuid, change.old, change.new) for change in changes
                )
                updates = encoded[shape] = [update for update in found if update is not None]
            if updates:
                rows.setdefault(group, {})[name] = updates
                group.dump, group.generations = b"", None

    def _notify_concerned(
        self, name: str, changes: list[Change], rows: dict[Group, dict[str, list[bytes]]]
    ) -> None:
        index = self._indexes[name]
        if not index.scanned and not index.by_value:
            return
        for change in changes:
            encoded: dict[tuple[Shape, bool, bool], bytes | None] = {}
            for group in index.concerned(change.table, change):
                update = _shared_update(group.tables[name], change, encoded)
                if update is not None:
                    rows.setdefault(group, {}).setdefault(name, []).append(update)


def _shared_update(
    monitored: MonitoredTable,
    change: Change,
    encoded: dict[tuple[Shape, bool, bool], bytes | None],
) -> bytes | None:
    """The update for a group with a condition, encoded once for all groups that see the same."""
    clauses = monitored.clauses
    assert clauses is not None
    old, new = change.old, change.new
    before = old is not None and matches_any(clauses, old)
    after = new is not None and matches_any(clauses, new)
    key = (monitored.shape, before, after)
    if key not in encoded:
        encoded[key] = monitored.shape.update(
            change.row.uuid, old if before else None, new if after else None
        )
    return encoded[key]


def _conditional_update(
    monitored: MonitoredTable, uuid: str, old: Values | None, new: Values | None
) -> bytes | None:
    clauses = monitored.clauses
    if clauses is not None:
        old = old if old is not None and matches_any(clauses, old) else None
        new = new if new is not None and matches_any(clauses, new) else None
    return monitored.shape.update(uuid, old, new)


def _messages(group: Group, updates: bytes, transaction_id: str) -> Iterator[Notification]:
    """The notifications of `group`, one for each id and form that its monitors have."""
    for audience in group.audiences.values():
        message = next(iter(audience)).message(updates, transaction_id)
        yield Notification(audience, message)


def _table_updates(rows: dict[str, list[bytes]]) -> bytes:
    members = [table_member(name, b",".join(updates)) for name, updates in rows.items() if updates]
    return b"{%b}" % b",".join(members)


def _monitored(shape: Shape, clauses: Sequence[Clause]) -> MonitoredTable:
    """`shape` under a condition; a condition that every row meets is none."""
    if not clauses or any(clause.function == "true" for clause in clauses):
        return MonitoredTable(shape, None, "")
    text = json_text([clause.to_json() for clause in clauses])
    return MonitoredTable(shape, tuple(clauses), text)


def _parse_request(
    table: Table, request: Any, version: int, selections: "dict[Column, int]"
) -> int:
    """Add the columns of a `<monitor-request>` to `selections`; the kinds that it selects."""
    shape = _REQUEST if version == 1 else _COND_REQUEST
    members = parse(request, shape, f"table {table.name}")
    select = EVERYTHING
    if "select" in members:
        wanted = parse(members["select"], _SELECT, f"table {table.name} select")
        select = sum(bit for name, bit in _SELECT_BITS.items() if wanted.get(name, True))
    for column in _request_columns(table, members):
        if column in selections:
            columns = members.get("columns")
            message = f"column {column.name} mentioned more than once"
            raise syntax_error(columns, message)
        selections[column] = select
    return select


def _request_columns(table: Table, members: dict[str, Any]) -> Iterator[Column]:
    if "columns" not in members:
        yield from (column for name, column in table.columns.items() if name != "_uuid")
        return
    for name in members["columns"]:
        if type(name) is not str:
            raise syntax_error(members["columns"], "array of column names expected")
        column = table.columns.get(name)
        if column is None:
            raise syntax_error(members["columns"], f"{name} is not a valid column name")
        yield column
