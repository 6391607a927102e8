"""What OVSDB means, written to be obviously right and nothing else.

RFC 7047 sections 3.2 (types), 4.1.3 (transactions) and 5 (values, conditions, mutations,
operations).  A state is `{table: {uuid: {column: datum}}}`, never changed once made; a row has its
uuid in `_uuid`, and no `_version`.  A datum is a frozenset of its elements: of atoms, of pairs for
a map.  Nothing else is kept: what a commit has to check is worked out anew from the whole state.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

INT64 = range(-(2**63), 2**63)
UNLIMITED = 2**32 - 1
ZEROS = "00000000-0000-0000-0000-000000000000"
DEFAULTS = {"integer": 0, "real": 0.0, "boolean": False, "string": "", "uuid": ZEROS}

Datum = frozenset[Any]
Row = dict[str, Datum]
State = dict[str, dict[str, Row]]


class Failure(Exception):
    """An error with one of `tags`: which one is left open where several rows fail."""

    def __init__(self, *tags: str) -> None:
        super().__init__(*tags)
        self.tags = set(tags)


# Schemas


class Type(NamedTuple):
    """A `<type>`; `key` and `value` are `<base-type>` objects."""

    key: dict[str, Any]
    value: dict[str, Any] | None = None
    n_min: int = 1
    n_max: int = 1

    @property
    def default(self) -> Datum:
        if not self.n_min:
            return frozenset()
        key = DEFAULTS[self.key["type"]]
        return frozenset([key if self.value is None else (key, DEFAULTS[self.value["type"]])])

    @property
    def is_scalar(self) -> bool:
        return self.value is None and self.n_min == self.n_max == 1


class Column(NamedTuple):
    """A column."""

    type: Type
    mutable: bool = True
    ephemeral: bool = False


class Table(NamedTuple):
    """A table."""

    name: str
    columns: dict[str, Column]
    indexes: list[list[str]]
    max_rows: int
    is_root: bool


Schema = dict[str, Table]


def base_of(json: Any) -> dict[str, Any]:
    return {"type": json} if isinstance(json, str) else json


def type_of(json: Any) -> Type:
    if isinstance(json, str):
        return Type(base_of(json))
    n_max = json.get("max", 1)
    return Type(
        base_of(json["key"]),
        base_of(json["value"]) if "value" in json else None,
        json.get("min", 1),
        UNLIMITED if n_max == "unlimited" else n_max,
    )


def schema_of(json: Any) -> Schema:
    """The tables of a `<database-schema>`."""
    no_roots = not any(table.get("isRoot") for table in json["tables"].values())
    return {
        name: Table(
            name,
            {"_uuid": Column(Type({"type": "uuid"}), mutable=False)}
            | {
                column: Column(
                    type_of(c["type"]), c.get("mutable", True), c.get("ephemeral", False)
                )
                for column, c in table["columns"].items()
            },
            table.get("indexes", []),
            table.get("maxRows", UNLIMITED),
            no_roots or table.get("isRoot", False),
        )
        for name, table in json["tables"].items()
    }


def empty(schema: Schema) -> State:
    return {name: {} for name in schema}


# Values

Names = Callable[[str], str]
BOUNDS = {"integer": "Integer", "real": "Real", "string": "Length"}
PYTHON_TYPES = {"integer": int, "real": float, "boolean": bool, "string": str, "uuid": str}


def parse_atom(base: dict[str, Any], json: Any, names: Names) -> Any:
    kind = base["type"]
    if kind == "uuid":
        if not (isinstance(json, list) and len(json) == 2 and json[0] in ("uuid", "named-uuid")):
            raise Failure("syntax error")
        if json[0] == "named-uuid":
            return names(json[1])
        if len(json[1]) != len(ZEROS):
            raise Failure("syntax error")
        return json[1]
    if kind == "real" and type(json) is int:
        json = float(json)
    if type(json) is not PYTHON_TYPES[kind]:
        raise Failure("syntax error")
    check_atom(base, json)
    return json


def check_atom(base: dict[str, Any], atom: Any) -> None:
    if "enum" in base and atom not in base["enum"][1]:
        raise Failure("constraint violation")
    size = len(atom) if base["type"] == "string" else atom
    name = BOUNDS.get(base["type"], "")
    if not base.get(f"min{name}", size) <= size <= base.get(f"max{name}", size):
        raise Failure("constraint violation")


def parse(kind: Type, json: Any, names: Names) -> Datum:
    """The datum for a `<value>`."""
    word = "set" if kind.value is None else "map"
    if isinstance(json, list) and json[:1] == [word] and len(json) == 2:
        elements = json[1]
    elif kind.value is None and not (isinstance(json, list) and json[:1] == [word]):
        elements = [json]
    else:
        raise Failure("syntax error")
    if not kind.n_min <= len(elements) <= kind.n_max:
        raise Failure("syntax error")
    if kind.value is None:
        keys = found = [parse_atom(kind.key, atom, names) for atom in elements]
    else:
        found = [
            (parse_atom(kind.key, key, names), parse_atom(kind.value, value, names))
            for key, value in elements
        ]
        keys = [key for key, _ in found]
    if len(set(keys)) < len(keys):
        raise Failure("ovsdb error")
    return frozenset(found)


def keys_of(datum: Datum) -> set[Any]:
    return {key for key, _ in datum}


def difference(kind: Type, old: Datum, new: Datum) -> Datum:
    """What "update2" tells of a change from `old` to `new`."""
    if kind.n_max == 1:
        return new
    if kind.value is None:
        return old ^ new
    gone = {pair for pair in old if pair[0] not in keys_of(new)}
    return frozenset(gone | (new - old))


def apply_difference(kind: Type, old: Datum, diff: Datum) -> Datum:
    """What a client makes of `difference`."""
    if kind.n_max == 1:
        return diff
    if kind.value is None:
        return old ^ diff
    return frozenset({pair for pair in old if pair[0] not in keys_of(diff)} | (diff - old))


# Conditions and mutations

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
DATUM_TESTS: dict[str, Callable[[Datum, Datum], bool]] = {
    "==": lambda datum, arg: datum == arg,
    "!=": lambda datum, arg: datum != arg,
    "includes": lambda datum, arg: arg <= datum,
    "excludes": lambda datum, arg: not arg & datum,
}
Test = Callable[[Row], bool]


def parse_condition(table: Table, json: Any, names: Names) -> list[Test]:
    return [parse_clause(table, clause, names) for clause in json]


def parse_clause(table: Table, json: Any, names: Names) -> Test:
    if isinstance(json, bool):
        return lambda row: json
    name, function, arg_json = json
    if name not in table.columns:
        raise Failure("unknown column")
    kind = table.columns[name].type
    if function in COMPARE:
        if kind.key["type"] not in ("integer", "real") or kind.value or kind.n_max > 1:
            raise Failure("syntax error")
        (bound,) = parse(kind._replace(n_min=1), arg_json, names)
        return lambda row: any(COMPARE[function](atom, bound) for atom in row[name])
    if function not in DATUM_TESTS:
        raise Failure("unknown function")
    if function in ("includes", "excludes") and not kind.is_scalar:
        kind = kind._replace(n_min=0, n_max=kind.n_max if function == "includes" else UNLIMITED)
    arg = parse(kind, arg_json, names)
    return lambda row: DATUM_TESTS[function](row[name], arg)


Mutation = tuple[str, Callable[[Datum], Datum]]


def divide(x: Any, y: Any) -> Any:
    return x / y if isinstance(x, float) else (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1)


def modulo(x: int, y: int) -> int:
    if divide(x, y) not in INT64:
        raise Failure("range error")
    return x - divide(x, y) * y


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+=": lambda x, y: x + y,
    "-=": lambda x, y: x - y,
    "*=": lambda x, y: x * y,
    "/=": divide,
    "%=": modulo,
}


def parse_mutation(table: Table, json: Any, names: Names) -> Mutation:
    name, mutator, arg = json
    if name not in table.columns:
        raise Failure("unknown column")
    column = table.columns[name]
    if not column.mutable:
        raise Failure("constraint violation")
    if mutator in ARITHMETIC:
        return name, arithmetic(column.type, mutator, arg, names)
    if mutator not in ("insert", "delete"):
        raise Failure("unknown mutator")
    if column.type.is_scalar:
        raise Failure("syntax error")
    make = inserting if mutator == "insert" else deleting
    return name, sized(column.type, make(column.type, arg, names))


def arithmetic(kind: Type, mutator: str, arg: Any, names: Names) -> Callable[[Datum], Datum]:
    wanted = ("integer",) if mutator == "%=" else ("integer", "real")
    if kind.value is not None or kind.key["type"] not in wanted:
        raise Failure("syntax error")
    (operand,) = parse(Type({"type": kind.key["type"]}), arg, names)

    def mutate(datum: Datum) -> Datum:
        if datum and operand == 0 and mutator in ("/=", "%="):
            raise Failure("domain error")
        results = [ARITHMETIC[mutator](atom, operand) for atom in datum]
        if not all(math.isfinite(x) if isinstance(x, float) else x in INT64 for x in results):
            raise Failure("range error")
        for atom in results:
            check_atom(kind.key, atom)
        if len(set(results)) < len(results):
            raise Failure("constraint violation")
        return frozenset(results)

    return mutate


def inserting(kind: Type, arg: Any, names: Names) -> Callable[[Datum], Datum]:
    addition = parse(kind._replace(n_min=0), arg, names)
    if kind.value is None:
        return lambda datum: datum | addition
    return lambda datum: datum | {pair for pair in addition if pair[0] not in keys_of(datum)}


def deleting(kind: Type, arg: Any, names: Names) -> Callable[[Datum], Datum]:
    any_size = kind._replace(n_min=0, n_max=UNLIMITED)
    try:
        removal = parse(any_size, arg, names)
        return lambda datum: datum - removal
    except Failure:
        # What is no map may be a set of keys; the error is about the latter.
        keys = parse(any_size._replace(value=None), arg, names)
        return lambda datum: frozenset(pair for pair in datum if pair[0] not in keys)


def sized(kind: Type, compute: Callable[[Datum], Datum]) -> Callable[[Datum], Datum]:
    def mutate(datum: Datum) -> Datum:
        result = compute(datum)
        if not kind.n_min <= len(result) <= kind.n_max:
            raise Failure("constraint violation")
        return result

    return mutate


# Operations


class Transaction:
    """One request under way on a copy of `before`."""

    def __init__(self, schema: Schema, before: State, new_uuid: Callable[[], str]) -> None:
        self.schema = schema
        self.before = before
        self.state = {name: dict(rows) for name, rows in before.items()}
        self.new_uuid = new_uuid
        self.names: dict[str, str] = {}
        self.created: set[str] = set()

    def uuid(self, name: str) -> str:
        if name not in self.names:
            self.names[name] = self.new_uuid()
        return self.names[name]

    def run(self, operation: Any) -> dict[str, Any]:
        execute = getattr(self, f"execute_{operation['op']}", None)
        if execute is None or operation.get("table") not in (None, *self.schema):
            raise Failure("syntax error")
        result: dict[str, Any] = execute(operation)
        return result

    def parse_row(self, table: Table, json: Any) -> Row:
        row = {}
        for name, value in json.items():
            if name not in table.columns:
                raise Failure("unknown column")
            row[name] = parse(table.columns[name].type, value, self.uuid)
        return row

    def found(self, operation: Any) -> list[Row]:
        """The rows that the operation's "where" is about."""
        table = self.schema[operation["table"]]
        tests = parse_condition(table, operation["where"], self.uuid)
        rows = self.state[operation["table"]].values()
        return [row for row in rows if all(test(row) for test in tests)]

    def put(self, operation: Any, row: Row) -> None:
        (uuid,) = row["_uuid"]
        self.state[operation["table"]][uuid] = row

    def execute_insert(self, operation: Any) -> dict[str, Any]:
        name, table = operation["table"], self.schema[operation["table"]]
        uuid = operation.get("uuid")
        if uuid in self.state[name] or uuid in self.before[name]:
            raise Failure("duplicate uuid")
        if "uuid-name" in operation:
            if operation["uuid-name"] in self.created:
                raise Failure("duplicate uuid-name")
            self.created.add(operation["uuid-name"])
            if uuid is not None:
                self.names[operation["uuid-name"]] = uuid
            uuid = self.uuid(operation["uuid-name"])
        uuid = uuid or self.new_uuid()
        row = self.parse_row(table, operation["row"])
        for column, (kind, _, _) in table.columns.items():
            if column not in row:
                row[column] = kind.default
                for element in kind.default:
                    for base, atom in atoms_of(kind, element):
                        check_atom(base, atom)
        self.put(operation, row | {"_uuid": frozenset([uuid])})
        return {"uuid": ["uuid", uuid]}

    def execute_select(self, operation: Any) -> dict[str, Any]:
        rows = self.found(operation)
        columns = operation.get("columns", self.schema[operation["table"]].columns)
        shown = [{name: row[name] for name in columns} for row in rows]
        if "_uuid" not in columns:
            shown = [row for n, row in enumerate(shown) if row not in shown[:n]]
        return {"rows": shown}

    def execute_update(self, operation: Any) -> dict[str, Any]:
        table = self.schema[operation["table"]]
        row = self.parse_row(table, operation["row"])
        if not all(table.columns[name].mutable for name in row):
            raise Failure("constraint violation")
        rows = self.found(operation)
        for old in rows:
            self.put(operation, old | row)
        return {"count": len(rows)}

    def execute_mutate(self, operation: Any) -> dict[str, Any]:
        table = self.schema[operation["table"]]
        mutations = [parse_mutation(table, m, self.uuid) for m in operation["mutations"]]
        rows = self.found(operation)
        failures: set[str] = set()
        for old in rows:
            row = dict(old)
            try:
                for name, mutate in mutations:
                    row[name] = mutate(row[name])
            except Failure as failure:
                failures |= failure.tags
            self.put(operation, row)
        if failures:
            raise Failure(*failures)
        return {"count": len(rows)}

    def execute_delete(self, operation: Any) -> dict[str, Any]:
        rows = self.found(operation)
        for row in rows:
            (uuid,) = row["_uuid"]
            del self.state[operation["table"]][uuid]
        return {"count": len(rows)}

    def execute_wait(self, operation: Any) -> dict[str, Any]:
        table, columns = self.schema[operation["table"]], operation["columns"]
        actual = [{name: row[name] for name in columns} for row in self.found(operation)]
        defaults = {name: column.type.default for name, column in table.columns.items()}
        rows = [defaults | self.parse_row(table, row) for row in operation["rows"]]
        expected = [{name: row[name] for name in columns} for row in rows]
        same = all(row in expected for row in actual) and all(row in actual for row in expected)
        if same != (operation["until"] == "=="):
            raise Failure("timed out")
        return {}

    def execute_comment(self, operation: Any) -> dict[str, Any]:
        return {}

    def execute_commit(self, operation: Any) -> dict[str, Any]:
        return {}

    def execute_abort(self, operation: Any) -> dict[str, Any]:
        raise Failure("aborted")

    def execute_assert(self, operation: Any) -> dict[str, Any]:
        raise Failure("not owner")


def transact(
    schema: Schema, before: State, operations: list[Any], new_uuid: Callable[[], str]
) -> tuple[list[dict[str, Any]], Failure | None, State]:
    """The results of the operations that worked, what failed if any did, and the state after."""
    transaction = Transaction(schema, before, new_uuid)
    results: list[dict[str, Any]] = []
    try:
        for operation in operations:
            results.append(transaction.run(operation))
        return results, None, completed(schema, transaction.state)
    except Failure as failure:
        return results, failure, before


# Commit


def atoms_of(kind: Type, element: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """The base type and the atom of each part of an element."""
    if kind.value is None:
        yield kind.key, element
    else:
        yield from zip((kind.key, kind.value), element, strict=True)


def references(schema: Schema, state: State, ref_type: str) -> Iterator[tuple[str, str, str, str]]:
    """The table and row that refer, and those referred to, for each reference of the type."""
    for name, rows in state.items():
        for uuid, row in rows.items():
            for column, (kind, _, _) in schema[name].columns.items():
                for element in row[column]:
                    for base, atom in atoms_of(kind, element):
                        if "refTable" in base and base.get("refType", "strong") == ref_type:
                            yield name, uuid, base["refTable"], atom


def completed(schema: Schema, state: State) -> State:
    """What a commit makes of `state`."""
    for _, uuid, target, target_uuid in references(schema, state, "strong"):
        # A reference from a row to itself does not count, neither for nor against it.
        if target_uuid not in state[target] and target_uuid != uuid:
            raise Failure("referential integrity violation")
    state = without_dead_references(schema, without_garbage(schema, state))
    for name, table in schema.items():
        if len(state[name]) > table.max_rows:
            raise Failure("constraint violation")
        for index in table.indexes:
            keys = {tuple(row[column] for column in index) for row in state[name].values()}
            if len(keys) < len(state[name]):
                raise Failure("constraint violation")
    return state


def without_garbage(schema: Schema, state: State) -> State:
    """`state` without the rows of non-root tables that nothing else refers to."""
    while True:
        wanted = {
            (target, target_uuid)
            for _, uuid, target, target_uuid in references(schema, state, "strong")
            if uuid != target_uuid
        }
        kept = {
            name: {u: r for u, r in rows.items() if schema[name].is_root or (name, u) in wanted}
            for name, rows in state.items()
        }
        if kept == state:
            return state
        state = kept


def without_dead_references(schema: Schema, state: State) -> State:
    """`state` without the weak references to rows that do not exist."""

    def is_alive(base: dict[str, Any], atom: Any) -> bool:
        return base.get("refType") != "weak" or atom in state[base["refTable"]]

    def living(kind: Type, datum: Datum) -> Datum:
        kept = frozenset(e for e in datum if all(is_alive(*part) for part in atoms_of(kind, e)))
        if len(kept) < kind.n_min:
            raise Failure("constraint violation")
        return kept

    return {
        name: {
            uuid: {c: living(schema[name].columns[c].type, datum) for c, datum in row.items()}
            for uuid, row in rows.items()
        }
        for name, rows in state.items()
    }
