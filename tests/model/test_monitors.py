"""Clients that monitor are told what changed, and know what they asked for at all times."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from model.naive import Failure, State, Test
from model.pair import Pair, draw_transaction
from model.strategies import Writer, below, free_schemas, pick
from model.watcher import KINDS, Watcher
from ovncp.ovsdb import dump, gathering, monitor, row_index
from ovncp.ovsdb.database import Settings
from ovncp.ovsdb.errors import OvsdbError
from ovncp.ovsdb.monitor_request import MonitorRequest, Where

# A failure is made small before it is shown, which takes its time.
pytestmark = pytest.mark.timeout(600)


class Watching:
    """A database, its clients, and the states that it has had by their transaction ids."""

    def __init__(self, data: Any, settings: Settings) -> None:
        self.draw = data.draw
        self.data = data
        self.pair = Pair(data.draw(free_schemas(), label="schema"), settings)
        self.database = self.pair.database
        self.watchers: list[Watcher] = []
        # Those whose first dump is being prepared.
        self.coming: list[tuple[Watcher, MonitorRequest, Iterator[None]]] = []
        # Those of whom a change of conditions is.
        self.changing: dict[Watcher, tuple[str, list[Test], dict[str, Where], Iterator[None]]] = {}
        self.past = [(self.database.transaction_id, self.pair.state)]

    @property
    def writer(self) -> Writer:
        return Writer(self.draw, self.pair.schema, self.pair.state)

    def transact(self) -> None:
        """One or two transactions, which are settled, or taken back, after both have executed."""
        states = [self.pair.state]
        for _ in range(1 + self.draw(below(2))):
            if draw_transaction(self.data, self.pair) is not None:
                states.append(self.pair.state)
            self.prepare()
        if pick(self.draw, [False] * 5 + [True]):
            self.database.revert()
            self.pair.state = states[0]
        else:
            for before, after in pairwise(states):
                self.settle(before, after)

    def prepare(self) -> None:
        """Do some of the work for those who come, on what may not be visible yet."""
        for *_, steps in [*self.coming, *self.changing.values()]:
            for _ in range(self.draw(below(4))):
                next(steps, None)

    def settle(self, before: State, after: State) -> None:
        commit, notifications = self.database.settle()
        self.pair.state = after
        assert commit.transaction_id == self.database.transaction_id
        told = [(m, n.message) for n in notifications for m in n.monitors]
        messages = dict(told)
        assert len(messages) == len(told)
        for watcher in self.watchers:
            message = messages.pop(watcher.monitor, None)
            if watcher.asleep_since is not None:
                continue
            if message is None:
                watcher.not_told(before, after)
            else:
                watcher.told(message, before, after)
        assert not messages
        self.past.append((self.database.transaction_id, after))

    def new_watcher(self) -> Watcher | None:
        """Another client, if what it asks for is valid."""
        version, requests = 1 + self.draw(below(3)), {}
        if self.watchers and pick(self.draw, [True, False]):
            # Clients that want the same share what is kept of it.
            model = pick(self.draw, self.watchers)
            version, requests = model.version, model.requests
        else:
            for name in self.pair.schema:
                if pick(self.draw, [True, True, False]):
                    requests[name] = self.requests(name, version)
        name = f"m{pick(self.draw, [0, len(self.past)])}"
        try:
            return Watcher(self.pair, name, version, requests)
        except Failure as failure:
            with pytest.raises(OvsdbError) as refused:
                self.database.monitors.parse(requests, version)
            assert refused.value.tag in failure.tags
            return None

    def requests(self, name: str, version: int) -> list[Any]:
        columns = [c for c in self.pair.schema[name].columns if pick(self.draw, [1, 1, 0])]
        cut = self.draw(below(len(columns) + 1))
        # A second request, for the other columns, now and then.
        parts = [columns[cut:], columns[:cut]] if cut > 1 else [columns]
        requests: list[Any] = [{"columns": part} for part in parts]
        if pick(self.draw, [False, False, True]):
            for request in requests:
                request["select"] = {kind: pick(self.draw, [True, False]) for kind in KINDS}
        if version > 1 and len(requests) == 1 and pick(self.draw, [True, True, False]):
            requests[0]["where"] = self.writer.condition(name)
        return requests

    def watch(self) -> None:
        watcher = self.new_watcher()
        if watcher is not None:
            monitors = self.database.monitors
            wanted = monitors.parse(watcher.requests, watcher.version)
            self.coming.append((watcher, wanted, monitors.prepare(wanted)))
            self.prepare()

    def come(self) -> None:
        if self.coming:
            watcher, wanted, _ = self.coming.pop(self.draw(below(len(self.coming))))
            watcher.begin(wanted)
            self.watchers.append(watcher)

    def fall_asleep(self) -> None:
        for watcher in self.watchers[: self.draw(below(3))]:
            if watcher.asleep_since is None:
                watcher.asleep_since = (self.database.transaction_id, self.pair.state)

    def wake(self) -> None:
        for watcher in [w for w in self.watchers if w.asleep_since is not None]:
            if not watcher.wake():
                assert self.database.settings.history_bytes < 10**9
                self.cancel(watcher)
                self.watchers.remove(watcher)

    def drop_unused(self) -> None:
        self.database.monitors.drop_unused()

    def resume(self) -> None:
        """A client that comes back, from each of the states that there were."""
        watcher = self.new_watcher()
        for transaction_id, state in self.past if watcher is not None else ():
            if watcher.resume(transaction_id, state):
                self.cancel(watcher)
            else:
                assert self.database.settings.history_bytes < 10**9

    def want_condition(self) -> None:
        able = [w for w in self.watchers if w.version > 1 and w.watched and w not in self.changing]
        if not able:
            return
        watcher = pick(self.draw, able)
        name = pick(self.draw, watcher.watched)
        where = self.writer.condition(name)
        monitors, json = self.database.monitors, {name: [{"where": where}]}
        try:
            tests = watcher.tests(name, where)
        except Failure as failure:
            with pytest.raises(OvsdbError) as refused:
                monitors.parse_change(watcher.monitor, json)
            assert refused.value.tag in failure.tags
        else:
            wanted = monitors.parse_change(watcher.monitor, json)
            steps = monitors.prepare_change(watcher.monitor, wanted)
            self.changing[watcher] = (name, tests, wanted, steps)
            self.prepare()

    def change_condition(self) -> None:
        self.wake()
        if self.changing:
            watcher = pick(self.draw, self.changing)
            name, tests, wanted, _ = self.changing.pop(watcher)
            watcher.change_condition(name, tests, wanted)

    def leave(self) -> None:
        if self.watchers:
            self.cancel(self.watchers.pop(self.draw(below(len(self.watchers)))))

    def cancel(self, watcher: Watcher) -> None:
        self.changing.pop(watcher, None)
        self.database.monitors.remove(watcher.monitor)


ACTIONS = ["transact"] * 5 + ["watch", "come"] * 3
ACTIONS += [
    "want_condition",
    "want_condition",
    "change_condition",
    "change_condition",
    "resume",
    "leave",
    "drop_unused",
]
ACTIONS += ["fall_asleep", "wake"]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """What is done step by step is, even for the few rows here."""
    monkeypatch.setattr(dump, "ROWS_PER_PIECE", 2)
    monkeypatch.setattr(dump, "_FEWEST_ROWS", 2)
    monkeypatch.setattr(row_index, "_ROWS_PER_STEP", 1)
    monkeypatch.setattr(row_index, "_MOST_INDEXES", 3)
    monkeypatch.setattr(monitor, "_ROWS_PER_STEP", 1)
    monkeypatch.setattr(gathering, "_ROWS_PER_STEP", 1)


@examples(60)
@given(st.data(), st.sampled_from([Settings(10**9), Settings(1000), Settings(0)]))
def test_clients_know_what_they_asked_for(data, settings):
    watching = Watching(data, settings)
    watching.transact()
    for _ in range(24 - data.draw(below(20))):
        getattr(watching, pick(data.draw, ACTIONS))()
        assert len(watching.database.monitors) == len(watching.watchers)
    watching.wake()
    for watcher in watching.watchers:
        watching.cancel(watcher)
    assert watching.database.monitors.n_groups == 0
