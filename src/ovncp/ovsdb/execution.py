"""The operations of "transact" (RFC 7047 section 5.2), executed in order on a database's tables.

`execute` runs the operations of one request and returns their results with the transaction that
they amount to. Operations are data: a name, the members that it may have, and what executes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ovncp.ovsdb import condition, mutation
from ovncp.ovsdb.atom import Symbols, uuid_from_string
from ovncp.ovsdb.errors import OvsdbError, syntax_error
from ovncp.ovsdb.parser import (
    Member,
    Shape,
    check_members,
    check_no_others,
    failed,
    fits,
    is_array,
    is_boolean,
    is_id,
    is_integer,
    is_object,
    is_string,
    names_of,
)
from ovncp.ovsdb.row import Row
from ovncp.ovsdb.schema import Column
from ovncp.ovsdb.table import Table
from ovncp.ovsdb.transaction import Transaction

if TYPE_CHECKING:
    from ovncp.ovsdb.database import Client, Database

Json = Any
Result = dict[str, Any]


class Unsatisfied(Exception):
    """A "wait" whose condition does not hold yet, and whose time is not over."""


class Execution:
    """One "transact" request on its way.

    `elapsed_msec` is the time since it arrived, and `timeout_msec` the shortest time that a
    "wait" of it grants, None when there is no limit. `waits_on` has the tables that it waits for.
    `looked_up` has the uuids of the rows that it asked for, None if it asked for others than these.
    """

    __slots__ = (
        "asserted",
        "client",
        "database",
        "durable",
        "elapsed_msec",
        "looked_up",
        "may_wait",
        "n_operations",
        "number",
        "read_only",
        "role",
        "symbols",
        "timeout_msec",
        "transaction",
        "waits_on",
    )

    def __init__(
        self, database: "Database", client: "Client", elapsed_msec: int, may_wait: bool = True
    ) -> None:
        self.database = database
        self.client = client
        self.role = client.role
        self.read_only = client.read_only or database.name.startswith("_")
        self.elapsed_msec = elapsed_msec
        self.may_wait = may_wait
        self.timeout_msec: int | None = None
        self.waits_on: set[str] = set()
        # What a role allows depends on rows of other tables.
        self.looked_up: list[str] | None = None if client.role else []
        self.transaction = Transaction()
        self.symbols = Symbols(database.new_uuid)
        self.durable = False
        self.asserted: list[str] = []
        self.number = 0
        self.n_operations = 0

    @property
    def what(self) -> str:
        """The operation at hand, in the words of error messages."""
        return f"ovsdb operation {self.number} of {self.n_operations}"

    def run(self, operations: list[Json]) -> tuple[list[Json], bool]:
        """The results of `operations`, and whether an error ended them early.

        The results have an object for each operation that was executed, the error's for the one
        that failed, and null for the rest. Raises Unsatisfied when the transaction has to wait.
        """
        self.n_operations = len(operations)
        results: list[Json] = []
        for self.number, operation in enumerate(operations, 1):
            try:
                results.append(self._run_one(operation))
            except OvsdbError as error:
                results.append(error.to_json())
                results.extend([None] * (len(operations) - len(results)))
                return results, True
        return results, False

    def _run_one(self, operation: Json) -> Json:
        name = operation.get("op") if type(operation) is dict else None
        kind = OPERATIONS.get(name) if type(name) is str else None
        if kind is None:
            check_members(operation, _ANY_OPERATION, self.what)
            raise failed(operation, self.what, f'No operation "{name}"')
        self._check_shape(kind, operation)
        try:
            result = kind.execute(self, operation)
        finally:
            # Members that do not belong here go before what the others mean.
            if len(operation) > kind.n_required:
                check_no_others(operation, kind.names, self.what)
        if self.read_only and not kind.read_only:
            raise self._not_writable(kind)
        return result

    def _check_shape(self, kind: "Operation", operation: Json) -> None:
        is_fit = fits(operation, kind.shape)
        if not is_fit:
            # That there is no such table goes before what is wrong with the members after it.
            check_members(operation, kind.to_table, self.what)
        if kind.to_table:
            self.table(operation)
        if not is_fit:
            check_members(operation, kind.shape, self.what)

    def _not_writable(self, kind: "Operation") -> OvsdbError:
        if self.client.read_only:
            reason = "when database server is in read only mode"
        else:
            reason = f"on table in reserved database {self.database.name}"
        return OvsdbError("not allowed", f"{kind.name} operation not allowed {reason}")

    def table(self, operation: Json) -> Table:
        """The table that `operation` names."""
        table = self.database.tables.get(operation["table"])
        if table is None:
            raise failed(operation, self.what, f"No table named {operation['table']}.")
        return table

    def where(self, table: Table, operation: Json) -> list[condition.Clause]:
        """The condition of `operation`."""
        return condition.parse(table.schema, operation["where"], self.symbols)

    def rows(self, table: Table, clauses: list[condition.Clause]) -> list[Row]:
        """The rows of `table` that satisfy all `clauses`."""
        if self.looked_up is not None:
            uuid = condition.uuid_in(clauses)
            if uuid is None:
                self.looked_up = None
            else:
                self.looked_up.append(uuid)
        return table.query(clauses)

    def forbidden(self, what: str, table: Table) -> OvsdbError:
        """The error for a client whose role does not allow it to do `what` to `table`."""
        identity = self.client.identity or "(null)"
        return OvsdbError(
            "permission error",
            f'RBAC rules for client "{identity}" role "{self.role}" '
            f'prohibit {what} table "{table.name}".',
        )


def execute_insert(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.1, and "uuid" of ovsdb-server(7) section 5.2.1."""
    table = x.table(operation)
    uuid = _insert_uuid(x, table, operation)
    datums = table.parse_row(operation["row"], x.symbols)
    for index, error in table.invalid_defaults.items():
        if index not in datums:
            raise error
    row = table.make_row(uuid, datums, x.database.new_version())
    if x.role and not x.database.rbac.may_insert(x.client, table, row):
        raise x.forbidden("row insertion into", table)
    x.transaction.insert(table, row, datums)
    return {"uuid": ("uuid", uuid)}


def _insert_uuid(x: Execution, table: Table, operation: Json) -> str:
    uuid = None
    if "uuid" in operation:
        uuid = uuid_from_string(operation["uuid"])
        if uuid is None:
            raise syntax_error(operation["uuid"], "bad uuid")
        if not x.transaction.may_insert(table, uuid):
            raise OvsdbError(
                "duplicate uuid",
                "This UUID would duplicate a UUID already present within the table or deleted "
                "within the same transaction.",
                operation["uuid"],
            )
    if "uuid-name" not in operation:
        return uuid or x.symbols.new_uuid()
    name = operation["uuid-name"]
    if name in x.symbols.created:
        raise OvsdbError(
            "duplicate uuid-name",
            'This "uuid-name" appeared on an earlier "insert" operation.',
            name,
        )
    if uuid is not None:
        x.symbols.uuids[name] = uuid
    x.symbols.created.add(name)
    return x.symbols.uuid(name)


def execute_select(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.2."""
    table = x.table(operation)
    clauses = x.where(table, operation)
    columns = table.schema.column_set(operation.get("columns"))
    sort = table.schema.column_set(operation.get("sort", []))
    rows = x.rows(table, clauses)
    if "_uuid" not in (column.name for column in columns):
        rows = _distinct(rows, columns)
    if sort:
        rows.sort(key=lambda row: _sort_key(row, sort))
    plan = [(column.name, column.index, column.type.to_json) for column in columns]
    return {"rows": [_row_json(row, plan) for row in rows]}


def _sort_key(row: Row, columns: tuple[Column, ...]) -> list[Any]:
    return [column.type.sort_key(row.values[column.index]) for column in columns]


def _distinct(rows: list[Row], columns: tuple[Column, ...]) -> list[Row]:
    """The first row of each combination of values of `columns`."""
    found: dict[Any, Row] = {}
    for row in rows:
        found.setdefault(_projection(row.values, columns), row)
    return list(found.values())


def _projection(values: Any, columns: tuple[Column, ...]) -> tuple[Any, ...]:
    datums = (values[column.index] for column in columns)
    return tuple(tuple(d.items()) if type(d) is dict else d for d in datums)


def _row_json(row: Row, plan: list[tuple[str, int, Callable[[Any], Any] | None]]) -> dict[str, Any]:
    values = row.values
    return {
        name: values[index] if to_json is None else to_json(values[index])
        for name, index, to_json in plan
    }


def execute_update(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.3."""
    table = x.table(operation)
    datums = table.parse_row(operation["row"], x.symbols)
    columns = table.column_list
    for index in datums:
        if not columns[index].mutable:
            message = f"Cannot update immutable column {columns[index].name} in table {table.name}."
            raise OvsdbError("constraint violation", message, operation)
    rows = x.rows(table, x.where(table, operation))
    if x.role:
        names = [columns[index].name for index in datums]
        if not x.database.rbac.may_modify(x.client, table, rows, names):
            raise x.forbidden("modification of", table)
    for row in rows:
        x.transaction.modify(table, row, datums)
    return {"count": len(rows)}


def execute_mutate(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.4."""
    table = x.table(operation)
    mutations = mutation.parse(table.schema, operation["mutations"], x.symbols)
    rows = x.rows(table, x.where(table, operation))
    if x.role:
        names = [mutation.column.name for mutation in mutations]
        if not x.database.rbac.may_modify(x.client, table, rows, names):
            raise x.forbidden("mutate operation on", table)
    for row in rows:
        x.transaction.modify(table, row, mutation.apply_all(mutations, row.values))
    return {"count": len(rows)}


def execute_delete(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.5."""
    table = x.table(operation)
    rows = x.rows(table, x.where(table, operation))
    if x.role and not x.database.rbac.may_delete(x.client, table, rows):
        raise x.forbidden("row deletion from", table)
    for row in rows:
        x.transaction.delete(table, row)
    return {"count": len(rows)}


def execute_wait(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.6. Raises Unsatisfied when the time for it is not over."""
    table = x.table(operation)
    clauses = x.where(table, operation)
    columns = table.schema.column_set(operation.get("columns"))
    timeout = _wait_timeout(x, operation)
    if operation["until"] not in ("==", "!="):
        raise syntax_error(operation["until"], '"until" must be "==" or "!="')
    expected = {_expected(x, table, row, columns) for row in operation["rows"]}
    actual = {_projection(row.values, columns) for row in x.rows(table, clauses)}
    x.waits_on.add(table.name)
    if (actual == expected) != (operation["until"] == "=="):
        if timeout is None or x.elapsed_msec < timeout:
            if not x.may_wait:
                raise OvsdbError("not supported", "triggers not supported")
            raise Unsatisfied
        if x.elapsed_msec:
            raise OvsdbError("timed out", f'"wait" timed out after {x.elapsed_msec} ms')
        raise OvsdbError("timed out", '"where" clause test failed')
    return {}


def _wait_timeout(x: Execution, operation: Json) -> int | None:
    if "timeout" not in operation:
        return None
    timeout = int(operation["timeout"])
    if timeout < 0:
        raise syntax_error(operation["timeout"], "timeout must be nonnegative")
    if x.timeout_msec is None or timeout < x.timeout_msec:
        x.timeout_msec = timeout
    return timeout


def _expected(x: Execution, table: Table, json: Json, columns: tuple[Column, ...]) -> Any:
    values = table.defaults.copy()
    for index, datum in table.parse_row(json, x.symbols).items():
        values[index] = datum
    return _projection(values, columns)


def execute_commit(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.7."""
    x.durable = x.durable or operation.get("durable", False)
    return {}


def execute_abort(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.8."""
    raise OvsdbError("aborted", "aborted by request")


def execute_comment(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.9."""
    x.transaction.comments.append(operation["comment"])
    return {}


def execute_assert(x: Execution, operation: Json) -> Result:
    """RFC 7047 section 5.2.10."""
    if not x.client.owns_lock(operation["lock"]):
        raise OvsdbError("not owner", f"Asserted lock {operation['lock']} not held.")
    x.asserted.append(operation["lock"])
    return {}


@dataclass(eq=False)
class Operation:
    """An operation: what executes it, whether it only reads, and which members it has.

    `to_table` is the part of `shape` up to the member "table", if it has that.
    """

    name: str
    execute: Callable[[Execution, Json], Result]
    read_only: bool
    shape: Shape
    to_table: Shape
    names: frozenset[str]
    n_required: int


def _operation(
    name: str, execute: Callable[[Execution, Json], Result], read_only: bool, *members: Member
) -> tuple[str, Operation]:
    shape = (Member("op", is_id), *members)
    n_required = sum(not member.optional for member in shape)
    to_table = shape[: shape.index(_TABLE) + 1] if _TABLE in shape else ()
    return name, Operation(name, execute, read_only, shape, to_table, names_of(shape), n_required)


_ANY_OPERATION = (Member("op", is_id),)
_TABLE = Member("table", is_id)
_WHERE = Member("where", is_array)

OPERATIONS: Final[dict[str, Operation]] = dict(
    (
        _operation(
            "insert",
            execute_insert,
            False,
            _TABLE,
            Member("uuid", is_string, True),
            Member("uuid-name", is_id, True),
            Member("row", is_object),
        ),
        _operation(
            "select",
            execute_select,
            True,
            _TABLE,
            _WHERE,
            Member("columns", is_array, True),
            Member("sort", is_array, True),
        ),
        _operation("update", execute_update, False, _TABLE, _WHERE, Member("row", is_object)),
        _operation("mutate", execute_mutate, False, _TABLE, _WHERE, Member("mutations", is_array)),
        _operation("delete", execute_delete, False, _WHERE, _TABLE),
        _operation(
            "wait",
            execute_wait,
            True,
            Member("timeout", is_integer, True),
            _WHERE,
            Member("columns", is_array, True),
            Member("until", is_string),
            Member("rows", is_array),
            _TABLE,
        ),
        _operation("commit", execute_commit, False, Member("durable", is_boolean)),
        _operation("abort", execute_abort, True),
        _operation("comment", execute_comment, True, Member("comment", is_string)),
        _operation("assert", execute_assert, True, Member("lock", is_id)),
    )
)


def only_reads(operations: list[Json]) -> bool:
    """Whether none of `operations`, as far as they are any, changes anything."""
    for operation in operations:
        name = operation.get("op") if type(operation) is dict else None
        kind = OPERATIONS.get(name) if type(name) is str else None
        if kind is not None and not kind.read_only:
            return False
    return True
