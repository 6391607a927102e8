"""Which of two rows with the same key the error names first.

Whoever compares the error as text needs an answer that does not vary with the rows' random uuids.
The C server goes by the rows' columns, `_uuid` among them, in the order of hash values; for columns
of these names that is the same as ours.
"""

from __future__ import annotations

import pytest

from interop.programs import KIND
from servers import Server

COLUMNS = {"number": {"type": "integer"}, "name": {"type": "string"}}
SCHEMA = {
    "name": "db",
    "version": "1.0.0",
    "tables": {"T": {"columns": COLUMNS, "indexes": [["number"]]}},
}
ATTEMPTS = 8  # by chance the order would be right in one of 256 runs


@pytest.mark.parametrize("kind", dict.fromkeys((KIND, "c")))
@pytest.mark.parametrize("names", [("low", "top"), ("top", "low")])
def test_the_greater_row_comes_first(kind: str, names: tuple[str, str]) -> None:
    with Server(kind, [("db", SCHEMA)]) as server:
        client = server.client()
        for _ in range(ATTEMPTS):
            inserts = [
                {"op": "insert", "table": "T", "row": {"number": 1, "name": name}} for name in names
            ]
            *inserted, error = client.transact("db", *inserts)
            first = inserted[names.index("top")]["uuid"][1]
            assert f"First row, with UUID {first}, was inserted" in error["details"]
