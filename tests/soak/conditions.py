"""Random conditions, each as JSON and as a test of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from soak.values import NOBODY, Items, Row, shown

Where = tuple[list[Any], Callable[[str, Row], bool]]


def draw_where(draw: random.Random, items: Items) -> Where:
    """A condition on Item, as JSON and as a test."""
    clauses: list[Any] = []
    tests: list[Callable[[str, Row], bool]] = []
    for _ in range(draw.choice([0, 1, 1, 2, 30])):
        clause, test = draw.choice(CLAUSES)(draw, items)
        clauses.append(clause)
        tests.append(test)
    return clauses, lambda key, row: not tests or any(test(key, row) for test in tests)


def _k(draw: random.Random, items: Items) -> Any:
    k = draw.randrange(20)
    return ["k", "==", k], lambda key, row: row["k"] == k


def _kind(draw: random.Random, items: Items) -> Any:
    kind = f"kind {draw.randrange(4)}"
    return ["kind", "==", kind], lambda key, row: row["kind"] == kind


def _other_kind(draw: random.Random, items: Items) -> Any:
    kind = f"kind {draw.randrange(4)}"
    return ["kind", "!=", kind], lambda key, row: row["kind"] != kind


def _less(draw: random.Random, items: Items) -> Any:
    k = draw.randrange(20)
    return ["k", "<", k], lambda key, row: row["k"] < k


def _uuid(draw: random.Random, items: Items) -> Any:
    wanted = draw.choice(list(items)) if items else NOBODY
    return ["_uuid", "==", ["uuid", wanted]], lambda key, row: key == wanted


def _includes(column: str) -> Callable[[random.Random, Items], Any]:
    def clause(draw: random.Random, items: Items) -> Any:
        rows = [row for row in items.values() if row[column]]
        known = sorted(draw.choice(rows)[column]) if rows else []
        part = frozenset(draw.sample(known, min(len(known), draw.randint(1, 2))))
        return [column, "includes", shown(column, part)], lambda key, row: part <= row[column]

    return clause


def _equals(column: str) -> Callable[[random.Random, Items], Any]:
    def clause(draw: random.Random, items: Items) -> Any:
        rows = list(items.values())
        wanted = draw.choice(rows)[column] if rows else frozenset()
        return [column, "==", shown(column, wanted)], lambda key, row: row[column] == wanted

    return clause


def _literal(draw: random.Random, items: Items) -> Any:
    value = draw.choice([True, False])
    return value, lambda key, row: value


CLAUSES = [_k, _kind, _other_kind, _less, _uuid, _literal]
CLAUSES += [_includes(column) for column in ("tags", "ids", "tag", "peers")]
CLAUSES += [_equals(column) for column in ("tags", "ids", "tag", "peers")]
