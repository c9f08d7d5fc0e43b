"""The order of effects: record, then acknowledge, and never on another channel."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dispatch_app import consumer as module
from dispatch_app.amqp import properties
from dispatch_app.consumer import Consumer
from dispatch_app.effects.port import Breaker
from dispatch_app.effects.rate import Rate
from dispatch_app.effects.workers import Workers
from dispatch_app.health import State
from dispatch_app.ledgers.desk import AtOnce, Desk
from dispatch_app.ledgers.port import Filter, Ledger
from dispatch_app.ledgers.sqlite import SqliteLedger, read
from dispatch_app.orders import Order
from dispatch_app.settings import load
from dispatch_app.suspects import Suspects


class Broker:
    """Stands for pika's connection, its loop and its channels; records what is asked of them."""

    is_open = True
    answers = True  # at once
    trouble = False  # something can't be put aside, so acknowledgements may come one by one

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.woken = threading.Event()
        self.acks: list[int] = []
        self.published: list[str] = []
        self.confirm: Callable[[Any], None] | None = None
        self.ioloop = self
        self.params = self
        self.frame_max = 131072
        self.channel_number = 1

    def call_later(self, _delay: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        self.timers.append(callback)
        self.woken.set()

    def fire(self) -> None:
        self.woken.clear()
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        on_open_callback(self)

    def confirm_delivery(self, confirm: Callable[[Any], None], callback: Callable[[Any], None]) -> None:
        self.confirm = confirm
        callback(None)

    def basic_consume(self, *_: Any, callback: Callable[[Any], None], **__: Any) -> None:
        callback(None)

    def basic_cancel(self, _tag: str, callback: Callable[[Any], None]) -> None:
        if self.answers:
            callback(None)
        else:
            self.timers.append(lambda: callback(None))

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        # RabbitMQ closes the channel where there is none of a tag's to acknowledge any more.
        assert tag not in self.acks
        assert multiple or self.trouble
        self.acks.append(tag)

    def basic_publish(self, _exchange: str, queue: str, *_: Any, **__: Any) -> None:
        self.published.append(queue)

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Aside(Broker):
    """The connection of what is put aside; every channel on it is another one."""

    is_closing = is_closed = False

    def __init__(self, lost: Callable[[Any, Exception], None]) -> None:
        super().__init__()
        self._lost = lost

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        on_open_callback(Channel(self))

    def close(self) -> None:
        self._lost(self, RuntimeError("closed"))


class Channel:
    """One channel of such a connection."""

    is_open = True

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def close(self) -> None:
        self.is_open = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


class Call:
    """An effect that calls a function."""

    name = "call"
    reasons: tuple[str, ...] = ("call-failed",)
    threads = 1
    breaker: Breaker | None = None

    def __init__(self, function: Callable[[Order], object]) -> None:
        self._function = function

    def perform(self, order: Order) -> None:
        self._function(order)

    def close(self) -> None:
        """There is nothing to give up."""


class Bench:
    """A consumer on a stand-in broker with a real ledger, and with an effect if it is given a function."""

    def __init__(
        self, path: Path, effect: Callable[[Order], object] | None = None, rate: Rate | None = None,
        desk: Callable[[Ledger], Desk] = AtOnce, spans: Any = None,
    ) -> None:  # fmt: skip
        self.path = path
        self.ledger = SqliteLedger(path)
        self.state = State()
        self.broker = Broker()
        self.lost: list[Exception] = []
        wake = self.broker.add_callback_threadsafe
        self.workers = Workers(Call(effect), self.state, wake, rate) if effect else None
        settings = load({"AMQP_HOST": "a", "AMQP_PASS": "b"})
        connection: Any = self.broker
        self.consumer = Consumer(
            connection,
            "a",
            settings,
            desk(self.ledger),
            self.state,
            self.workers,
            spans,
            self.lost.append,
            self.connect,
            Suspects(path.parent),
        )

    def connect(self, opened: Callable[[Any], None], lost: Callable[[Any, Exception], None]) -> Aside:
        self.aside = Aside(lost)
        opened(self.aside)
        return self.aside

    def deliver(self, tag: int, body: bytes | str, redelivered: int = 0, raw: bytes = b"\x20\x00\0\0\0\0") -> None:
        if isinstance(body, str):
            body = json.dumps({"orderid": body}).encode()
        self.consumer._on_delivery((tag, redelivered, b"\x0arobot-shop\x06orders", raw, body))

    def fire_until(self, done: Callable[[], object]) -> None:
        """Let the loop turn until something has come about that a thread works on."""
        until = time.monotonic() + 20
        while not done():
            assert time.monotonic() < until
            self.broker.woken.wait(0.01)
            self.broker.fire()

    def close(self) -> None:
        if self.workers:
            self.workers.close()
        self.ledger.close()

    def recorded(self) -> list[str]:
        return sorted(order["id"] for order in read(self.path, 1000, Filter()))

    def confirm(
        self, tag: int, name: str = "Basic.Ack", several: bool = False, to: Callable[[Any], None] | None = None
    ) -> None:
        class Frame:
            class method:  # noqa: N801 - pika's name
                NAME = name
                delivery_tag = tag
                multiple = several

        self.broker.trouble |= name == "Basic.Nack"
        to = to or self.aside.confirm
        assert to
        to(Frame)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


def test_orders_are_acknowledged_once_recorded_and_together(bench: Bench) -> None:
    for tag, order_id in enumerate("abc", 1):
        bench.deliver(tag, order_id)
    assert (bench.recorded(), bench.broker.acks) == ([], [])
    bench.broker.fire()
    assert (bench.recorded(), bench.broker.acks) == (["a", "b", "c"], [3])
    assert (bench.state.dispatched, bench.state.in_flight) == (3, 0)


def test_a_full_batch_does_not_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    bench.deliver(1, "a")
    assert bench.broker.acks == []
    bench.deliver(2, "b")
    assert bench.broker.acks == [2]


def test_nothing_is_acknowledged_while_the_ledger_fails_and_all_of_it_later(bench: Bench) -> None:
    other = sqlite3.connect(bench.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    bench.deliver(1, "a")
    bench.broker.fire()
    assert bench.broker.acks == []
    assert "locked" in bench.state.reasons["ledger"]
    bench.deliver(2, "b")
    other.execute("ROLLBACK")
    other.close()
    bench.consumer._retry_at = 0.0  # the time has come
    bench.broker.fire()
    assert bench.broker.acks[-1] == 2
    assert bench.recorded() == ["a", "b"]
    assert "ledger" not in bench.state.reasons


def test_a_redelivery_is_acknowledged_and_counted_not_recorded_again(bench: Bench) -> None:
    bench.deliver(1, "a")
    bench.broker.fire()
    bench.deliver(2, "a", redelivered=1)
    bench.broker.fire()
    assert bench.broker.acks == [1, 2]
    assert (bench.state.dispatched, bench.state.duplicates, bench.state.redelivered) == (1, 1, 1)


def test_a_bad_order_is_acknowledged_only_when_its_copy_is_confirmed(bench: Bench) -> None:
    bench.deliver(1, "a")
    bench.deliver(2, b"nonsense")
    bench.deliver(3, "c")
    bench.broker.fire()
    assert bench.recorded() == ["a", "c"]
    assert bench.aside.published == ["orders.dead"]
    assert bench.broker.acks == [1]  # up to the hole
    bench.confirm(1)
    assert bench.broker.acks == [1, 3]
    assert +bench.state.dead == {"not-json": 1}


def test_an_order_that_is_too_large_is_a_dead_letter_and_its_siblings_go_on(bench: Bench) -> None:
    bench.consumer._settings = replace(bench.consumer._settings, max_body=1000)
    bench.deliver(1, b'{"orderid": "bomb"}'.ljust(1001))
    bench.deliver(2, "b")
    bench.broker.fire()
    assert bench.aside.published == ["orders.dead"]
    bench.confirm(1)
    assert (bench.recorded(), +bench.state.dead, bench.broker.acks) == (["b"], {"too-large": 1}, [2])


def test_a_copy_the_broker_refuses_is_sent_again_not_acknowledged(bench: Bench) -> None:
    bench.deliver(1, b"nonsense")
    bench.broker.fire()
    bench.confirm(1, "Basic.Nack")
    assert bench.broker.acks == []
    assert "orders.dead" in bench.state.reasons["outbox"]
    bench.broker.fire()
    assert bench.aside.published == ["orders.dead"] * 2
    bench.confirm(1)
    assert bench.broker.acks == [1]
    assert "outbox" not in bench.state.reasons


def test_tags_of_a_lost_channel_are_never_acknowledged(bench: Bench) -> None:
    bench.deliver(1, "a")
    bench.consumer.close()
    bench.broker.fire()
    assert (bench.recorded(), bench.broker.acks) == ([], [])


def test_draining_finishes_what_is_at_hand_first(bench: Bench) -> None:
    drained: list[bool] = []
    bench.deliver(1, "a")
    bench.deliver(2, b"nonsense")
    bench.consumer.drain(lambda: drained.append(True))
    assert bench.recorded() == ["a"]
    assert drained == []  # the copy is not confirmed yet
    bench.confirm(1)
    assert drained == [True]
    assert bench.broker.acks == [1, 2]


def test_draining_takes_what_is_delivered_until_the_broker_has_answered(bench: Bench) -> None:
    drained: list[bool] = []
    bench.broker.answers = False
    bench.deliver(1, "a")
    timers, bench.broker.timers = bench.broker.timers, []
    bench.consumer.drain(lambda: drained.append(True))
    for timer in timers:
        timer()
    assert bench.recorded() == ["a"]
    assert drained == []
    bench.deliver(2, "b")
    bench.broker.fire()
    assert bench.recorded() == ["a", "b"]
    assert drained == [True]
    assert bench.broker.acks == [1, 2]


def test_draining_ends_after_the_last_of_several_confirmed_at_once(bench: Bench) -> None:
    acks_when_drained: list[int] = []
    bench.deliver(1, b"nonsense")
    bench.deliver(2, b"more nonsense")
    bench.consumer.drain(lambda: acks_when_drained.extend(bench.broker.acks))
    bench.confirm(2, several=True)
    assert acks_when_drained == [1, 2]


def test_notes_forged_by_a_publisher_harm_nothing(bench: Bench) -> None:
    forged = [(b"x-dispatch-first-seen", b"l" + b"\xff" * 8), (b"x-dispatch-attempt", b"l" + b"\xff" * 8)]
    raw = properties.join({"headers": properties.join_table(forged)})
    bench.consumer._on_delivery((1, 0, b"\x0arobot-shop\x06orders", raw, b"nonsense"))
    bench.broker.fire()
    assert bench.aside.published == ["orders.dead"]


def test_a_late_word_of_a_channel_that_was_left_counts_for_nothing(bench: Bench) -> None:
    bench.deliver(1, b"nonsense")
    bench.broker.fire()
    left = bench.aside.confirm
    bench.confirm(1, "Basic.Nack")
    bench.broker.fire()
    assert bench.aside.published == ["orders.dead"] * 2  # the second on another channel
    bench.confirm(1, to=left)
    assert bench.broker.acks == []
    bench.confirm(1)
    assert bench.broker.acks == [1]


def test_what_is_in_flight_is_what_is_not_acknowledged(bench: Bench) -> None:
    bench.deliver(1, b"nonsense")
    bench.deliver(2, "b")
    bench.deliver(3, "c")
    bench.broker.fire()
    assert bench.recorded() == ["b", "c"]
    assert bench.state.in_flight == 3
    assert bench.state.ack.counts["+Inf"] == 0
    bench.confirm(1)
    assert bench.broker.acks == [3]
    assert (bench.state.in_flight, bench.state.ack.counts["+Inf"]) == (0, 1)


def test_the_time_to_the_acknowledgement_counts_from_the_arrival(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("dispatch_app.consumer.time.monotonic", lambda: now[0])
    other = sqlite3.connect(bench.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    bench.deliver(1, "a")
    bench.broker.fire()
    now[0] += 40
    bench.deliver(2, "b")
    other.execute("ROLLBACK")
    other.close()
    bench.broker.fire()
    assert bench.broker.acks == [2]
    assert bench.state.ack.sum == 40


def test_more_than_the_memory_can_take_is_taken_in_smaller_portions(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELD_OCTETS", 10_000)
    for tag in range(1, 10):
        bench.deliver(tag, b" " * 999)
    assert bench.lost == []
    bench.deliver(10, b" " * 2000)
    assert [getattr(error, "prefetch", 0) for error in bench.lost] == [5]


def test_what_has_been_acknowledged_takes_no_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.deliver(1, b"nonsense")
    bench.broker.fire()
    bench.confirm(1, "Basic.Nack")
    for tag in range(2, 102):
        bench.deliver(tag, f"order-{tag}")
        bench.broker.fire()
    assert bench.state.in_flight == 1
    monkeypatch.setattr(module, "HELD_OCTETS", 10_000)
    for tag in range(102, 107):
        bench.deliver(tag, b" " * 2000)
    assert [getattr(error, "prefetch", 0) for error in bench.lost] == [3]  # half of the six that are in flight


@pytest.mark.parametrize(("configured", "expected"), [(6, 3), (1, 1)])
def test_smaller_portions_are_never_larger_than_what_is_configured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, configured: int, expected: int
) -> None:
    bench.consumer._settings = replace(bench.consumer._settings, prefetch=configured)
    monkeypatch.setattr(module, "HELD_OCTETS", 10_000)
    for tag in range(1, 12):
        bench.deliver(tag, b" " * 1000)
    assert [getattr(error, "prefetch", 0) for error in bench.lost] == [expected]


def test_one_delivery_is_taken_however_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_OCTETS", 10)
    bench.deliver(1, "a")
    bench.broker.fire()
    assert (bench.lost, bench.recorded()) == ([], ["a"])
    bench.deliver(2, "b")
    assert bench.lost == []


def test_what_can_t_be_put_aside_holds_nothing_else_back(bench: Bench) -> None:
    bench.deliver(1, b"nonsense")
    bench.deliver(2, "b")
    bench.broker.fire()
    assert bench.broker.acks == []
    bench.confirm(1, "Basic.Nack")
    assert bench.broker.acks == [2]
    bench.deliver(3, "c")
    bench.broker.fire()  # which sends the copy again, too
    assert bench.broker.acks == [2, 3]
    assert bench.state.in_flight == 1
    bench.confirm(1)
    assert bench.broker.acks == [2, 3, 1]
    bench.broker.trouble = False
    bench.deliver(4, "d")
    bench.deliver(5, "e")
    bench.broker.fire()
    assert bench.broker.acks == [2, 3, 1, 5]
    assert bench.state.in_flight == 0


def test_what_is_remembered_of_a_long_trouble_is_limited(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 2)

    def lost(error: Exception) -> None:  # as the service does
        bench.lost.append(error)
        bench.consumer.close()

    bench.consumer._lost = lost
    bench.deliver(1, b"nonsense")
    bench.broker.fire()
    bench.confirm(1, "Basic.Nack")
    for tag in (2, 3, 4):
        assert bench.lost == []
        bench.deliver(tag, f"order-{tag}")
        bench.broker.fire()
    assert bench.broker.acks == [2, 3, 4]
    assert [getattr(error, "prefetch", 0) for error in bench.lost] == [4000]
    assert bench.state.in_flight == 0
