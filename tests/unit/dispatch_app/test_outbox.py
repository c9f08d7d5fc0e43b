"""What the broker does not take as a dead letter is neither sent for ever nor in the way of anything else."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pika import exceptions

from dispatch_app.amqp import envelope
from dispatch_app.amqp.properties import RawProperties
from dispatch_app.outbox import Outbox, Parcel
from dispatch_app.settings import load

LONGEST = 200_000  # octets of a message that this broker takes


class Broker:
    """A connection and its channel, to a broker that closes the channel for a message that is too long."""

    is_open = True
    is_closing = is_closed = False
    away = False  # the queue's node is down: a declaration is refused, and what is sent there comes back
    returns = 0

    def __init__(self) -> None:
        self.params = self
        self.frame_max = 131072
        self.taken: list[bytes] = []
        self.refusals = 0
        self.timers: list[Callable[[], None]] = []
        self.closed: Any = None

    def connect(self, opened: Callable[[Any], None], _lost: Any) -> Any:
        opened(self)
        return self

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        self.sequence, self.open = 0, True
        on_open_callback(self)

    def confirm_delivery(self, confirm: Callable[[Any], None], callback: Callable[[Any], None]) -> None:
        self.confirm = confirm
        if self.open:
            callback(None)

    def add_on_close_callback(self, callback: Any) -> None:
        self.closed = callback

    def add_on_return_callback(self, callback: Any) -> None:
        self.returned = callback

    def queue_declare(self, name: str, *_: Any, callback: Callable[[Any], None], **__: Any) -> None:
        if not self.open:
            return
        if self.away and name == "orders.dead":
            self.open = False
            error = exceptions.ChannelClosedByBroker(404, f"NOT_FOUND - home node of durable queue '{name}' is down")
            self.timers.append(lambda: self.closed(self, error))
        else:
            callback(None)

    def basic_publish(self, _exchange: str, _queue: str, body: bytes, props: RawProperties, *_: Any, **__: Any) -> None:
        self.sequence += 1
        if self.open and self.away:
            self.returns += 1
            self.timers.append(partial(self.returned, self, None, props, body))
            self.timers.append(partial(self.confirmed, self.sequence))
        elif self.open and len(body) > LONGEST:
            self.open, self.refusals = False, self.refusals + 1
            error = exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED - message size is larger than max")
            self.timers.append(lambda: self.closed(self, error))
        elif self.open:
            self.taken.append(body)
            self.timers.append(partial(self.confirmed, self.sequence))

    def confirmed(self, tag: int) -> None:
        class Frame:
            class method:  # noqa: N801 - pika's name
                NAME, delivery_tag, multiple = "Basic.Ack", tag, False

        self.confirm(Frame)

    def call_later(self, _delay: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@pytest.fixture
def sent() -> tuple[Broker, Callable[[bytes], None], list[int]]:
    broker, done = Broker(), []
    settings = load({"AMQP_HOST": "a", "AMQP_PASS": "b", "DISPATCH_MAX_BODY": "300000"})
    outbox = Outbox(broker.connect, settings, "a", broker, lambda _: None)

    def send(body: bytes) -> None:
        outbox.send(Parcel("orders.dead", b"\0\0", body, {"reason": "x"}, lambda: done.append(len(body))))

    return broker, send, done


def test_a_body_that_is_too_large_for_the_broker_is_kept_by_its_head(sent: Any) -> None:
    broker, send, done = sent
    send(b"x" * 300_001)
    for _ in range(10):
        broker.fire()
    assert broker.taken == [b"x" * envelope.HEAD]
    assert broker.refusals == 3  # in place, enveloped, bare
    assert done == [300_001]


def test_an_order_is_never_cut_and_holds_no_other_back(sent: Any) -> None:
    broker, send, done = sent
    send(b"x" * 300_000)
    send(b"y" * 1000)
    for _ in range(10):
        broker.fire()
    assert broker.taken == [b"\0\0" + b"y" * 1000]  # with its properties in front
    assert done == [1000]


def test_what_belongs_in_a_queue_that_is_away_is_held_until_it_is_back(sent: Any) -> None:
    broker, send, done = sent
    broker.away = True
    send(b"an order")
    for _ in range(20):
        broker.fire()
    assert done == []
    assert broker.returns > 2
    broker.away = False
    for _ in range(10):
        broker.fire()
    assert done == [len(b"an order")]


def test_what_is_cut_tells_of_the_whole() -> None:
    raw, body = envelope.wrap(b"\0\0", b"z" * 100_000, {"reason": "too-large"}, envelope.CUT, 131072)
    _, head, notes = envelope.unwrap(raw, body)
    assert head == b"z" * envelope.HEAD
    assert (notes["whole-octets"], len(notes["whole-sha256"])) == ("100000", 64)
