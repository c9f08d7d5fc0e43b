"""The breaker holds all orders while an endpoint is away, and lets one at a time find out whether it is back."""

from __future__ import annotations

import pytest

from dispatch_app.effects.breaker import DELAYS, IN_A_ROW, LONGEST, CircuitBreaker


@pytest.fixture
def opened() -> CircuitBreaker:
    """A breaker that has been open since 100."""
    breaker = CircuitBreaker()
    for _ in range(IN_A_ROW):
        breaker.away(100, 0)
    return breaker


def test_a_few_that_fail_among_others_hold_nothing() -> None:
    breaker = CircuitBreaker()
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            breaker.away(100, 0)
        assert (breaker.state, breaker.allows(100)) == ("closed", True)
        breaker.succeeded()


def test_one_probe_goes_after_the_delay_and_closes_it(opened: CircuitBreaker) -> None:
    assert not opened.allows(100 + DELAYS[0] - 0.1)
    assert opened.allows(100 + DELAYS[0])
    assert (opened.state, opened.allows(1000)) == ("half-open", False)
    opened.succeeded()
    assert (opened.state, opened.allows(1000)) == ("closed", True)


def test_the_delay_doubles_up_to_a_bound_and_starts_small_again_once_it_was_closed(opened: CircuitBreaker) -> None:
    now, delays = 100.0, []
    for _ in range(8):
        begun = now
        while not opened.allows(now):
            now += 0.5
        delays.append(now - begun)
        opened.away(now, 0)
    assert delays == [1, 2, 4, 8, 16, DELAYS[1], DELAYS[1], DELAYS[1]]
    opened.succeeded()
    for _ in range(IN_A_ROW):
        opened.away(now, 0)
    assert opened.allows(now + DELAYS[0])


def test_those_under_way_when_it_opened_do_not_make_it_wait_longer(opened: CircuitBreaker) -> None:
    for _ in range(7):
        opened.away(100.5, 0)
    assert opened.allows(100.5 + DELAYS[0])


def test_an_endpoint_that_asks_for_a_pause_gets_it_at_once_and_no_longer_than_the_bound() -> None:
    breaker = CircuitBreaker()
    breaker.away(100, 20)
    assert (breaker.allows(119), breaker.allows(120)) == (False, True)
    breaker.away(120, 1e9)
    assert (breaker.allows(119 + LONGEST), breaker.allows(120 + LONGEST)) == (False, True)
