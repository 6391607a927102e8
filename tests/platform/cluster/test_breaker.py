"""The circuit breaker, on a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest

from ovncp.cluster.breaker import Breaker, BreakerOpen, BreakerSettings


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("it", (OSError,), BreakerSettings(3, 1.0, 3.0), clock)


def fail(breaker, error=OSError):
    with pytest.raises(error), breaker.attempt():
        raise error


def succeed(breaker):
    with breaker.attempt():
        pass


def test_it_opens_after_failures_in_a_row(breaker):
    for _ in range(2):
        fail(breaker)
    succeed(breaker)
    for _ in range(2):
        fail(breaker)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    with pytest.raises(BreakerOpen):
        succeed(breaker)


def test_other_errors_are_answers(breaker):
    for _ in range(2):
        fail(breaker)
    fail(breaker, ValueError)
    fail(breaker)
    assert breaker.state == "closed"


def test_after_a_pause_one_tries(breaker, clock):
    for _ in range(3):
        fail(breaker)
    clock.now += 1.0
    with breaker.attempt():
        assert breaker.state == "half open"
        with pytest.raises(BreakerOpen):
            succeed(breaker)
    assert breaker.state == "closed"
    succeed(breaker)


def test_pauses_grow_while_it_goes_on_failing(breaker, clock):
    for _ in range(3):
        fail(breaker)
    for pause in (1.0, 2.0, 3.0, 3.0):
        clock.now += pause - 0.01
        with pytest.raises(BreakerOpen):
            succeed(breaker)
        clock.now += 0.02
        fail(breaker)
        assert breaker.state == "open"
    clock.now += 3.0
    succeed(breaker)
    for _ in range(3):
        fail(breaker)
    clock.now += 1.0
    succeed(breaker)


def test_one_who_is_cancelled_while_trying_leaves_it_to_the_next(breaker, clock):
    for _ in range(3):
        fail(breaker)
    clock.now += 1.0
    fail(breaker, asyncio.CancelledError)
    assert breaker.state == "half open"
    succeed(breaker)
    assert breaker.state == "closed"


def test_changes_are_told(breaker, clock):
    states = []
    breaker.on_change.append(states.append)
    for _ in range(4):
        with pytest.raises((OSError, BreakerOpen)), breaker.attempt():
            raise OSError
    clock.now += 1.0
    succeed(breaker)
    assert states == ["open", "half open", "closed"]
