from __future__ import annotations

import pytest

from serving.breaker import CircuitBreaker


def test_a_single_failure_opens_by_default(fake_clock):
    states: list[str] = []
    breaker = CircuitBreaker(0.5, fake_clock, on_change=states.append)
    assert (breaker.allow(), breaker.is_open, breaker.state) == (True, False, "closed")
    breaker.failed()
    assert (breaker.allow(), breaker.is_open, breaker.state) == (False, True, "open")
    fake_clock.advance(0.5)
    assert breaker.state == "half-open"
    assert breaker.allow()  # the trial
    assert not breaker.allow()  # everybody else
    breaker.failed()
    assert not breaker.allow()
    fake_clock.advance(0.5)
    assert breaker.allow()
    breaker.succeeded()
    assert (breaker.allow(), breaker.state) == (True, "closed")
    assert states == ["open", "half-open", "open", "half-open", "closed"]


def test_a_trial_that_never_reports_does_not_lock_out(fake_clock):
    breaker = CircuitBreaker(0.5, fake_clock)
    breaker.failed()
    fake_clock.advance(0.5)
    assert breaker.allow()
    fake_clock.advance(0.5)
    assert breaker.allow()


def test_a_window_forgives_single_failures(fake_clock):
    breaker = CircuitBreaker(0.5, fake_clock, window=8, failure_rate=0.5)
    for _ in range(20):  # every third call fails: never four of eight
        breaker.succeeded()
        breaker.succeeded()
        breaker.failed()
        assert not breaker.is_open
    breaker = CircuitBreaker(0.5, fake_clock, window=8, failure_rate=0.5)
    for call in range(4):
        assert not breaker.is_open, call
        breaker.failed()
    assert breaker.is_open
    fake_clock.advance(0.5)
    assert breaker.allow()
    breaker.succeeded()  # the trial closes, and what was before it no longer counts
    for _ in range(3):
        breaker.failed()
    assert not breaker.is_open


def test_half_of_the_calls_failing_opens(fake_clock):
    breaker = CircuitBreaker(0.5, fake_clock, window=8, failure_rate=0.5)
    for _ in range(3):
        breaker.failed()
        breaker.succeeded()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retry_after_s": 0}, "retry_after_s must be > 0, got 0"),
        ({"window": 0}, "window must be >= 1 and failure_rate in .*got 0 and 0.5"),
        ({"failure_rate": 0.0}, "failure_rate in .*got 1 and 0.0"),
        ({"failure_rate": 1.5}, "failure_rate in .*got 1 and 1.5"),
    ],
)
def test_bad_arguments(arguments, message, fake_clock):
    with pytest.raises(ValueError, match=message):
        CircuitBreaker(**{"retry_after_s": 0.5, "clock": fake_clock, **arguments})
