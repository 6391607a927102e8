"""Monitors: who is told of which changes.

"monitor" of RFC 7047 section 4.1.5, "monitor_cond", "monitor_cond_change" and
"monitor_cond_since" of ovsdb-server(7) sections 4.1.12 to 4.1.15. Monitors that ask for the same
form one group, for which an update is put together once. A group with a condition on a table is
found by the values that a change has, not by trying the condition of every group in turn.

What takes long, a first dump above all, has a method that does it beforehand step by step. In
between the database goes on; what became of it meanwhile is little, and is made up for at the end.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

from ovncp.ovsdb.aspect import AnyOf
from ovncp.ovsdb.condition_index import ConditionIndex
from ovncp.ovsdb.dump import joined
from ovncp.ovsdb.errors import json_text
from ovncp.ovsdb.gathering import Gathering
from ovncp.ovsdb.history import History
from ovncp.ovsdb.missed import Missed
from ovncp.ovsdb.monitor_request import (
    MonitorRequest,
    TableRequest,
    Where,
    parse_change,
    parse_request,
)
from ovncp.ovsdb.row import Change, Row, Values
from ovncp.ovsdb.row_index import RowIndexes
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.update import INITIAL, Form, Shape, table_updates

_MOST_IDLE_SHAPES = 256
_ROWS_PER_STEP = 32

_NONE = AnyOf(())

METHODS = {1: "update", 2: "update2", 3: "update3"}


class MonitoredTable:
    """One table of a group: what is shown of it, and of which rows."""

    __slots__ = ("shape", "where")

    def __init__(self, shape: Shape, where: Where) -> None:
        self.shape = shape
        self.where = where


Key = tuple[Hashable, ...]


class Group:
    """Monitors that are told the same. `tables` is by name.

    `audiences` has the monitors that are sent the very same bytes, by their form and their id.
    """

    __slots__ = ("audiences", "key", "tables")

    def __init__(self, key: Key, tables: dict[str, MonitoredTable]) -> None:
        self.key = key
        self.tables = tables
        self.audiences: dict[tuple[int, bytes], dict[Monitor, None]] = {}


class Monitor:
    """One monitor of `owner`. `version` is 1, 2 or 3 for "update", "update2" or "update3".

    `gathered` is what was put together for it beforehand, by the tables' names.
    """

    __slots__ = ("gathered", "group", "id_bytes", "owner", "version")

    def __init__(self, owner: Any, monitor_id: Any, version: int) -> None:
        self.owner = owner
        self.version = version
        self.group: Group
        self.gathered: dict[str, Gathering] = {}
        self.rename(monitor_id)

    @property
    def audience(self) -> tuple[int, bytes]:
        """What decides, within a group, of the bytes of a notification."""
        return self.version, self.id_bytes

    def rename(self, monitor_id: Any) -> None:
        """Use `monitor_id`, any JSON value, in the notifications; for a monitor in no group."""
        self.id_bytes = json_text(monitor_id).encode()

    def message(self, transaction_id: str, *updates: bytes) -> list[bytes]:
        """The notification with the `<table-updates>` object that `updates` are the parts of."""
        head = b'{"id":null,"method":"%b","params":[%b,' % (
            METHODS[self.version].encode(),
            self.id_bytes,
        )
        if self.version == 3:
            head = b'%b"%b",' % (head, transaction_id.encode())
        return [head, *updates, b"]}"]


class Notification:
    """Bytes that each of `monitors` is to be sent."""

    __slots__ = ("message", "monitors")

    def __init__(self, monitors: Collection[Monitor], message: bytes) -> None:
        self.monitors = monitors
        self.message = message


class _Watched:
    """What monitors have to do with one table.

    `everyone` has the groups that see all of it, `conditions` those that see some rows.
    """

    __slots__ = ("conditions", "everyone", "gatherings", "rows", "shapes", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.shapes: dict[Form, Shape] = {}
        self.everyone: dict[Group, None] = {}
        self.conditions = ConditionIndex()
        self.rows = RowIndexes(table)
        self.gatherings: dict[Gathering, None] = {}

    def join(self, group: Group, monitored: MonitoredTable) -> None:
        monitored.shape.n_monitors += 1
        condition = monitored.where.condition
        if condition is None:
            self.everyone[group] = None
        else:
            self.conditions.add(group, condition)

    def leave(self, group: Group, monitored: MonitoredTable) -> None:
        monitored.shape.n_monitors -= 1
        condition = monitored.where.condition
        if condition is None:
            del self.everyone[group]
        else:
            self.conditions.remove(group, condition)

    def note(self, uuid: str, old: Values | None, new: Values | None, change: Change) -> None:
        """Note that the row `uuid`, which was `old`, is `new` now, due to `change`."""
        for shape in self.shapes.values():
            shape.forget(uuid)
        for gathering in self.gatherings:
            gathering.touch(uuid)
        self.rows.change(uuid, old, new, change.columns)

    def gathering(
        self, show: Callable[[Row], bytes | None], one: AnyOf | None, other: AnyOf | None
    ) -> Gathering:
        """For the rows that meet only one of two conditions, and perhaps others."""
        found: dict[str, None] = {}
        if one is None or other is None:
            found = dict.fromkeys(self.table.rows)
        else:
            for aspect, values in one.unlike(other):
                if values:
                    found.update(dict.fromkeys(self.rows.find(aspect, values)))
        gathering = Gathering(self.table.rows, show, found)
        self.gatherings[gathering] = None
        return gathering

    def end(self, gathering: Gathering) -> None:
        """Tell `gathering` of no more changes."""
        gathering.current = False
        self.gatherings.pop(gathering, None)


def _in_parts(rows: dict[str, list[bytes]]) -> list[bytes]:
    """The parts of the `<table-updates>` with these rows, each table's in parts."""
    parts: list[bytes] = []
    for name, updates in rows.items():
        if updates:
            parts += [b'%b"%b":{' % (b"}," if parts else b"{", name.encode()), *updates]
    return [*parts, b"}}"] if parts else [b"{}"]


class Monitors:
    """All monitors of one database."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._tables = tables
        self._watched = {name: _Watched(table) for name, table in tables.items()}
        # The shapes that have no monitor, the longest unused first.
        self._idle_shapes: dict[Shape, None] = {}
        self._groups: dict[Key, Group] = {}
        # What was missed by those who came back lately.
        self._missed: Missed | None = None

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
        shapes = (shape for watched in self._watched.values() for shape in watched.shapes.values())
        return sum(shape.is_cached for shape in shapes)

    @property
    def n_row_indexes(self) -> int:
        """The number of indexes of rows that conditions made necessary."""
        return sum(len(watched.rows) for watched in self._watched.values())

    @property
    def n_clauses(self) -> int:
        """The number of different clauses that changes are matched with."""
        return sum(len(watched.conditions) for watched in self._watched.values())

    # Coming and going

    def parse(self, requests: Any, version: int) -> MonitorRequest:
        """What the `<monitor-requests>` object `requests` asks for. Raises OvsdbError."""
        return parse_request(self._tables, requests, version)

    def add(self, owner: Any, monitor_id: Any, request: MonitorRequest) -> Monitor:
        """A new monitor for `request`."""
        monitor = Monitor(owner, monitor_id, request.version)
        monitor.gathered = request.gathered
        self._join(monitor, {name: self._monitored(r) for name, r in request.tables.items()})
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
            self._watched[name].leave(group, monitored)
            if not monitored.shape.n_monitors:
                self._idle_shapes[monitored.shape] = None
        self._drop_idle_shapes()

    def _join(self, monitor: Monitor, tables: dict[str, MonitoredTable]) -> None:
        key = tuple(
            (name, tables[name].shape, tables[name].where.digest) for name in sorted(tables)
        )
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key, tables)
            for name, monitored in tables.items():
                self._watched[name].join(group, monitored)
                self._idle_shapes.pop(monitored.shape, None)
        group.audiences.setdefault(monitor.audience, {})[monitor] = None
        monitor.group = group

    def _monitored(self, request: TableRequest) -> MonitoredTable:
        return MonitoredTable(self._shape(request), request.where)

    def _shape(self, request: TableRequest) -> Shape:
        shapes = self._watched[request.table.name].shapes
        shape = shapes.get(request.form)
        if shape is None:
            shape = shapes[request.form] = Shape(request.table, request.form)
            self._idle_shapes[shape] = None
        return shape

    def _drop_idle_shapes(self) -> None:
        """Forget the shapes that are unused for longest, beyond a number that may come back."""
        while len(self._idle_shapes) > _MOST_IDLE_SHAPES:
            shape = next(iter(self._idle_shapes))
            del self._idle_shapes[shape]
            del self._watched[shape.table.name].shapes[shape.form]

    def drop_unused(self) -> None:
        """Forget what was kept for others to come, but was of no use since the call before."""
        self._missed = None
        for watched in self._watched.values():
            watched.rows.drop_unused()
            for gathering in [each for each in watched.gatherings if not each.was_used()]:
                watched.end(gathering)
            for shape in watched.shapes.values():
                shape.drop_unused()

    # What a client is to know when it begins, comes back, or wants to see other rows

    def prepare(self, request: MonitorRequest) -> Iterator[None]:
        """Do beforehand, step by step, most of what `initial` has to do for `request`."""
        for name, wanted in request.tables.items():
            if not wanted.form[2] & INITIAL:
                continue
            watched, condition = self._watched[name], wanted.where.condition
            if condition is None:
                yield from self._shape(wanted).refresh()
            else:
                yield from watched.rows.prepare(condition)
                gathering = self._gather_initial(name, self._shape(wanted), condition)
                request.gathered[name] = gathering
                yield from gathering.gather()

    def _gather_initial(self, name: str, shape: Shape, condition: AnyOf) -> Gathering:
        def show(row: Row) -> bytes | None:
            return shape.row(row) if condition.matches(row.values) else None

        return self._watched[name].gathering(show, condition, _NONE)

    def _found(self, monitor: Monitor, name: str, gather: Callable[[], Gathering]) -> list[bytes]:
        """What was gathered for `monitor` beforehand, or is now."""
        gathering = monitor.gathered.pop(name, None)
        if gathering is None or not gathering.current:
            gathering = gather()
        found = gathering.found()
        self._watched[name].end(gathering)
        return found

    def initial(self, monitor: Monitor) -> list[bytes]:
        """The `<table-updates>` of the first dump, in parts."""
        tables = monitor.group.tables
        return _in_parts({name: self._initial_rows(monitor, name, tables[name]) for name in tables})

    def _initial_rows(self, monitor: Monitor, name: str, monitored: MonitoredTable) -> list[bytes]:
        shape, condition = monitored.shape, monitored.where.condition
        if not shape.select & INITIAL:
            return []
        if condition is None:
            return shape.dump()
        gather = partial(self._gather_initial, name, shape, condition)
        return joined(self._found(monitor, name, gather))

    def prepare_since(
        self, request: MonitorRequest, history: History, known_id: str
    ) -> Iterator[None]:
        """Do beforehand, step by step, most of what `since` has to do for `request`."""
        missed, number = self._missed_of(history), history.number(known_id)
        if number is None:
            return
        yield from missed.reach(number)
        for name, wanted in request.tables.items():
            shape, condition = self._shape(wanted), wanted.where.condition
            yield from missed.prepare(name, condition)
            for count, (uuid, old, new) in enumerate(missed.seen(number, name, condition), 1):
                shape.merged(uuid, old, new)
                if not count % _ROWS_PER_STEP:
                    yield

    def since(self, monitor: Monitor, history: History, known_id: str) -> bytes:
        """The `<table-updates>` since the state `known_id`, which `history` includes."""
        missed, number = self._missed_of(history), history.number(known_id)
        assert number is not None
        for _ in missed.reach(number):
            pass
        rows: dict[str, list[bytes]] = {}
        for name, monitored in monitor.group.tables.items():
            merged = monitored.shape.merged
            found = [merged(*row) for row in missed.seen(number, name, monitored.where.condition)]
            rows[name] = [update for update in found if update is not None]
        return table_updates(rows)

    def _missed_of(self, history: History) -> Missed:
        missed = self._missed
        if missed is None or missed.history is not history:
            missed = self._missed = Missed(history)
        return missed

    def parse_change(self, monitor: Monitor, requests: Any) -> dict[str, Where]:
        """The new conditions that `requests` wants for `monitor`. Raises OvsdbError."""
        return parse_change(self._tables, monitor.group.tables, requests)

    def prepare_change(self, monitor: Monitor, change: dict[str, Where]) -> Iterator[None]:
        """Do beforehand, step by step, most of what `change_conditions` has to do."""
        for name, where in change.items():
            old = monitor.group.tables[name]
            if where.digest == old.where.digest:
                continue
            for condition in (old.where.condition, where.condition):
                if condition is not None:
                    yield from self._watched[name].rows.prepare(condition)
            gathering = monitor.gathered[name] = self._gather_difference(name, old, where)
            yield from gathering.gather()

    def change_conditions(
        self, monitor: Monitor, new_id: Any, change: dict[str, Where]
    ) -> list[bytes]:
        """Give `monitor` a new id and new conditions.

        Returns the parts of the `<table-updates>` due to these, if there are any. The work is for
        the rows that meet a clause which only one of the conditions has.
        """
        tables = dict(monitor.group.tables)
        rows: dict[str, list[bytes]] = {}
        for name, where in change.items():
            old = tables[name]
            if where.digest != old.where.digest:
                tables[name] = MonitoredTable(old.shape, where)
                gather = partial(self._gather_difference, name, old, where)
                rows[name] = joined(self._found(monitor, name, gather))
        self.remove(monitor)
        monitor.rename(new_id)
        self._join(monitor, tables)
        return _in_parts(rows) if any(rows.values()) else []

    def _gather_difference(self, name: str, old: MonitoredTable, new: Where) -> Gathering:
        shape, before, after = old.shape, old.where.condition, new.condition

        def show(row: Row) -> bytes | None:
            was_seen = before is None or before.matches(row.values)
            is_seen = after is None or after.matches(row.values)
            if was_seen == is_seen:
                return None
            return shape.inserted(row) if is_seen else shape.update(row.uuid, row.values, None)

        return self._watched[name].gathering(show, before, after)

    # Changes

    def notify(self, changes: Sequence[Change], transaction_id: str) -> list[Notification]:
        """Whom to tell what of a transaction with `changes`, which is visible from now on."""
        by_table: dict[str, list[Change]] = {}
        for change in changes:
            name = change.table.name
            by_table.setdefault(name, []).append(change)
            self._watched[name].note(change.row.uuid, change.old, change.new, change)
        if not self._groups:
            return []
        rows: dict[Group, dict[str, list[bytes]]] = {}
        for name, table_changes in by_table.items():
            watched = self._watched[name]
            _tell_everyone(watched, table_changes, rows)
            _tell_concerned(watched, table_changes, rows)
        return [
            notification
            for group, tables in rows.items()
            for notification in _messages(group, table_updates(tables), transaction_id)
        ]

    def take_back(self, changes: Sequence[Change]) -> None:
        """Note that `changes` do not become visible."""
        for change in changes:
            self._watched[change.table.name].note(change.row.uuid, change.new, change.old, change)


def _tell_everyone(
    watched: _Watched, changes: list[Change], rows: dict[Group, dict[str, list[bytes]]]
) -> None:
    name = watched.table.name
    encoded: dict[Shape, list[bytes]] = {}
    for group in watched.everyone:
        shape = group.tables[name].shape
        updates = encoded.get(shape)
        if updates is None:
            found = (shape.update(change.row.uuid, change.old, change.new) for change in changes)
            updates = encoded[shape] = [update for update in found if update is not None]
        if updates:
            rows.setdefault(group, {})[name] = updates


def _tell_concerned(
    watched: _Watched, changes: list[Change], rows: dict[Group, dict[str, list[bytes]]]
) -> None:
    """Tell those who see some rows; what many of them are shown alike is encoded once."""
    name = watched.table.name
    for change in changes:
        encoded: dict[tuple[Shape, bool, bool], bytes | None] = {}
        for group, was_seen, is_seen in watched.conditions.concerned(change):
            shape = group.tables[name].shape
            key = (shape, was_seen, is_seen)
            if key not in encoded:
                old, new = change.old if was_seen else None, change.new if is_seen else None
                encoded[key] = shape.update(change.row.uuid, old, new)
            update = encoded[key]
            if update is not None:
                rows.setdefault(group, {}).setdefault(name, []).append(update)


def _messages(group: Group, updates: bytes, transaction_id: str) -> Iterator[Notification]:
    """The notifications of `group`, one for each id and form that its monitors have."""
    for audience in group.audiences.values():
        message = b"".join(next(iter(audience)).message(transaction_id, updates))
        yield Notification(audience, message)
