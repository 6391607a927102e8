"""Random schemas, and random transactions on them, from a seed.

Rows get explicit uuids from a small pool, so that the same uuid means the same row on every server
that is given the transactions, and so that references and conditions find something.
"""

from __future__ import annotations

import random
from typing import Any

POOL = 6
UNLIMITED = "unlimited"

SCALARS: dict[str, list[Any]] = {
    "integer": [0, 1, 2, 3, 5, -1],
    "real": [0, 0.5, 1, 2.5, -1.5],
    "boolean": [True, False],
    "string": ["", "a", "b", "c d", "\u00e9"],
}
CONSTRAINTS: dict[str, list[dict[str, Any]]] = {
    "integer": [{"minInteger": 0}, {"maxInteger": 4}, {"enum": ["set", [0, 1, 2]]}],
    "real": [{"maxReal": 2}, {"minReal": -1, "maxReal": 1}],
    "boolean": [],
    "string": [{"maxLength": 1}, {"enum": ["set", ["", "a", "b"]]}],
}
ARITHMETIC = ("+=", "-=", "*=")
ORDERINGS = ("<", "<=", ">", ">=")


class RandomDatabase:
    """A schema, and a source of transactions and monitors for it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = [f"T{number}" for number in range(self.random.randint(2, 4))]
        self.tables = {name: self.table(number) for number, name in enumerate(self.names)}
        self.schema = {"name": "db", "version": "1.0.0", "tables": self.tables}

    # The schema

    def table(self, number: int) -> dict[str, Any]:
        columns = {f"c{n}": {"type": self.type()} for n in range(self.random.randint(2, 5))}
        table: dict[str, Any] = {"columns": columns}
        if number == 0 or self.random.random() < 0.5:
            table["isRoot"] = True
        if self.random.random() < 0.5:
            table["indexes"] = [self.random.sample(sorted(columns), self.random.randint(1, 2))]
        if self.random.random() < 0.2:
            table["maxRows"] = self.random.randint(2, 4)
        return table

    def type(self) -> Any:
        key = self.base()
        form = self.random.choice(("scalar", "scalar", "optional", "set", "map"))
        if form == "scalar":
            return {"key": key}
        low = self.random.choice((0, 0, 0, 1)) if "refTable" not in key else 0
        if form == "optional":
            return {"key": key, "min": 0}
        bounds = {"min": low, "max": self.random.choice((2, 3, UNLIMITED))}
        return {"key": key, **({"value": self.base()} if form == "map" else {}), **bounds}

    def base(self) -> dict[str, Any]:
        kind = self.random.choice((*SCALARS, "uuid", "uuid"))
        if kind == "uuid":
            strength = self.random.choice(("strong", "weak"))
            return {"type": kind, "refTable": self.random.choice(self.names), "refType": strength}
        limits = self.random.choice([{}, {}, *CONSTRAINTS[kind]])
        return {"type": kind, **limits}

    # Values

    def uuid(self, table: str) -> str:
        number = self.random.randrange(POOL)
        return f"{self.names.index(table):08x}-0000-4000-8000-{number:012x}"

    def atom(self, base: dict[str, Any]) -> Any:
        if base["type"] == "uuid":
            return ["uuid", self.uuid(base["refTable"])]
        return self.random.choice(SCALARS[base["type"]])

    def datum(self, type: dict[str, Any]) -> Any:
        if "max" not in type and "min" not in type:
            return self.atom(type["key"])
        keys = {str(key): key for key in (self.atom(type["key"]) for _ in range(self.size(type)))}
        if "value" in type:
            return ["map", [[key, self.atom(type["value"])] for key in keys.values()]]
        return ["set", list(keys.values())]

    def size(self, type: dict[str, Any]) -> int:
        most = type.get("max", 1)
        return self.random.randint(0, 3 if most == UNLIMITED else most)

    # Operations

    def transaction(self) -> list[dict[str, Any]]:
        makers = (self.insert, self.insert, self.update, self.mutate, self.delete, self.select)
        n_operations = self.random.randint(1, 5)
        return [self.random.choice(makers)(self.any_table()) for _ in range(n_operations)]

    def any_table(self) -> str:
        return self.random.choice(self.names)

    def row(self, table: str) -> dict[str, Any]:
        columns = self.columns(table)
        chosen = self.random.sample(sorted(columns), self.random.randint(0, len(columns)))
        return {name: self.datum(columns[name]["type"]) for name in chosen}

    def columns(self, table: str) -> dict[str, Any]:
        columns: dict[str, Any] = self.tables[table]["columns"]
        return columns

    def insert(self, table: str) -> dict[str, Any]:
        return {"op": "insert", "table": table, "row": self.row(table), "uuid": self.uuid(table)}

    def update(self, table: str) -> dict[str, Any]:
        return {"op": "update", "table": table, "where": self.where(table), "row": self.row(table)}

    def delete(self, table: str) -> dict[str, Any]:
        return {"op": "delete", "table": table, "where": self.where(table)}

    def select(self, table: str) -> dict[str, Any]:
        columns = ["_uuid", *self.columns(table)]
        if self.random.random() < 0.3:
            columns.remove("_uuid")
        return {"op": "select", "table": table, "where": self.where(table), "columns": columns}

    def mutate(self, table: str) -> dict[str, Any]:
        mutations = [self.mutation(table) for _ in range(self.random.randint(1, 2))]
        where = self.where(table)
        return {"op": "mutate", "table": table, "where": where, "mutations": mutations}

    def mutation(self, table: str) -> list[Any]:
        name, column = self.random.choice(sorted(self.columns(table).items()))
        type = column["type"]
        is_number = type["key"]["type"] in ("integer", "real") and "value" not in type
        if is_number and self.random.random() < 0.5:
            # Not by zero: a negative number times zero ends the C server.
            return [name, self.random.choice(ARITHMETIC), self.random.choice((1, 2))]
        value = self.datum(type)
        if "value" in type and self.random.random() < 0.3:
            return [name, "delete", ["set", [pair[0] for pair in value[1]]]]
        return [name, self.random.choice(("insert", "delete")), value]

    # Conditions

    def where(self, table: str) -> list[Any]:
        n_clauses = self.random.choice((0, 1, 1, 1, 2))
        return [self.clause(table) for _ in range(n_clauses)]

    def clause(self, table: str) -> list[Any]:
        if self.random.random() < 0.4:
            return ["_uuid", self.random.choice(("==", "==", "!=")), ["uuid", self.uuid(table)]]
        name, column = self.random.choice(sorted(self.columns(table).items()))
        functions = ["==", "!=", "includes", "excludes"]
        if column["type"]["key"]["type"] in ("integer", "real") and self.random.random() < 0.4:
            functions = list(ORDERINGS)
        return [name, self.random.choice(functions), self.datum(column["type"])]

    def monitor_requests(self, with_conditions: bool) -> dict[str, Any]:
        requests = {}
        for table in self.names:
            columns = sorted(self.columns(table))
            requests[table] = {"columns": columns[: self.random.randint(1, len(columns))]}
            if not with_conditions:
                # The C server may end when monitors of the same columns have other conditions.
                requests[table]["columns"].append("_uuid")
            elif self.random.random() < 0.7:
                requests[table]["where"] = self.condition(table)
        return requests

    def condition(self, table: str) -> list[Any]:
        """The condition of a monitor.

        Not on `_uuid`, since the C server then forgets to tell of new rows; and with few clauses,
        since one that is not valid has the whole condition refused.
        """
        clauses = [self.clause(table) for _ in range(self.random.randint(1, 2))]
        return [clause for clause in clauses if clause[0] != "_uuid"] or [True]
