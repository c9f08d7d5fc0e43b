"""An order is recorded and acknowledged only after its effect, and the event loop never waits for one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch_app.effects import breaker, workers
from dispatch_app.effects.port import EffectError
from dispatch_app.effects.rate import Rate
from dispatch_app.ledgers.port import AwayError
from dispatch_app.orders import Order

from .test_consumer import Bench, Call


class Shop:
    """What effects do: it takes orders, and may be closed, slow or away."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.errors: dict[str, list[EffectError]] = {}

    def __call__(self, order: Order) -> None:
        self.asked.append(order.id)
        assert self.open.wait(20)
        if self.errors.get(order.id):
            raise self.errors[order.id].pop(0)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def bench(tmp_path: Path, shop: Shop) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger.db", shop)
    yield made
    shop.open.set()
    made.close()


def test_an_order_waits_unacknowledged_for_its_effect_and_the_loop_turns(bench: Bench, shop: Shop) -> None:
    shop.open.clear()
    bench.deliver(1, "a")
    bench.fire_until(lambda: shop.asked)
    bench.deliver(2, b"nonsense")
    bench.fire_until(lambda: getattr(bench, "aside", None))
    assert (bench.recorded(), bench.broker.acks, bench.state.in_flight) == ([], [], 2)
    shop.open.set()
    bench.fire_until(lambda: bench.broker.acks)
    assert (bench.recorded(), bench.broker.acks, bench.state.effects["call", "done"]) == (["a"], [1], 1)


def test_an_effect_that_fails_is_put_aside_for_its_reason_and_records_nothing(bench: Bench, shop: Shop) -> None:
    shop.errors["bad"] = [EffectError("call-failed", "courier is away", kind="ConnectionError")]
    bench.deliver(1, "bad")
    bench.deliver(2, "good")
    bench.fire_until(bench.recorded)
    assert (bench.recorded(), bench.aside.published, bench.broker.acks) == (["good"], ["orders.retry.1s"], [])
    bench.confirm(1)
    assert (bench.broker.acks, bench.state.retried) == ([2], {"call-failed": 1})
    assert bench.state.effects == {("call", "done"): 1, ("call", "call-failed"): 1}


def test_the_effect_of_an_order_comes_about_once_however_often_it_is_delivered(bench: Bench, shop: Shop) -> None:
    shop.open.clear()
    bench.deliver(1, "a")
    bench.deliver(2, "a")
    bench.fire_until(lambda: shop.asked)
    shop.open.set()
    bench.fire_until(lambda: bench.broker.acks)
    bench.deliver(3, "a", redelivered=1)
    bench.fire_until(lambda: bench.broker.acks == [2, 3])
    assert (shop.asked, bench.state.dispatched, bench.state.duplicates) == (["a"], 1, 2)


def test_orders_that_share_an_outcome_are_put_aside_together(bench: Bench, shop: Shop) -> None:
    shop.errors["a"] = [EffectError("call-failed", "no")]
    shop.open.clear()
    bench.deliver(1, "a")
    bench.deliver(2, "a")
    bench.fire_until(lambda: shop.asked)
    shop.open.set()
    bench.fire_until(lambda: hasattr(bench, "aside"))
    assert (shop.asked, bench.aside.published) == (["a"], ["orders.retry.1s"] * 2)


def test_what_a_lost_connection_had_in_hand_counts_for_nothing(bench: Bench, shop: Shop) -> None:
    shop.open.clear()
    bench.deliver(1, "a")
    bench.deliver(2, "b")
    bench.fire_until(lambda: shop.asked)
    bench.consumer.close()
    shop.open.set()
    bench.fire_until(lambda: bench.state.effects["call", "done"])
    bench.broker.fire()
    assert (shop.asked, bench.recorded(), bench.broker.acks) == (["a"], [], [])


def test_draining_waits_for_what_is_in_hand_and_leaves_the_rest_to_the_broker(bench: Bench, shop: Shop) -> None:
    drained: list[bool] = []
    shop.open.clear()
    bench.deliver(1, "a")
    bench.deliver(2, "b")
    bench.fire_until(lambda: shop.asked)
    bench.consumer.drain(lambda: drained.append(True))
    assert drained == []
    shop.open.set()
    bench.fire_until(lambda: drained)
    assert (shop.asked, bench.recorded(), bench.broker.acks) == (["a"], ["a"], [1])


def test_while_the_other_side_is_away_orders_are_held_and_then_all_go_on(bench: Bench, shop: Shop) -> None:
    away = [EffectError("call-failed", "nobody answers", away=True) for _ in range(3)]
    shop.errors["a"] = away.copy()
    bench.deliver(1, "a")
    bench.deliver(2, "b")
    bench.fire_until(lambda: bench.broker.acks[-1:] == [2])
    assert (sorted(bench.recorded()), hasattr(bench, "aside")) == (["a", "b"], False)
    assert (shop.asked.count("a"), shop.asked.count("b")) == (4, 1)
    assert ("effect" in bench.state.reasons, bench.state.held) == (False, None)


@pytest.fixture
def guarded(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose effect has a breaker, which opens at the second failure in a row."""
    monkeypatch.setattr(breaker, "IN_A_ROW", 2)
    monkeypatch.setattr(breaker, "DELAYS", (0.05, 0.05))
    monkeypatch.setattr(Call, "breaker", breaker.CircuitBreaker())
    monkeypatch.setattr(workers, "LOOK", 0.01)
    made = Bench(tmp_path / "ledger.db", shop)
    yield made
    made.close()


def test_an_order_that_fails_while_others_get_through_is_put_aside(guarded: Bench, shop: Shop) -> None:
    shop.errors["a"] = [EffectError("call-failed", "500", away=True)]
    guarded.deliver(1, "a")
    guarded.deliver(2, "b")
    guarded.fire_until(guarded.recorded)
    assert (guarded.recorded(), guarded.aside.published, guarded.state.held) == (["b"], ["orders.retry.1s"], None)


def test_while_an_endpoint_is_away_orders_are_held_but_the_service_is_as_ready_as_before(
    guarded: Bench, shop: Shop
) -> None:
    shop.errors = {
        name: [EffectError("call-failed", "nobody answers", away=True) for _ in range(999)] for name in "abc"
    }
    for tag, name in enumerate("abc", 1):
        guarded.deliver(tag, name)
    guarded.fire_until(lambda: guarded.state.held)
    assert (guarded.state.held or ("",))[0] == "nobody answers; orders are held"
    assert "effect" not in guarded.state.reasons
    shop.errors.clear()
    guarded.fire_until(lambda: len(guarded.recorded()) == 2)
    assert (guarded.aside.published, guarded.state.held) == (["orders.retry.1s"], None)


def test_draining_does_not_wait_for_a_side_that_is_away(bench: Bench, shop: Shop) -> None:
    shop.errors["a"] = [EffectError("call-failed", "nobody answers", away=True) for _ in range(1000)]
    shop.open.clear()
    drained: list[bool] = []
    bench.deliver(1, "a")
    bench.fire_until(lambda: shop.asked)
    bench.consumer.drain(lambda: drained.append(True))
    shop.open.set()
    bench.fire_until(lambda: drained)
    assert (shop.asked, bench.recorded(), bench.broker.acks) == (["a"], [], [])
    assert bench.state.reasons["effect"] == "nobody answers; orders are held"


def test_orders_whose_effect_has_come_about_wait_for_the_ledger_and_have_it_once(bench: Bench, shop: Shop) -> None:
    real = bench.ledger.record
    full = [True]

    def record(rows: object) -> list[int]:
        if full:
            raise AwayError("database or disk is full", "free it")
        return real(rows)  # type: ignore[arg-type]

    bench.ledger.record = record  # type: ignore[method-assign]
    bench.deliver(1, "a")
    bench.fire_until(lambda: "ledger" in bench.state.reasons)
    bench.deliver(2, "a")
    full.clear()
    bench.consumer._retry_at = 0.0  # the time has come
    bench.fire_until(lambda: bench.broker.acks)
    assert (shop.asked, bench.recorded(), bench.broker.acks) == (["a"], ["a"], [2])


def test_no_more_orders_go_in_a_second_than_the_rate_allows_however_they_come() -> None:
    rate, now, gone = Rate(50), 1000.0, 0
    moments = [now + number / 1000 for number in range(1000)] + [now + 60 + number / 1000 for number in range(1000)]
    for moment in moments:
        while not rate.wait(moment):
            rate.take()
            gone += 1
        if moment == now + 0.999:
            assert gone in (54, 55)  # a burst of 5, and what came about within the second
    assert gone in (108, 109, 110)  # a long pause allows no more than another such burst
    assert 0 < rate.wait(moments[-1]) <= 1 / 50


class Closed(Rate):
    """A rate that lets only as many orders go as it is told."""

    allowed = 1

    def wait(self, _: float) -> float:
        return 0.0 if self.allowed else 0.01

    def take(self) -> None:
        self.allowed -= 1


def test_orders_wait_unacknowledged_for_the_rate_and_the_loop_turns(tmp_path: Path, shop: Shop) -> None:
    rate = Closed(1)
    bench = Bench(tmp_path / "ledger.db", shop, rate)
    bench.deliver(1, "a")
    bench.deliver(2, "b")
    bench.fire_until(lambda: bench.broker.acks)
    bench.deliver(3, b"nonsense")
    bench.fire_until(lambda: hasattr(bench, "aside"))
    assert (bench.recorded(), bench.broker.acks, bench.state.in_flight, shop.asked) == (["a"], [1], 2, ["a"])
    rate.allowed = 1
    bench.fire_until(lambda: bench.broker.acks == [1, 2])
    bench.close()
