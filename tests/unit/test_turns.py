"""Whose turn it is to append, as handles know it that all hear the same in the same order."""

from __future__ import annotations

import asyncio

import pytest

from ovncp.log.engine import EngineError
from ovncp.log.turns import Turns

LONG_S = 60.0


class Hall:
    """Where all hear what each says, at once."""

    def __init__(self, *names: str):
        self.said: list[tuple[str, float | None]] = []
        self.handles = {name: Turns(name, self._teller(name)) for name in names}

    def _teller(self, name: str):
        async def tell(patience_s: float | None) -> None:
            self.said.append((name, patience_s))
            for handle in self.handles.values():
                if patience_s is None:
                    handle.ended(name)
                else:
                    handle.asked(name, patience_s)

        return tell

    def append(self, name: str) -> None:
        """Have `name` append, of which it knows itself first."""
        self.handles[name].appended()
        for handle in self.handles.values():
            handle.ended(name)


async def test_those_who_ask_have_their_turns_in_that_order():
    hall = Hall("a", "b", "c")
    taken = []

    async def take(name: str) -> None:
        await hall.handles[name].take(LONG_S)
        taken.append(name)

    tasks = [asyncio.create_task(take(name)) for name in "bca"]
    for n_taken, name in enumerate("bca", 1):
        await asyncio.sleep(0.01)
        assert taken == list("bca"[:n_taken])
        hall.append(name)
    await asyncio.gather(*tasks)


async def test_who_appends_again_comes_after_those_who_wait():
    hall = Hall("a", "b")
    await hall.handles["a"].take(LONG_S)
    await hall.handles["b"].ask(LONG_S)
    hall.append("a")
    assert hall.handles["a"].is_to_be_taken
    again = asyncio.create_task(hall.handles["a"].take(LONG_S))
    await asyncio.sleep(0.01)
    assert not again.done()
    hall.append("b")
    await again


async def test_one_that_does_not_append_is_passed_over():
    hall = Hall("a", "b")
    await hall.handles["b"].ask(0)
    await hall.handles["a"].take(0)
    assert not hall.handles["a"].is_to_be_taken


async def test_one_that_asks_again_at_once_is_the_last_one():
    hall = Hall("a", "b")
    await hall.handles["a"].ask(LONG_S)
    waiting = asyncio.create_task(hall.handles["b"].take(LONG_S))
    await asyncio.sleep(0)
    hall.append("a")
    await hall.handles["a"].ask(LONG_S)
    async with asyncio.timeout(LONG_S / 12):
        await waiting


async def test_whoever_has_heard_of_others_asks_first_until_it_is_alone():
    hall = Hall("a", "b")
    a = hall.handles["a"]
    assert not a.is_to_be_taken
    await hall.handles["b"].ask(LONG_S)
    await hall.handles["b"].end()
    assert a.is_to_be_taken
    await a.take(LONG_S)
    assert not a.is_contested
    hall.append("a")
    assert not a.is_to_be_taken


async def test_others_that_ask_during_a_turn_have_the_next_one_taken_too():
    hall = Hall("a", "b")
    a = hall.handles["a"]
    await a.take(LONG_S)
    await hall.handles["b"].ask(LONG_S)
    hall.append("b")
    hall.append("a")
    assert a.is_to_be_taken


async def test_those_who_asked_before_are_waited_for_though_they_are_heard_of_late(monkeypatch):
    monkeypatch.setattr("ovncp.log.turns._LEAST_PATIENCE_S", LONG_S)
    turns = Turns("a", lambda _: asyncio.sleep(0))
    waiting = asyncio.create_task(turns.take(LONG_S))
    await asyncio.sleep(0.01)
    turns.asked("b", LONG_S)
    turns.asked("a", LONG_S)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    turns.ended("b")
    await waiting


async def test_who_took_long_asks_for_more_time():
    hall = Hall("a")
    await hall.handles["a"].ask(2.0)
    [(_, patience_s)] = hall.said
    assert patience_s is not None
    assert patience_s > 2.0


async def test_one_that_has_nothing_to_append_lets_the_others_go_on():
    hall = Hall("a", "b")
    await hall.handles["b"].ask(LONG_S)
    waiting = asyncio.create_task(hall.handles["a"].take(LONG_S))
    await asyncio.sleep(0)
    await hall.handles["b"].end()
    await waiting
    # And it says so only if it had asked.
    said = len(hall.said)
    await hall.handles["b"].end()
    assert len(hall.said) == said


@pytest.mark.parametrize("error", [EngineError("away"), TimeoutError()])
async def test_who_cannot_be_heard_goes_on_all_the_same(error: Exception):
    async def tell(patience_s: float | None) -> None:
        raise error

    turns = Turns("a", tell)
    await turns.take(LONG_S)
    assert not turns.has_asked
