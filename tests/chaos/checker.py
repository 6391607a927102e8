"""Judges a history: is it one that a single server without faults could have given, in real time?

Each write that was done says its number, its place in the one order. A monitor that was told of the
writes `ids` when it came from number a to b says that their places are in (a, b], and all others'
are not. So each write has the range of places that all who saw it, or did not, leave to it; there
is one order that all agree on exactly if no range is empty, and everybody who is at number n has
been told of n writes. All else is compared with that order. The time it takes grows with the size
of the history (times the logarithm), as nothing has to be searched for.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

from chaos.history import Answer, History, Holding, KeyState, View, Witness, Write


@dataclass(frozen=True, slots=True)
class Violation:
    """`kind` is the name of the guarantee that was broken: the rule's below."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Order:
    """The places that are left to each write which somebody saw, or was told of.

    Place p is `after` < p <= `upto`. `everybody` are the monitors, and the servers' final states.
    """

    def __init__(self, history: History):
        finals = [Witness(f"the state of {name}", 0, [v]) for name, v in history.finals.items()]
        self.everybody = history.witnesses + finals
        self.writes = {write.id: write for write in history.writes}
        done = [write for write in history.writes if write.answer is Answer.DONE]
        self.after = {write.id: write.number - 1 for write in done}
        self.upto: dict[str, float] = {write.id: write.number for write in done}
        for witness in self.everybody:
            for view in witness.views:
                for id in view.ids:
                    self.after.setdefault(id, 0)
                    self.upto.setdefault(id, math.inf)
        for witness in self.everybody:
            self._narrow(witness)
        self.keys = {key: _KeyOrder(self, ids) for key, ids in self._ids_by_key().items()}

    def _narrow(self, witness: Witness) -> None:
        number = 0
        unseen = dict.fromkeys(self.after)
        for view in witness.views:
            for id in view.ids:
                self.after[id] = max(self.after[id], number)
                self.upto[id] = min(self.upto[id], view.number)
                unseen.pop(id, None)
            number = view.number
        for id in unseen:
            self.after[id] = max(self.after[id], number)

    def _ids_by_key(self) -> Mapping[str, list[str]]:
        ids: dict[str, list[str]] = defaultdict(list)
        for id in self.after:
            if id in self.writes:
                ids[self.writes[id].key].append(id)
        return ids


class _KeyOrder:
    """The writes of one key: how many there were at a number, and which was the last."""

    def __init__(self, order: Order, ids: Iterable[str]):
        self._by_upto = sorted((order.upto[id], id) for id in ids)
        self._uptos = [upto for upto, _ in self._by_upto]
        afters = [order.after[id] for _, id in self._by_upto]
        self._latest = list(accumulate(afters, max))
        self._afters = sorted(afters)

    def versions(self, number: int) -> range:
        """How many writes of the key there may have been at `number`."""
        return range(bisect_right(self._uptos, number), bisect_left(self._afters, number) + 1)

    def last(self, number: int) -> list[str]:
        """The writes that may have been the last one at `number`."""
        end = bisect_right(self._uptos, number)
        # What was certainly before another of them was not the last.
        start = bisect_right(self._uptos, self._latest[end - 1]) if end else 0
        return [id for _, id in self._by_upto[start:end]]


# Rules: each gives what contradicts it, in words.


def lost(history: History, order: Order) -> Iterator[str]:
    """What was done, or seen by anybody, is there in the end, on every server."""
    for server, state in history.finals.items():
        for id in order.after.keys() - set(state.ids):
            yield f"{server} does not have {order.writes.get(id, id)}"


def refused(history: History, order: Order) -> Iterator[str]:
    """What was refused, or never asked for, was never there."""
    for id in order.after:
        write = order.writes.get(id)
        if write is None:
            yield f"nobody wrote {id}"
        elif write.answer is Answer.REFUSED:
            yield f"was seen: {write}"


def twice(history: History, order: Order) -> Iterator[str]:
    """Nothing was done twice, and nobody was told of anything twice."""
    for witness in order.everybody:
        ids = Counter(id for view in witness.views for id in view.ids)
        yield from (f"{witness.name} saw {order.writes.get(id, id)} {n} times"
                    for id, n in ids.items() if n > 1)  # fmt: skip
    numbers = Counter(w.number for w in history.writes if w.answer is Answer.DONE)
    yield from (f"{n} writes were told number {i}" for i, n in numbers.items() if n > 1)


def gap(history: History, order: Order) -> Iterator[str]:
    """Whoever was told that there were n writes, was told of n."""
    for witness in order.everybody:
        n_seen = 0
        for view in witness.views:
            n_seen += len(view.ids)
            if n_seen != view.number:
                yield f"{witness.name} saw {n_seen} of {view.number} writes, at {view.time:.3f} s"
                break


def back(history: History, order: Order) -> Iterator[str]:
    """No monitor went back in time, not even one that began anew.

    Other than on a server that says that it is cut off.
    """
    for witness in history.witnesses:
        known = witness.known if witness.is_connected else 0
        numbers = [known, *(view.number for view in witness.views)]
        for before, number in pairwise(numbers):
            if number < before:
                yield f"{witness.name} went from {before} writes to {number}"


def other_order(history: History, order: Order) -> Iterator[str]:
    """All saw the writes in the one order, which ends with the final state."""
    for id, after in order.after.items():
        if after >= order.upto[id]:
            yield (f"for one its number is over {after}, for another at most {order.upto[id]}: "
                   f"{order.writes.get(id, id)}")  # fmt: skip


def half(history: History, order: Order) -> Iterator[str]:
    """Whoever saw a write saw all of it: the key's row and parts, and the former's gone."""
    for witness in order.everybody:
        for view in witness.views:
            yield from (f"{witness.name} at {view.number}: {what}" for what in _halves(view, order))


def _halves(view: View, order: Order) -> Iterator[str]:
    for id in view.ids:
        write = order.writes.get(id)
        if write is not None and write.key not in view.keys:
            yield f"the key did not change with {write}"
    for key, state in view.keys.items():
        write = order.writes.get(state.last)
        n_parts = write.n_parts if write is not None else 0
        if state.parts != {(state.last, part) for part in range(n_parts)}:
            yield f"{key} has the parts {sorted(state.parts)}, and was last written by {write}"


def version(history: History, order: Order) -> Iterator[str]:
    """A key's version is the number of its writes so far, its `last` is the last one."""
    for write in history.writes:
        if write.answer is Answer.DONE:
            versions = order.keys[write.key].versions(write.number)
            if write.version not in versions:
                yield f"should have been {_shown(versions)}: {write}"
    for read in history.reads:
        for key, told in read.versions.items():
            if key in order.keys and told not in order.keys[key].versions(read.number):
                yield f"{key}: {_shown(order.keys[key].versions(read.number))} expected in {read}"
    for witness in order.everybody:
        for view in witness.views:
            yield from (
                f"{witness.name} at {view.number}: {key} is {state}"
                for key, state in view.keys.items()
                if key in order.keys and not _fits(order.keys[key], view.number, state)
            )


def _fits(key_order: _KeyOrder, number: int, state: KeyState) -> bool:
    last = key_order.last(number) or [""]
    return state.version in key_order.versions(number) and state.last in last


def _shown(versions: range) -> str:
    return f"{versions.start} to {versions.stop - 1}"


def time(history: History, order: Order) -> Iterator[str]:
    """Whatever began after another had ended, or was seen, comes after it: over all servers."""
    for floor, write in _with_floors(history, order):
        if order.upto.get(write.id, math.inf) <= floor:
            yield f"{floor} had been seen already when this began: {write}"


def stale(history: History, order: Order) -> Iterator[str]:
    """A read sees whatever had ended, or was seen by anybody, when it began: over all servers.

    Other than one of a server that says that it is cut off.
    """
    floors = _Floors(history)
    for read in sorted(history.reads, key=lambda read: read.start):
        floor = floors.at(read.start)
        if read.is_connected and read.number < floor:
            yield f"{floor} had been seen already when this began: {read}"


class _Floors:
    """How many writes somebody knew of, at a time."""

    def __init__(self, history: History):
        known = [(write.end, write.number) for write in history.writes if write.number]
        known += [(read.end, read.number) for read in history.reads]
        known += [(v.time, v.number) for witness in history.witnesses for v in witness.views]
        self._known = sorted(known, reverse=True)
        self._floor = 0

    def at(self, time: float) -> int:
        """The number known before `time`, which must not be earlier than the last one asked for."""
        while self._known and self._known[-1][0] < time:
            self._floor = max(self._floor, self._known.pop()[1])
        return self._floor


def _with_floors(history: History, order: Order) -> Iterator[tuple[int, Write]]:
    floors = _Floors(history)
    for write in sorted(history.writes, key=lambda write: write.start):
        yield floors.at(write.start), write


def transaction_id(history: History, order: Order) -> Iterator[str]:
    """A state has one transaction id, on all servers, and no two have the same."""
    numbers: dict[str, int] = {}
    ids: dict[int, str] = {}
    for witness in history.witnesses:
        for view in witness.views:
            if view.transaction is not None:
                number = numbers.setdefault(view.transaction, view.number)
                id = ids.setdefault(view.number, view.transaction)
                if (number, id) != (view.number, view.transaction):
                    yield (f"{witness.name} was told {view.transaction} at {view.number}, "
                           f"others {id}, or {number}")  # fmt: skip


def replicas(history: History, order: Order) -> Iterator[str]:
    """All servers have the same in the end."""
    states = {
        server: (state.number, set(state.ids), dict(state.keys))
        for server, state in history.finals.items()
    }
    servers = list(states)
    for one, other in pairwise(servers):
        if states[one] != states[other]:
            ids = sorted(states[one][1] ^ states[other][1])
            yield f"{one} and {other} differ; writes that one of them lacks: {ids}"


def behind(history: History, order: Order) -> Iterator[str]:
    """All monitors that stayed, and all servers, come to know of everything."""
    last = {witness.name: view for witness in order.everybody for view in witness.views}
    number = max((view.number for view in last.values()), default=0)
    for name, view in last.items():
        if view.number < number:
            yield f"{name} has seen {view.number} of {number} writes"


def lock(history: History, order: Order) -> Iterator[str]:
    """Nobody writes under a lock between two writes of another's one holding of it."""
    holdings: dict[str, dict[Holding, list[tuple[float, float]]]] = defaultdict(dict)
    for id, after in order.after.items():
        write = order.writes.get(id)
        if write is not None and write.holding is not None:
            places = holdings[write.holding.lock].setdefault(write.holding, [])
            places.append((after, order.upto[id]))
    for of_lock in holdings.values():
        for one, places in of_lock.items():
            # From when at the latest, and until when at the least, it was held.
            begin, end = min(upto for _, upto in places), max(after for after, _ in places)
            for other, others in of_lock.items():
                if one != other and any(begin <= after and upto <= end for after, upto in others):
                    yield f"{other.name} wrote within {one.name}, {begin} to {end}, of {one.lock}"


Rule = Callable[[History, Order], Iterator[str]]
RULES: tuple[Rule, ...] = (
    *(lost, refused, twice, half, gap, back, other_order, version, time, stale),
    *(transaction_id, replicas, behind, lock),
)

SHOWN_PER_RULE = 5


def check(history: History) -> list[Violation]:
    """What is wrong with `history`; the first few of each kind."""
    order = Order(history)
    found = []
    for rule in RULES:
        texts = list(rule(history, order))
        found += [Violation(rule.__name__, text) for text in texts[:SHOWN_PER_RULE]]
        if len(texts) > SHOWN_PER_RULE:
            found.append(Violation(rule.__name__, f"and {len(texts) - SHOWN_PER_RULE} more"))
    return found
