"""How a case is written: an async function of a bench, registered with `case`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ovncp.log.base import Entry, Log
from ovncp.log.contract.bench import Bench


@dataclass(frozen=True, slots=True)
class Case:
    """A promise, and what tries it on a bench of a kind; raises if it is not kept."""

    name: str
    bench: type[Bench]
    run: Callable[[Any], Awaitable[None]]


CASES: list[Case] = []


def case(
    bench: type[Bench] = Bench, **variants: Iterable[Any]
) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Register the function below as a case for a kind of bench.

    Of one parameter there may be `variants`.
    """

    def register(function: Callable[..., Awaitable[None]]) -> None:
        name = function.__name__.replace("_", " ")
        if not variants:
            CASES.append(Case(name, bench, function))
        for parameter, values in variants.items():
            for value in values:
                run = partial(function, **{parameter: value})
                CASES.append(Case(f"{name} ({parameter} {value})", bench, run))

    return register


@contextlib.contextmanager
def raises(*errors: type[BaseException]) -> Iterator[None]:
    """The block is to raise one of `errors`."""
    try:
        yield
    except errors:
        return
    raise AssertionError(f"{' or '.join(error.__name__ for error in errors)} was not raised")


def text(number: int) -> bytes:
    """An entry."""
    return b'{"n":%d}' % number


def numbers(entries: Iterable[Entry]) -> list[int]:
    """What `text` was given for each of `entries`."""
    return [json.loads(entry.data)["n"] for entry in entries]


def expected(first: int, last: int) -> list[Entry]:
    """The entries that `fill` appends at `first` to `last`."""
    return [Entry(index, text(index)) for index in range(first, last + 1)]


async def fill(log: Log, count: int) -> None:
    """Append `count` entries, one after the other, each with its index as its number."""
    for index in range(log.next_index, log.next_index + count):
        await log.append(index, [text(index)])


async def entries_from(log: Log, index: int) -> list[Entry]:
    """All entries from `index` on."""
    batches = [batch async for batch in log.read(index)]
    assert all(batches)
    return [entry for batch in batches for entry in batch]


class Gate:
    """Data of which the rest comes once it is opened; `reached` is set when that is waited for."""

    def __init__(self, begin: bytes, rest: bytes):
        self.reached = asyncio.Event()
        self._parts = begin, rest
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let the rest come."""
        self._opened.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        begin, rest = self._parts
        yield begin
        self.reached.set()
        await self._opened.wait()
        yield rest


async def chunked(data: bytes) -> AsyncIterator[bytes]:
    """`data` three bytes at a time, slowly."""
    for start in range(0, len(data), 3):
        await asyncio.sleep(0)
        yield data[start : start + 3]
