"""A first dump that is cut without being parsed says what it says when it is parsed."""

from __future__ import annotations

import random
import uuid
from typing import Any

import orjson
import pytest

from ovncp.wire.client import Answer, ClientConnection
from ovncp.wire.large_dump import LargeDump, cut

AWKWARD = (
    '":{"initial":{', '}}}}]', '{"', "}{", '\\":{\\"initial\\":{', '"', "\\", "é", "\u0000x"[1:],
    '00000000-0000-4000-8000-000000000000":{"initial":{',
)  # fmt: skip


def random_dump(chance: random.Random, n_rows: int) -> dict[str, Any]:
    def value() -> Any:
        text = "".join(chance.choices(AWKWARD, k=chance.randint(0, 3)))
        return chance.choice([text, 1, ["map", [[text, text]]], ["set", []], ["uuid", text]])

    def row() -> Any:
        return {"initial": {f"c{n}": value() for n in range(chance.randint(0, 3))}}

    dump: dict[str, Any] = {}
    for n in range(chance.randint(1, 4)):
        rows = chance.randint(1, n_rows)
        dump[f"Table_{n}"] = {
            str(uuid.UUID(int=chance.getrandbits(128))): row() for _ in range(rows)
        }
    return dump


def joined(dump: LargeDump) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    most = 0
    for piece in dump.pieces():
        for name, rows in piece.items():
            assert not found.setdefault(name, {}).keys() & rows.keys()
            found[name].update(rows)
            most = max(most, len(rows))
    return found, most


@pytest.mark.parametrize("seed", range(60))
def test_what_is_cut_is_what_is_parsed(seed: int) -> None:
    chance = random.Random(seed)
    dump = random_dump(chance, 500)
    members = [("id", 7), ("result", [False, "some id", dump]), ("error", None)]
    chance.shuffle(members)
    message = cut(orjson.dumps(dict(members)))
    assert message is not None
    assert message["id"] == 7
    assert message["result"][:2] == [False, "some id"]
    found, most = joined(message["result"][2])
    assert found == dump
    assert list(found) == list(dump)
    assert most <= 200


@pytest.mark.parametrize("seed", range(20))
def test_a_connection_makes_one_of_any_pieces_of_bytes(seed: int) -> None:
    chance = random.Random(seed)
    dump = random_dump(chance, 30)
    connection = ClientConnection(1 << 30, large_bytes=1000)
    request_id = connection.request("monitor_cond_since", [], "about")
    first = {"id": request_id, "result": [False, "id", dump], "error": None}
    update = {"method": "update3", "params": ["m", "id", {}], "id": None}
    data = b"".join(map(orjson.dumps, (update, first, update, update)))
    cuts = sorted(chance.sample(range(len(data)), 5))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    events = [event for piece in pieces for event in connection.receive(piece)]
    assert len(events) == 4
    answer = events[1]
    assert isinstance(answer, Answer) and answer.about == "about"
    updates = answer.result[2]
    assert (joined(updates)[0] if isinstance(updates, LargeDump) else updates) == dump


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "result": [True, "id", {"T": {"u": {"modify": {"c": "x"}}}}], "error": None},
        {"id": 1, "result": {"T": {str(uuid.UUID(int=1)): {"initial": {}}}}, "error": None},
        {"id": 1, "result": [{"rows": []}], "error": None},
        {"method": "update3", "params": ["m", "id", {"T": {}}], "id": None},
        {"id": 1, "error": "no"},
    ],
)
def test_other_messages_are_left_as_they_are(message: Any) -> None:
    assert cut(orjson.dumps(message)) is None
