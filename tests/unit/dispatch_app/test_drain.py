"""Waiting for the queues to be empty: what counts, what is said, when it ends."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from dispatch_app import drain, status
from dispatch_app.doctor.commands import Done
from dispatch_app.settings import load

SETTINGS = load({"AMQP_HOST": "mq", "AMQP_PASS": "s3cret-word"})


class Broker:
    """A connection on which each look at a queue finds the next of its counts; the last one stays."""

    is_open = True

    def __init__(self, consumers: int = 1, **counts: list[int | None]) -> None:
        self._consumers = consumers
        self._counts = {name.replace("_", "."): list(values) for name, values in counts.items()}
        self.now = 0.0

    def channel(self) -> Any:
        return SimpleNamespace(queue_declare=self._declare, close=lambda: None)

    def _declare(self, queue: str, passive: bool) -> Any:
        assert passive
        counts = self._counts.get(queue, [0])
        count = counts.pop(0) if len(counts) > 1 else counts[0]
        if count is None:
            raise ChannelClosedByBroker(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")
        if count < 0:
            raise ChannelClosedByBroker(404, f"NOT_FOUND - home node 'rabbit@b' of durable queue '{queue}' is down")
        return SimpleNamespace(method=SimpleNamespace(message_count=count, consumer_count=self._consumers))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def close(self) -> None:
        pass


def never() -> int:
    return 0


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(broker: Broker, timeout: float | None, in_hand: Callable[[], int | None] = never) -> int:
        monkeypatch.setattr(pika, "BlockingConnection", lambda _: broker)
        monkeypatch.setattr(drain, "time", SimpleNamespace(monotonic=lambda: broker.now))
        return drain.drain(SETTINGS, pika.ConnectionParameters(), timeout, in_hand)

    return run


def test_it_ends_once_the_queues_have_stayed_empty(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    broker = Broker(orders=[7, 0, 2, 0])
    assert run(broker, None) == 0
    # The third look, 1 s on, was the last that found an order.
    assert broker.now == 1.0 + drain.QUIET
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["7", "0", "2", "0"]


def test_orders_to_be_tried_again_are_waited_for(run: Any) -> None:
    broker = Broker(orders_retry_30s=[3, 3, 3, 3, 0])
    assert run(broker, None) == 0
    assert broker.now == 1.5 + drain.QUIET


def test_orders_in_the_queues_of_changed_retry_delays_are_waited_for_too(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SETTINGS", replace(SETTINGS, retry_delays=(7,)))
    # The one in use, and one of the default.
    for broker in (Broker(orders_retry_7s=[3, 3, 0]), Broker(orders_retry_30s=[3, 3, 0])):
        assert run(broker, None) == 0
        assert broker.now == 0.5 + drain.QUIET


def test_it_gives_up_in_time_and_tells_what_is_left(run: Any) -> None:
    assert run(Broker(orders=[5], orders_retry_1s=[2]), 2.0) == 7


def test_orders_that_are_delivered_and_not_acknowledged_are_waited_for(run: Any) -> None:
    held = iter([5, 5, 2, 0])
    broker = Broker()
    assert run(broker, None, lambda: next(held, 0)) == 0
    assert broker.now == 1.0 + drain.QUIET
    assert run(Broker(), 4.0, lambda: 5) == 5


def test_a_service_that_does_not_tell_what_it_has_is_not_taken_for_idle(run: Any) -> None:
    with pytest.raises(drain.UncountableError, match=r"http://127\.0\.0\.1:9672/metrics does not tell"):
        run(Broker(), None, lambda: None)
    # It may have restarted a moment ago.
    held = iter([None] * 20)
    assert run(Broker(), None, lambda: next(held, 0)) == 0


def test_a_service_that_is_stopping_consumes_no_more_and_still_has_orders_in_hand(run: Any) -> None:
    held = iter([5, 5, 2, 0])
    broker = Broker(consumers=0)
    assert run(broker, None, lambda: next(held, 0)) == 0
    assert broker.now == 1.0 + drain.QUIET


def test_the_service_is_asked_by_http_and_systemd_where_it_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid = "0"
    answers = {"http://127.0.0.1:9672/metrics": {"dispatch_orders_in_flight": 7.0}}
    monkeypatch.setattr(status, "counters", lambda url: answers.get(url, {}))
    monkeypatch.setattr(drain, "run", lambda *_: Done(0, f"{pid}\n"))
    assert drain.in_hand(SETTINGS) == 7
    answers.clear()
    assert drain.in_hand(SETTINGS) == 0
    pid = "4711"
    assert drain.in_hand(SETTINGS) is None


def test_a_queue_whose_node_is_down_is_not_taken_for_empty(run: Any) -> None:
    with pytest.raises(ChannelClosedByBroker, match="home node"):
        run(Broker(orders_retry_1s=[-1]), None)


def test_a_queue_that_does_not_exist_is_empty(run: Any) -> None:
    assert run(Broker(orders=[None]), None) == 0
