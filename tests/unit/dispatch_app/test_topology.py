"""The order queue is taken as a quorum queue; what would lose orders is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from dispatch_app import topology
from dispatch_app.settings import RETRY_DELAYS, load

from .test_consumer import Bench, Broker

SETTINGS = load({"AMQP_HOST": "a", "AMQP_PASS": "b"})


def refusal(name: str, argument: str, code: int = 406) -> ChannelClosedByBroker:
    said = f"inequivalent arg '{argument}' for queue '{name}' in vhost '/': received none but current is 'x'"
    return ChannelClosedByBroker(code, f"PRECONDITION_FAILED - {said}")


class Channel:
    """Stands for a channel of a broker whose queues have types of their own; it is closed by the first refusal."""

    def __init__(self, types: dict[str, str]) -> None:
        self._types = types
        self.error: Exception | None = None
        self.declared: list[tuple[str, bool]] = []

    def queue_declare(
        self, name: str, passive: bool, arguments: dict[str, Any] | None, callback: Any, **_: Any
    ) -> None:
        found = self._types.get(name, "classic")
        if self.error:
            return
        if not passive and (arguments or {}).get("x-queue-type", "classic") != found:
            self.error = refusal(name, "x-queue-type")
            return
        self.declared.append((name, passive))
        callback(None)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


def declare(types: dict[str, str]) -> tuple[Channel, int]:
    """Return the last channel, and how many it took."""
    declaration, count = topology.Declaration(SETTINGS), 0
    while True:
        channel, count = Channel(types), count + 1
        declaration.send(channel)
        if channel.error is None or not declaration.can_go_on(channel.error):
            return channel, count


def test_what_is_as_everywhere_takes_one_channel() -> None:
    channel, count = declare({})
    assert (channel.error, count) == (None, 1)
    assert not any(passive for _, passive in channel.declared)


def test_an_order_queue_of_another_type_is_taken_as_it_is() -> None:
    channel, count = declare({"orders": "quorum"})
    assert (channel.error, count) == (None, 2)
    assert [name for name, passive in channel.declared if passive] == ["orders"]


def test_retry_queues_of_another_type_are_taken_and_still_lead_back() -> None:
    channel, count = declare(dict.fromkeys(["orders", *topology.retry_queues(SETTINGS)], "quorum"))
    assert (channel.error, count) == (None, 2 + len(RETRY_DELAYS))
    for name in topology.retry_queues(SETTINGS):
        assert (topology.ways(SETTINGS)[name][1].arguments or {})["x-dead-letter-routing-key"] == "orders"


def test_dead_letters_are_kept_in_no_quorum_queue() -> None:
    channel, count = declare({"orders.dead": "quorum"})
    assert (count, "orders.dead" in str(channel.error)) == (1, True)


@pytest.mark.parametrize(
    "error",
    [
        refusal("orders", "durable"),
        refusal("orders", "auto_delete"),
        refusal("orders", "x-max-length"),
        refusal("orders", "x-queue-type", 405),
        ChannelClosedByBroker(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'orders'"),
        ChannelClosedByBroker(404, "NOT_FOUND - no queue 'orders' in vhost '/'"),
        ConnectionError(),
    ],
)
def test_what_would_lose_orders_is_refused(error: Exception) -> None:
    declaration = topology.Declaration(SETTINGS)
    declaration.send(Broker())
    assert not declaration.can_go_on(error)


def test_after_the_declaration_nothing_is_sent_again() -> None:
    declaration = topology.Declaration(SETTINGS)
    declaration.send(Channel({}))
    assert not declaration.can_go_on(refusal("orders", "x-queue-type"))


def test_the_consumer_goes_on_with_a_new_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "ledger.db")
    opened: list[object] = []
    monkeypatch.setattr(bench.broker, "channel", lambda on_open_callback: opened.append(on_open_callback))
    for more in ([], [ConnectionError()]):
        for error in more or [refusal("robot-shop", "x-queue-type")]:
            bench.consumer._on_close(None, error)
    assert len(opened) == 1
    assert len(bench.lost) == 1
    bench.ledger.close()
