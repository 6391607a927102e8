"""A database and its naive model, which are given the same and have to agree."""

from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import strategies as st

from model import naive
from model.bookkeeping import check, state_of
from model.naive import Failure, Schema
from model.strategies import schemas, transactions
from ovncp.ovsdb.database import Commit, Database, Settings
from ovncp.ovsdb.schema import DatabaseSchema

DATE = 1_700_000_000_000
START_ID = "11111111-2222-4333-8444-555555555555"
ALL_HISTORY = Settings(10**9)


@dataclass
class Client:
    """Who may do everything and holds no lock."""

    read_only: bool = False
    role: str = ""
    identity: str | None = None

    def owns_lock(self, name: str) -> bool:
        return False


@dataclass
class Uuids:
    """A source of uuids in order."""

    transaction: int = 0
    last: int = 0

    def __call__(self) -> str:
        self.last += 1
        return f"{self.transaction:08x}-0000-4000-8000-{self.last:012x}"


def new_database(schema: Any, settings: Settings = ALL_HISTORY) -> Database:
    """An empty database of the `<database-schema>` `schema`."""
    return Database(DatabaseSchema.from_json(schema), Uuids(), settings, START_ID)


@dataclass
class Pair:
    """`state` is the model's, after `database`'s latest transaction, settled or not."""

    json: Any
    settings: Settings = ALL_HISTORY
    schema: Schema = field(init=False)

    def __post_init__(self) -> None:
        self.schema = naive.schema_of(self.json)
        self.database = new_database(self.json, self.settings)
        self.state = naive.empty(self.schema)
        self.n_transactions = 0

    def transact(self, operations: list[Any]) -> Commit | None:
        """Execute `operations` on both, and compare the results and the states."""
        self.n_transactions += 1
        operations = orjson.loads(orjson.dumps(operations))
        self.database.new_uuid = Uuids(self.n_transactions)
        before = self.state
        outcome = self.database.transact(operations, Client(), now_msec=DATE)
        results, failure, self.state = naive.transact(
            self.schema, before, operations, Uuids(self.n_transactions)
        )
        shown = orjson.loads(orjson.dumps(outcome.results))
        self._compare(operations, shown, results, failure)
        assert state_of(self.database) == self.state
        assert (outcome.commit is None) == (before == self.state)
        check(self.database)
        return outcome.commit

    def _compare(
        self,
        operations: list[Any],
        shown: list[Any],
        results: list[Any],
        failure: Failure | None,
    ) -> None:
        for operation, ours, model in zip(operations, shown, results, strict=False):
            assert self._comparable(operation, ours) == self._comparable(operation, model)
        rest = shown[len(results) :]
        if failure is None:
            assert rest == []
            return
        assert rest, failure.tags
        assert rest[0]["error"] in failure.tags, (rest[0], failure.tags)
        assert rest[1:] == [None] * (len(operations) - len(results) - 1)

    def _comparable(self, operation: Any, result: Any) -> Any:
        if "rows" not in result:
            return result
        types = {n: c.type for n, c in self.schema[operation["table"]].columns.items()}
        rows = [
            frozenset(
                (name, datum if isinstance(datum, frozenset) else _datum(types[name], datum))
                for name, datum in row.items()
                if name != "_version"
            )
            for row in result["rows"]
        ]
        return sorted(rows, key=lambda row: sorted(map(repr, map(_stable, row))))


def _datum(kind: naive.Type, json: Any) -> naive.Datum:
    return naive.parse(kind, json, str)


def _stable(item: tuple[str, naive.Datum]) -> tuple[str, list[str]]:
    return item[0], sorted(map(repr, item[1]))


def draw_pair(data: Any, settings: Settings = ALL_HISTORY) -> Pair:
    """A pair of a random schema."""
    return Pair(data.draw(schemas(), label="schema"), settings)


def draw_transaction(data: Any, pair: Pair) -> Commit | None:
    """A random transaction on `pair`."""
    return pair.transact(data.draw(transactions(pair.schema, pair.state), label="transact"))


def draw_length(data: Any, most: int) -> range:
    """How many transactions: most of the time many, since the first ones find little."""
    return range(most - data.draw(st.integers(0, most - 1)))
