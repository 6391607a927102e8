"""The checker passes right histories, and finds each fault that is planted in one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.checker import RULES, check
from chaos.history import Answer, History, Holding, KeyState, View, Witness, Write
from chaos.simulated import KEYS, N_WRITES, SERVERS, Simulation

Plant = Callable[[History, random.Random], None]


def found(history: History) -> set[str]:
    return {violation.kind for violation in check(history)}


@pytest.mark.parametrize("seed", range(30))
def test_a_right_history_passes(seed: int) -> None:
    assert check(Simulation(seed).history()) == []


def done(history: History, draw: random.Random) -> int:
    """Where a write is that was done, neither first nor last."""
    places = [i for i, w in enumerate(history.writes) if w.answer is Answer.DONE]
    return draw.choice(places[5:-5])


def without(view: View, id: str) -> View:
    return replace(view, ids=tuple(other for other in view.ids if other != id))


def lost_on_one_server(history: History, draw: random.Random) -> None:
    id = history.writes[done(history, draw)].id
    server = draw.choice(SERVERS)
    history.finals[server] = without(history.finals[server], id)


def lost_everywhere(history: History, draw: random.Random) -> None:
    """The last one, after it was acknowledged: as with a commit that was not durable."""
    late = Write("late", "c1", "s0", "k0", 1, 500, 501, Answer.DONE, N_WRITES + 1, 99)
    history.writes.append(late)


def refused_but_done(history: History, draw: random.Random) -> None:
    place = done(history, draw)
    history.writes[place] = replace(history.writes[place], answer=Answer.REFUSED, number=0)


def written_by_nobody(history: History, draw: random.Random) -> None:
    del history.writes[done(history, draw)]


def stored_twice(history: History, draw: random.Random) -> None:
    id = history.writes[done(history, draw)].id
    for server, view in history.finals.items():
        history.finals[server] = replace(view, ids=(*view.ids, id), number=view.number + 1)


def two_have_one_number(history: History, draw: random.Random) -> None:
    place = done(history, draw)
    number = history.writes[done(history, random.Random(draw.random()))].number
    if number == history.writes[place].number:
        number = next(w.number for w in history.writes if w.number not in (0, number))
    history.writes[place] = replace(history.writes[place], number=number)


def told_twice(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    views[-1] = replace(views[-1], ids=(*views[-1].ids, views[2].ids[0]))


def left_out_by_a_monitor(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    place = draw.randrange(1, len(views))
    views[place] = without(views[place], views[place].ids[0])


def a_step_left_out(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    del views[draw.randrange(1, len(views) - 1)]


def seen_before_stored_and_lost(history: History, draw: random.Random) -> None:
    history.writes.append(Write("phantom", "c1", "s1", "k0", 1, 1))
    views = draw.choice(history.witnesses).views
    views[-1] = replace(views[-1], ids=(*views[-1].ids, "phantom"), number=views[-1].number + 1)


def back_in_time(history: History, draw: random.Random) -> None:
    history.witnesses.append(Witness("m9", 80, [history.witnesses[0].views[0]]))


def swapped_for_one_monitor(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    one, other = views[3], views[7]
    views[3] = replace(one, ids=(other.ids[0], *one.ids[1:]))
    views[7] = replace(other, ids=(one.ids[0], *other.ids[1:]))


def half_applied_for_a_monitor(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    place = draw.randrange(1, len(views))
    key, state = next(iter(views[place].keys.items()))
    halved = replace(state, parts=frozenset(list(state.parts)[1:]))
    views[place] = replace(views[place], keys={**views[place].keys, key: halved})


def half_applied_in_the_end(history: History, draw: random.Random) -> None:
    for server, view in history.finals.items():
        state = view.keys["k0"]
        more = replace(state, parts=state.parts | {("w1", 0)})
        history.finals[server] = replace(view, keys={**view.keys, "k0": more})


def key_not_changed(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    place = draw.randrange(1, len(views))
    views[place] = replace(views[place], keys={})


def a_lost_update(history: History, draw: random.Random) -> None:
    place = done(history, draw)
    write = history.writes[place]
    history.writes[place] = replace(write, version=write.version - 1)


def a_read_of_another_state(history: History, draw: random.Random) -> None:
    place = draw.randrange(len(history.reads))
    read = history.reads[place]
    versions = {key: version + 1 for key, version in read.versions.items()}
    history.reads[place] = replace(read, versions=versions)


def a_key_of_another_state(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    views[-1] = replace(views[-1], keys=dict(views[-1].keys))
    keys = dict(views[-1].keys)
    key, state = next(iter(keys.items()))
    keys[key] = KeyState(state.version - 1, state.last, state.parts)
    views[-1] = replace(views[-1], keys=keys)


def began_after_the_next_had_ended(history: History, draw: random.Random) -> None:
    place = done(history, draw)
    write = history.writes[place]
    history.writes[place] = replace(write, start=write.start + 40, end=write.end + 40)


def unknown_but_seen_before_it_began(history: History, draw: random.Random) -> None:
    place = done(history, draw)
    write = history.writes[place]
    history.writes[place] = Write(write.id, write.client, write.server, write.key, write.n_parts,
                                  write.start + 40, holding=write.holding)  # fmt: skip


def a_stale_read(history: History, draw: random.Random) -> None:
    place = draw.randrange(len(history.reads))
    read = history.reads[place]
    history.reads[place] = replace(read, start=read.start + 40, end=read.end + 40)


def another_id_on_another_server(history: History, draw: random.Random) -> None:
    for witness in history.witnesses[1:]:
        witness.views = [replace(view, transaction=f"other {view.transaction}")
                         for view in witness.views]  # fmt: skip


def an_id_again(history: History, draw: random.Random) -> None:
    views = draw.choice(history.witnesses).views
    views[5] = replace(views[5], transaction=views[3].transaction)


def one_server_behind(history: History, draw: random.Random) -> None:
    server = draw.choice(SERVERS)
    view = history.finals[server]
    key = draw.choice(KEYS)
    history.finals[server] = replace(view, keys={**view.keys, key: KeyState(1, "w1", frozenset())})


def not_told_of_the_end(history: History, draw: random.Random) -> None:
    draw.choice(history.witnesses).views.pop()


def a_lock_held_by_two(history: History, draw: random.Random) -> None:
    within = [i for i, w in enumerate(history.writes) if w.holding and w.id in ("w33", "w35")]
    for place in within[:1]:
        stranger = Holding("lock", "holding 7")
        history.writes[place] = replace(history.writes[place], holding=stranger)


PLANTED: dict[Plant, str] = {
    lost_on_one_server: "lost",
    lost_everywhere: "lost",
    refused_but_done: "refused",
    written_by_nobody: "refused",
    stored_twice: "twice",
    two_have_one_number: "twice",
    told_twice: "twice",
    left_out_by_a_monitor: "gap",
    a_step_left_out: "gap",
    seen_before_stored_and_lost: "lost",
    back_in_time: "back",
    swapped_for_one_monitor: "other_order",
    half_applied_for_a_monitor: "half",
    half_applied_in_the_end: "half",
    key_not_changed: "half",
    a_lost_update: "version",
    a_read_of_another_state: "version",
    a_key_of_another_state: "version",
    began_after_the_next_had_ended: "time",
    unknown_but_seen_before_it_began: "time",
    a_stale_read: "stale",
    another_id_on_another_server: "transaction_id",
    an_id_again: "transaction_id",
    one_server_behind: "replicas",
    not_told_of_the_end: "behind",
    a_lock_held_by_two: "lock",
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("plant", "kind"), PLANTED.items(), ids=lambda p: getattr(p, "__name__", "")
)
def test_a_planted_fault_is_found(plant: Plant, kind: str, seed: int) -> None:
    history = Simulation(seed).history()
    plant(history, random.Random(seed))
    assert kind in found(history)


def test_each_rule_has_a_fault_that_it_finds() -> None:
    assert {rule.__name__ for rule in RULES} == set(PLANTED.values())


def test_a_server_that_says_that_it_is_cut_off_may_show_the_past() -> None:
    history = Simulation(1).history()
    a_stale_read(history, random.Random(1))
    history.reads = [replace(read, is_connected=False) for read in history.reads]
    assert check(history) == []
    went_back = replace(history.witnesses[0], known=N_WRITES, is_connected=False)
    history.witnesses.append(went_back)
    assert check(history) == []


def test_what_nobody_knows_the_order_of_may_be_in_any() -> None:
    """Two writes without an answer, which all monitors were told of at once."""
    history = Simulation(1).history()
    unknown = {"w50", "w51"}
    history.writes = [
        replace(w, answer=Answer.UNKNOWN, number=0, version=0) if w.id in unknown else w
        for w in history.writes
    ]
    simulation = Simulation(1)
    views = [simulation.view(*span) for span in ((0, 49), (49, 51), (51, N_WRITES))]
    history.witnesses = [Witness("m", 0, views)]
    assert check(history) == []
