"""Random schemas, and random transactions on a given state of a database.

Values come from a small world, so that indexes collide, conditions match and rows are found
again.  Most of what comes out is valid; `seldom` says where it is not.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

from model.naive import (
    ARITHMETIC,
    COMPARE,
    Datum,
    Failure,
    Schema,
    State,
    Table,
    Type,
    atoms_of,
    base_of,
    check_atom,
)

Draw = Any

WORLD: dict[str, list[Any]] = {
    "integer": [0, 1, 2, 3, -1, 2**62],
    "real": [0.0, 0.5, 1.0, -2.0, 3.0],
    "boolean": [False, True],
    "string": ["", "a", "b", "ab", "}{", 'é"\\'],
    "uuid": [f"{n:08x}-1111-4111-8111-111111111111" for n in range(3)],
}
BOUNDED: dict[str, list[dict[str, Any]]] = {
    "integer": [{"minInteger": 0}, {"maxInteger": 3}, {"minInteger": 1, "maxInteger": 3}],
    "real": [{"minReal": 0.0}, {"maxReal": 1.0}],
    "boolean": [{}],
    "string": [{"maxLength": 1}, {"minLength": 1, "maxLength": 2}],
}
ENUMS: dict[str, list[Any]] = {
    "integer": [0, 1, 3],
    "real": [0.5, 3.0],
    "boolean": [True],
    "string": ["a", "b"],
}
# The same in every table, so that rows of different tables may have the same.
EXPLICIT_UUIDS = [f"{n:08x}-2222-4222-8222-222222222222" for n in range(3)]
DANGLING = "99999999-9999-4999-8999-999999999999"
COMMENTS = ["", "x", "two\nlines", "compacting database online"]
FUNCTIONS = ["==", "!=", "includes", "excludes"]
JUNK = [None, "junk", 17, 0.25, True, ["set", [1, 1]], ["map", []], ["uuid", "x"], {}, ["set"]]


def seldom(draw: Draw, one_in: int = 24) -> bool:
    """True once in so many times."""
    drawn: int = draw(below(one_in))
    return drawn == one_in - 1


def pick(draw: Draw, options: Any) -> Any:
    options = list(options)
    return options[draw(below(len(options)))]


@cache
def below(n: int) -> st.SearchStrategy[int]:
    return st.integers(0, n - 1)


# Schemas

FORMS = ["scalar", "optional", "set", "set", "map", "map"]


def base_types(draw: Draw, tables: Sequence[str]) -> Any:
    kind = pick(draw, ["integer", "string", "real", "boolean", "uuid", "uuid", "uuid"])
    form = pick(draw, ["plain", "plain", "bounded", "enum"])
    if kind == "uuid":
        if not tables or form == "plain":
            return kind
        ref_type = pick(draw, ["strong", "weak"])
        return {"type": kind, "refTable": pick(draw, tables), "refType": ref_type}
    if form == "bounded":
        return {"type": kind, **pick(draw, BOUNDED[kind])}
    if form == "enum":
        return {"type": kind, "enum": ["set", ENUMS[kind]]}
    return kind


@st.composite
def types(draw: Draw, tables: Sequence[str] = (), forms: Sequence[str] = FORMS) -> Any:
    """A `<type>` of one of `forms`, which may refer to `tables`."""
    form = pick(draw, forms)
    key = base_types(draw, tables)
    if form == "scalar":
        return key if isinstance(key, str) else {"key": key}
    if form == "optional":
        return {"key": key, "min": 0, "max": 1}
    n_max = pick(draw, [1, 2, 3, "unlimited", "unlimited"])
    json = {"key": key, "min": pick(draw, [0, 0, 0, 1]), "max": n_max}
    if form == "map":
        # A weak reference that goes takes a pair away; the C server does not notice that a strong
        # one in the same pair goes too, so that there is nothing to agree on.
        plain = isinstance(key, dict) and "refTable" in key
        json["value"] = base_types(draw, [] if plain else tables)
    return json


@st.composite
def columns(draw: Draw, tables: list[str]) -> Any:
    json: dict[str, Any] = {"type": draw(types(tables))}
    needs_target = "refTable" in str(json) and type_min(json["type"]) > 0
    # The log has no ephemeral columns: a default that refers to nothing could not be read back.
    if not needs_target and seldom(draw, 5):
        json["ephemeral"] = True
    if seldom(draw, 8):
        json["mutable"] = False
    return json


def type_min(json: Any) -> int:
    minimum: int = 1 if isinstance(json, str) else json.get("min", 1)
    return minimum


@st.composite
def schemas(draw: Draw) -> Any:
    """A `<database-schema>`."""
    names = ["A", "B", "C"][: draw(st.integers(1, 3))]
    return {"name": "db", "tables": {name: draw(_tables(names)) for name in names}}


@st.composite
def free_schemas(draw: Draw) -> Any:
    """A `<database-schema>` that refuses hardly a transaction, for what follows from them."""
    tables = {}
    for name in ["A", "B"]:
        kinds = [free(draw(types(forms=[form]))) for form in ("scalar", "optional", "set", "map")]
        kinds.append({"key": {"type": "uuid", "refTable": "A", "refType": "weak"}, "min": 0})
        tables[name] = {"columns": {f"c{n}": {"type": kind} for n, kind in enumerate(kinds)}}
    return {"name": "db", "tables": tables}


def free(kind: Any) -> Any:
    """The type `kind` with no constraints on its atoms and no least number of them."""
    if isinstance(kind, str):
        return kind
    plain = {name: kind[name] for name in kind.keys() & {"key", "value", "max"}}
    bases = {name: base_of(kind[name])["type"] for name in kind.keys() & {"key", "value"}}
    scalar = {} if kind.keys() == {"key"} else {"min": 0}
    return plain | bases | scalar


@st.composite
def _tables(draw: Draw, names: list[str]) -> Any:
    own = {f"c{n}": draw(columns(names)) for n in range(draw(st.integers(1, 5)))}
    json: dict[str, Any] = {"columns": own, "isRoot": pick(draw, [True, True, False])}
    lasting = [name for name, column in own.items() if not column.get("ephemeral")]
    if lasting and pick(draw, [False, True]):
        index = draw(st.lists(st.sampled_from(lasting), min_size=1, max_size=2, unique=True))
        json["indexes"] = [index]
    if seldom(draw, 5):
        json["maxRows"] = pick(draw, [4, 3, 2])
    return json


# Transactions


class Writer:
    """Writes the operations of one transaction on `state`.

    `names` has the named-uuids of the rows that it inserts, by table, `written` the values.
    """

    def __init__(self, draw: Draw, schema: Schema, state: State) -> None:
        self.draw = draw
        self.schema = schema
        self.state = state
        self.names: dict[str, list[str]] = {}
        self.written: dict[str, list[Any]] = {}

    def atom(self, base: dict[str, Any]) -> Any:
        kind = base["type"]
        if seldom(self.draw, 60):
            return pick(self.draw, JUNK)
        if "refTable" in base:
            return self.reference(base["refTable"])
        if kind == "uuid":
            return ["uuid", pick(self.draw, WORLD[kind])]
        if seldom(self.draw):
            return pick(self.draw, WORLD[kind])
        return pick(self.draw, [atom for atom in WORLD[kind] if is_allowed(base, atom)])

    def reference(self, table: str) -> Any:
        """A reference to a row that exists, will exist in this transaction, or does not exist."""
        options: list[Any] = [["uuid", uuid] for uuid in self.state[table]]
        options += [["named-uuid", name] for name in self.names.get(table, [])]
        if not options or seldom(self.draw, 40):
            options = [["uuid", DANGLING], ["named-uuid", "nobody"]]
        return pick(self.draw, options)

    def datum(self, kind: Type, n_min: int | None = None) -> Any:
        if seldom(self.draw, 60):
            return pick(self.draw, JUNK)
        if kind.is_scalar:
            return self.atom(kind.key)
        low = kind.n_min if n_min is None else n_min
        size = self.draw(st.integers(low, max(low, min(kind.n_max, 3))))
        keys = [self.atom(kind.key) for _ in range(size)]
        if not seldom(self.draw, 40):
            keys = [key for n, key in enumerate(keys) if key not in keys[:n]]
        if kind.value is not None:
            return ["map", [[key, self.atom(kind.value)] for key in keys]]
        bare = len(keys) == 1 and pick(self.draw, [False, True])
        return keys[0] if bare else ["set", keys]

    def row(self, table: Table, *, changing: bool = False) -> Any:
        columns = [(name, column) for name, column in table.columns.items() if name != "_uuid"]
        names = [name for name, column in columns if column.mutable or not changing]
        needed = [] if changing else [n for n in names if needs_value(table.columns[n].type)]
        chosen = needed + [n for n in names if n not in needed and pick(self.draw, [True, False])]
        if seldom(self.draw, 60):
            chosen.append(pick(self.draw, table.columns))
        row = {name: self.datum(table.columns[name].type) for name in chosen}
        self.written.setdefault(table.name, []).append(row)
        return row | ({"nothing": 1} if seldom(self.draw, 60) else {})

    def where(self, name: str) -> Any:
        table = self.schema[name]
        keys = ["key"] * 2 * len(table.indexes)
        form = pick(self.draw, ["uuid", "uuid", "uuid", "all", "clauses", *keys])
        if form == "key":
            # What an earlier operation wrote is found by its index before the commit.
            defaults = {n: to_json(c.type, c.type.default) for n, c in table.columns.items()}
            row = defaults | pick(self.draw, [*self.written.get(name, []), {}])
            return [[column, "==", row[column]] for column in table.indexes[0]]
        if form == "all":
            return []
        if form == "uuid":
            return [["_uuid", "==", self.reference(name)]]
        return [self.clause(name, FUNCTIONS) for _ in range(1 + self.draw(below(2)))]

    def condition(self, name: str) -> Any:
        """The "where" of a monitor: often of the functions for which there is an index."""
        functions = ["==", "includes"] if pick(self.draw, [True, True, False]) else FUNCTIONS
        size = pick(self.draw, [1, 1, 2, 2, 0])
        return [self.clause(name, functions) for _ in range(size)]

    def clause(self, table_name: str, functions: list[str]) -> Any:
        table, rows = self.schema[table_name], self.state[table_name]
        if seldom(self.draw, 12):
            return pick(self.draw, [True, False])
        name = pick(self.draw, table.columns)
        kind = table.columns[name].type
        function = pick(self.draw, functions)
        ordered = kind.key["type"] in ("integer", "real") and kind.value is None and kind.n_max == 1
        if functions is FUNCTIONS and ordered:
            function = pick(self.draw, [function, *COMPARE])
        if seldom(self.draw, 60):
            name, function = pick(self.draw, [(name, "<"), (name, "like"), ("nothing", "==")])
        present = [row[name] for row in rows.values() if row.get(name)]
        if present and pick(self.draw, [True, True, False]):
            return [name, function, self.known(kind, pick(self.draw, present))]
        n_min = {"includes": 0, "excludes": 0}.get(function, 1 if function in COMPARE else None)
        return [name, function, self.datum(kind, n_min)]

    def known(self, kind: Type, datum: Datum) -> Any:
        """A datum that a row has, or a part of it."""
        part = sorted(datum)[: 3 if pick(self.draw, [True, False]) else 1]
        return to_json(kind, frozenset(part))

    def mutation(self, table: Table) -> Any:
        name = pick(self.draw, [n for n in table.columns if n != "_uuid"])
        kind = table.columns[name].type
        numeric = kind.value is None and kind.key["type"] in ("integer", "real")
        options = [] if kind.is_scalar else ["insert", "insert", "delete"]
        mutator = pick(self.draw, (options + list(ARITHMETIC) * numeric) or ["insert"])
        if seldom(self.draw, 60):
            name, mutator = pick(self.draw, [(name, "^="), (name, "+="), ("nothing", "insert")])
        if mutator in ARITHMETIC:
            # Divided by nothing that leads to more digits than are shown.
            operands = [1, 0, 2, -1, 3] if kind.key["type"] == "integer" else [1.0, 0.0, 0.5, -2.0]
            return [name, mutator, pick(self.draw, operands)]
        if mutator == "delete" and kind.value is not None and pick(self.draw, [False, True]):
            kind = kind._replace(value=None)
        return [name, mutator, self.datum(kind, 0)]

    def insert(self, name: str, names: list[str]) -> Any:
        json: dict[str, Any] = {"op": "insert", "table": name}
        if seldom(self.draw, 6):
            json["uuid"] = pick(self.draw, EXPLICIT_UUIDS)
        if names:
            json["uuid-name"] = names.pop(0)
        return json | {"row": self.row(self.schema[name])}

    def update(self, name: str) -> Any:
        row = self.row(self.schema[name], changing=True)
        return {"op": "update", "table": name, "where": self.where(name), "row": row}

    def mutate(self, name: str) -> Any:
        table = self.schema[name]
        mutations = [self.mutation(table) for _ in range(self.draw(st.integers(1, 2)))]
        json = {"op": "mutate", "table": name, "where": self.where(name)}
        return json | {"mutations": mutations}

    def delete(self, name: str) -> Any:
        return {"op": "delete", "table": name, "where": self.where(name)}

    def select(self, name: str) -> Any:
        json = {"op": "select", "table": name, "where": self.where(name)}
        return json | ({"columns": self.some_columns(name)} if pick(self.draw, [0, 1]) else {})

    def wait(self, name: str) -> Any:
        return {
            "op": "wait",
            "table": name,
            "timeout": 0,
            "where": self.where(name),
            "columns": self.some_columns(name),
            "until": pick(self.draw, ["!=", "!=", "=="]),
            "rows": [self.row(self.schema[name]) for _ in range(self.draw(st.integers(0, 2)))],
        }

    def some_columns(self, name: str) -> list[str]:
        names = st.sampled_from(list(self.schema[name].columns))
        chosen: list[str] = self.draw(st.lists(names, unique=True, max_size=3))
        return chosen

    def other(self) -> Any:
        operations = [{"op": "comment", "comment": comment} for comment in COMMENTS]
        operations += [{"op": "commit", "durable": True}, {"op": "nothing"}]
        operations += [{"op": "abort"}, {"op": "assert", "lock": "l"}]
        operations += [{"op": "delete", "table": "nothing", "where": []}]
        return pick(self.draw, operations)

    def operations(self) -> list[Any]:
        plan = []
        kinds = ["insert"] * 4 + ["update", "mutate"] * 3 + ["delete", "delete", "select"]
        full = {name: rows for name, rows in self.state.items() if rows}
        for number in range(1 + self.draw(below(4))):
            kind = pick(self.draw, kinds) if full else "insert"
            table = pick(self.draw, self.schema if kind == "insert" else full)
            if seldom(self.draw, 10):
                kind = pick(self.draw, ["other", "wait", "other"])
            if kind == "insert" and pick(self.draw, [True, True, False]):
                name = "n0" if seldom(self.draw, 30) else f"n{number}"
                self.names.setdefault(table, []).append(name)
            plan.append((kind, table))
        names = {table: list(own) for table, own in self.names.items()}
        return [self.operation(kind, table, names) for kind, table in plan]

    def operation(self, kind: str, table: str, names: dict[str, list[str]]) -> Any:
        if kind == "insert":
            return self.insert(table, names.get(table, []))
        if kind == "other":
            return self.other()
        return getattr(self, kind)(table)


def to_json(kind: Type, datum: Datum) -> Any:
    """The `<value>` of `datum`."""

    def atom_json(atom: Any, base: dict[str, Any]) -> Any:
        return ["uuid", atom] if base["type"] == "uuid" else atom

    if kind.value is None:
        return ["set", [atom_json(atom, kind.key) for atom in datum]]
    return ["map", [[atom_json(k, kind.key), atom_json(v, kind.value)] for k, v in datum]]


def needs_value(kind: Type) -> bool:
    """Whether the default of the type is refused, or refers to nothing."""
    return any(
        "refTable" in base or not is_allowed(base, atom)
        for element in kind.default
        for base, atom in atoms_of(kind, element)
    )


def is_allowed(base: dict[str, Any], atom: Any) -> bool:
    try:
        check_atom(base, atom)
    except Failure:
        return False
    return True


@st.composite
def transactions(draw: Draw, schema: Schema, state: State) -> Any:
    """The operations of a "transact" on a database with the content `state`."""
    return Writer(draw, schema, state).operations()
