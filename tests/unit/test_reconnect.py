"""Reconnecting and probing, as a table of times: no clock, no sockets."""

import errno
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from ovncp.wire.reconnect import END_OF_FILE, Action, Reconnect, State


def enabled(**options) -> Reconnect:
    machine = Reconnect("tcp:127.0.0.1:1", 0, **options)
    machine.enable(0)
    return machine


def connected(now: int = 0, **options) -> Reconnect:
    machine = enabled(**options)
    machine.connecting(now)
    machine.connected(now)
    return machine


def test_nothing_is_due_before_it_is_enabled():
    machine = Reconnect("x", 0)
    assert machine.run(10**9) is None
    assert machine.deadline() is None


def test_first_attempt_is_at_once():
    assert enabled().run(0) is Action.CONNECT


def test_backoff_doubles_up_to_the_maximum():
    machine, now, pauses = enabled(), 0, []
    for _ in range(6):
        assert machine.run(now) is Action.CONNECT
        machine.connecting(now)
        machine.disconnected(now, errno.ECONNREFUSED)
        pauses.append(machine.deadline() - now)
        assert machine.run(machine.deadline() - 1) is None
        now = machine.deadline()
    assert pauses == [1000, 2000, 4000, 8000, 8000, 8000]


def test_configured_backoff():
    machine = enabled()
    machine.set_backoff(0, 100)
    machine.connect_failed(0, errno.ECONNREFUSED)
    machine.run(1000)
    machine.connect_failed(1000, errno.ECONNREFUSED)
    assert machine.deadline() == 2000


def test_attempt_times_out():
    machine = enabled()
    machine.connecting(0)
    assert machine.run(999) is None
    assert machine.run(1000) is Action.DISCONNECT


def test_idle_then_probe_then_dead():
    machine = connected()
    assert machine.run(4999) is None
    assert machine.run(5000) is Action.PROBE
    assert machine.run(9999) is None
    assert machine.run(10000) is Action.DISCONNECT
    machine.disconnected(10000)
    assert machine.state is State.BACKOFF
    assert machine.last_disconnected == 10000


def test_any_activity_puts_the_probe_off():
    machine = connected()
    machine.activity(3000)
    assert machine.deadline() == 8000
    assert machine.run(8000) is Action.PROBE
    machine.activity(8001)
    assert machine.state is State.ACTIVE
    assert machine.deadline() == 13001


@pytest.mark.parametrize(("interval", "probed_at"), [(0, None), (1, 1000), (60_000, 60_000)])
def test_probe_interval(interval, probed_at):
    machine = connected()
    machine.set_probe_interval(interval)
    assert machine.deadline() == probed_at


def test_probes_can_be_turned_off_while_one_is_out():
    machine = connected()
    machine.run(5000)
    machine.set_probe_interval(0)
    assert machine.run(10**9) is None


def test_connection_that_lasted_starts_backoff_over():
    machine = enabled()
    for now in (0, 1000):
        machine.connect_failed(now, errno.ECONNREFUSED)
    machine.connected(3000)
    machine.activity(9000)
    machine.disconnected(9000, END_OF_FILE)
    assert machine.deadline() == 10000


def test_connection_that_breaks_at_once_backs_off():
    machine = enabled()
    for now in (0, 1000):
        machine.connect_failed(now, errno.ECONNREFUSED)
    machine.connected(3000)
    machine.disconnected(3000, END_OF_FILE)
    assert machine.deadline() == 7000


def test_accepted_connection_is_not_made_again():
    machine = Reconnect("unix#1", 0, quiet=True, tries_left=0)
    machine.connected(0)
    machine.disconnected(10, END_OF_FILE)
    assert machine.state is State.VOID


def test_tries_are_bounded():
    machine = enabled(tries_left=2)
    machine.connect_failed(0, errno.ECONNREFUSED)
    assert machine.run(1000) is Action.CONNECT
    machine.connect_failed(1000, errno.ECONNREFUSED)
    assert machine.state is State.VOID


def test_passive_listens_again_at_once():
    machine = enabled(passive=True)
    assert machine.run(0) is Action.CONNECT
    machine.listening(0)
    assert machine.run(10**9) is None
    machine.connected(5)
    machine.disconnected(6, END_OF_FILE)
    assert machine.run(6) is Action.CONNECT


def test_force_reconnect():
    machine = connected()
    machine.force_reconnect(1)
    assert not machine.is_connected
    assert machine.run(1) is Action.DISCONNECT


def test_log(caplog):
    caplog.set_level(logging.INFO, "ovncp.reconnect")
    machine = enabled()
    machine.connect_failed(0, errno.ECONNREFUSED)
    machine.connect_failed(1000, errno.ECONNREFUSED)
    machine.connected(3000)
    machine.disconnected(3000, errno.EPROTO)
    machine.run(7000)
    machine.connecting(7000)
    machine.disconnected(11000)
    machine.connected(20000)
    machine.run(25000)
    machine.run(30500)
    machine.disconnected(30500, 0)
    name = "tcp:127.0.0.1:1"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"{name}: connecting..."),
        ("INFO", f"{name}: connection attempt failed (Connection refused)"),
        ("INFO", f"{name}: connecting..."),
        ("INFO", f"{name}: connection attempt failed (Connection refused)"),
        ("INFO", f"{name}: waiting 2 seconds before reconnect"),
        ("INFO", f"{name}: connecting..."),
        ("INFO", f"{name}: connected"),
        ("WARNING", f"{name}: connection dropped (Protocol error)"),
        ("INFO", f"{name}: waiting 4 seconds before reconnect"),
        ("INFO", f"{name}: connecting..."),
        ("INFO", f"{name}: connection attempt timed out"),
        (
            "INFO",
            f"{name}: continuing to reconnect in the background but suppressing further logging",
        ),
        ("INFO", f"{name}: connected"),
        (
            "ERROR",
            f"{name}: no response to inactivity probe after 5.5 seconds, disconnecting",
        ),
        ("INFO", f"{name}: connection dropped"),
    ]


@examples(100)
@given(st.lists(st.tuples(st.sampled_from("CcfadrR"), st.integers(0, 20_000))))
def test_run_is_due_at_the_deadline_and_never_before(steps):
    machine, now = enabled(), 0
    reports = {
        "C": lambda: machine.connecting(now),
        "c": lambda: machine.connected(now),
        "f": lambda: machine.connect_failed(now, errno.ECONNREFUSED),
        "a": lambda: machine.activity(now),
        "d": lambda: machine.disconnected(now, END_OF_FILE),
        "r": lambda: machine.run(now),
        "R": lambda: machine.force_reconnect(now),
    }
    for step, pause in steps:
        now += pause
        reports[step]()
        deadline = machine.deadline()
        if deadline is not None and deadline > now:
            assert machine.run(deadline - 1) is None
            assert deadline - now <= 8000
