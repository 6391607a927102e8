"""Random transactions: the database agrees with the naive model, and undoing leaves no trace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from model.bookkeeping import check, picture, state_of
from model.pair import Pair, draw_length, draw_pair, draw_transaction
from model.strategies import EXPLICIT_UUIDS

# A failure is made small before it is shown, which takes its time.
pytestmark = pytest.mark.timeout(600)


@examples(150)
@given(st.data())
def test_agrees_with_the_naive_model(data):
    pair = draw_pair(data)
    for _ in draw_length(data, 12):
        if draw_transaction(data, pair) is not None:
            pair.database.settle()


@examples(120)
@given(st.data())
def test_revert_leads_back_to_what_is_settled(data):
    pair = draw_pair(data)
    database = pair.database
    # What there was at the last settled point, and after each commit since then.
    pictures = [(picture(database), pair.state)]
    for _ in draw_length(data, 12):
        before = picture(database)
        if draw_transaction(data, pair) is None:
            assert picture(database) == before
        else:
            pictures.append((picture(database), pair.state))
        action = data.draw(st.sampled_from(["go on", "go on", "settle", "revert"]))
        if action == "settle" and len(pictures) > 1:
            database.settle()
            del pictures[0]
        elif action == "revert":
            database.revert()
            settled, pair.state = pictures[0]
            del pictures[1:]
            assert picture(database) == settled
            assert state_of(database) == pair.state
            check(database)
        assert database.is_settled == (len(pictures) == 1)


def test_rows_of_two_tables_with_one_uuid():
    """A reference to the row of that uuid in another table is no more counted than taken back."""
    reference = {"key": {"type": "uuid", "refTable": "B"}, "min": 0}
    tables = {
        "A": {"columns": {"b": {"type": reference}}, "isRoot": False},
        "B": {"columns": {"i": {"type": "integer"}}, "isRoot": True},
    }
    pair = Pair({"name": "db", "tables": tables})
    uuid = EXPLICIT_UUIDS[0]
    rows = {"B": {}, "A": {"b": ["uuid", uuid]}}
    for table, row in rows.items():
        pair.transact([{"op": "insert", "table": table, "uuid": uuid, "row": row}])
    pair.transact([{"op": "delete", "table": "B", "where": []}])
    assert pair.state == {"A": {}, "B": {}}
