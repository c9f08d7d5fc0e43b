"""What waits in another queue comes into the order queue, each message before it leaves the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pika
import pytest
from pika import exceptions

from dispatch_app.move import move
from dispatch_app.settings import load

SETTINGS = load({"AMQP_HOST": "mq", "AMQP_PASS": "p"})


class Broker:
    """A connection and its channel, to a broker that refuses a publish after `limit` of them."""

    is_open = True

    def __init__(self, *waiting: bytes, limit: int = 99, missing: bool = False) -> None:
        self.waiting, self.out = list(waiting), dict[int, bytes]()
        self.orders: list[bytes] = []
        self.limit, self.missing, self.tag = limit, missing, 0
        self._impl = SimpleNamespace(params=SimpleNamespace(frame_max=131072))

    def channel(self) -> Any:
        return self

    def confirm_delivery(self) -> None: ...

    def basic_get(self, queue: str) -> Any:
        assert queue == "orders.moving"
        if self.missing:
            raise exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'orders.moving' in vhost '/'")
        if not self.waiting:
            return None, None, None
        self.tag += 1
        self.out[self.tag] = self.waiting.pop(0)
        return SimpleNamespace(delivery_tag=self.tag), SimpleNamespace(raw=b"\0\0"), self.out[self.tag]

    def basic_publish(self, exchange: str, queue: str, body: bytes, _props: Any, mandatory: bool) -> None:
        assert (exchange, queue, mandatory) == ("", "orders", True)
        if len(self.orders) == self.limit:
            raise exceptions.UnroutableError([])
        self.orders.append(body)

    def basic_ack(self, tag: int) -> None:
        assert self.out.pop(tag) in self.orders

    def close(self) -> None: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(broker: Broker) -> int:
        monkeypatch.setattr(pika, "BlockingConnection", lambda _: broker)
        return move(SETTINGS, pika.ConnectionParameters(), "orders.moving")

    return run


def test_all_of_it_is_moved_as_it_is(run: Any) -> None:
    broker = Broker(b"a", b"b")
    assert run(broker) == 2
    assert (broker.orders, broker.out) == ([b"a", b"b"], {})


def test_what_the_order_queue_does_not_take_stays_where_it_is(run: Any) -> None:
    broker = Broker(b"a", b"b", limit=1)
    with pytest.raises(exceptions.UnroutableError):
        run(broker)
    assert list(broker.out.values()) == [b"b"]  # unacknowledged: RabbitMQ puts it back


def test_a_queue_that_is_not_there_is_empty(run: Any) -> None:
    assert run(Broker(missing=True)) == 0
