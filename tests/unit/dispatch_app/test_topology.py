"""Queues are taken whatever their type, and one that is away is done without; what would lose orders is refused."""

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

    def __init__(self, types: dict[str, str], default: str) -> None:
        self._types, self._default = types, default
        self.error: Exception | None = None
        self.declared: list[tuple[str, bool]] = []

    def queue_declare(
        self, name: str, passive: bool, arguments: dict[str, Any] | None, callback: Any, **_: Any
    ) -> None:
        found = self._types.get(name, self._default)
        if self.error:
            return
        if found == "away":
            self.error = ChannelClosedByBroker(404, f"NOT_FOUND - home node 'rabbit@b' of queue '{name}' is down")
            return
        if not passive and (arguments or {}).get("x-queue-type", self._default) != found:
            self.error = refusal(name, "x-queue-type")
            return
        self.declared.append((name, passive))
        callback(None)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


def declare(types: dict[str, str], default: str = "classic") -> tuple[Channel, int]:
    """Return the last channel, and how many it took, where new queues are of the type `default`."""
    declaration, count = topology.Declaration(SETTINGS), 0
    while True:
        channel, count = Channel(types, default), count + 1
        declaration.send(channel)
        if channel.error is None or not declaration.can_go_on(channel.error):
            return channel, count


@pytest.mark.parametrize("default", ["classic", "quorum"])
def test_what_is_as_everywhere_takes_one_channel(default: str) -> None:
    channel, count = declare({}, default)
    assert (channel.error, count) == (None, 1)
    assert not any(passive for _, passive in channel.declared)


@pytest.mark.parametrize("arguments", topology.queues(SETTINGS).values())
def test_no_type_is_asked_for_so_that_a_cluster_s_default_decides(arguments: dict[str, Any] | None) -> None:
    assert "x-queue-type" not in (arguments or {})


def test_an_order_queue_of_another_type_is_taken_as_it_is() -> None:
    channel, count = declare({"orders": "quorum"})
    assert (channel.error, count) == (None, 2)
    assert [name for name, passive in channel.declared if passive] == ["orders"]


@pytest.mark.parametrize(("found", "default", "tries"), [("quorum", "classic", 1), ("classic", "quorum", 2)])
def test_queues_of_another_type_are_taken_and_still_lead_back(found: str, default: str, tries: int) -> None:
    channel, count = declare(dict.fromkeys(topology.queues(SETTINGS), found), default)
    assert (channel.error, count) == (None, 3 + tries * len(RETRY_DELAYS))
    passive = [name for name, passive in channel.declared if passive]
    assert passive == ["orders", "orders.dead"]  # whatever their type; a retry queue's arguments are always compared


@pytest.mark.parametrize("types", [{}, {"orders.dead": "quorum"}])
def test_queues_whose_node_is_down_are_done_without(types: dict[str, str]) -> None:
    away = [name for name in topology.queues(SETTINGS) if name not in ("orders", *types)]
    declaration = topology.Declaration(SETTINGS)
    for _ in range(20):
        channel = Channel({**types, **dict.fromkeys(away, "away")}, "classic")
        declaration.send(channel)
        if channel.error is None:
            break
        assert declaration.can_go_on(channel.error)
    assert list(declaration.away) == away
    assert [name for name, _ in channel.declared] == ["orders", *types]
    assert all("rabbit@b" in why for why in declaration.away.values())


def test_without_the_order_queue_nothing_goes_on() -> None:
    channel, count = declare({"orders": "away"})
    assert (count, "'orders'" in str(channel.error)) == (1, True)


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
    declaration.send(Channel({}, "classic"))
    assert not declaration.can_go_on(refusal("orders", "x-queue-type"))


def test_the_consumer_goes_on_with_a_new_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "ledger.db")
    opened: list[object] = []
    monkeypatch.setattr(bench.broker, "channel", lambda on_open_callback: opened.append(on_open_callback))
    for more in ([], [ConnectionError()]):
        for error in more or [refusal("robot-shop", "x-queue-type")]:
            bench.consumer._on_close(bench.consumer._channel, error)
    assert len(opened) == 1
    assert len(bench.lost) == 1
    bench.ledger.close()


class Waiting(Channel):
    """A channel on which the answer about one queue does not come, and so no later answer either."""

    def __init__(self, silent: str) -> None:
        super().__init__({}, "classic")
        self._silent = silent
        self.closed = False
        self.consuming: Any = None  # called, it answers that the consumer is there

    def queue_declare(
        self, name: str, passive: bool, arguments: dict[str, Any] | None, callback: Any, **_: Any
    ) -> None:
        if name == self._silent:
            self.error = TimeoutError()
        super().queue_declare(name, passive, arguments, callback)

    def basic_consume(self, *_: Any, callback: Any, **__: Any) -> None:
        self.consuming = callback
        if self.error is None:
            callback(None)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("late", ["an answer", "a refusal"])
def test_a_queue_that_is_not_answered_for_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, late: str
) -> None:
    channels = [Waiting("orders.dead"), Waiting("orders.retry.5s"), Waiting("")]
    left = iter(channels)
    monkeypatch.setattr(Broker, "channel", lambda _, on_open_callback: on_open_callback(next(left)))
    bench = Bench(tmp_path / "ledger.db")
    bench.broker.fire()
    assert "broker" in bench.state.reasons  # it does not consume yet: another queue is not answered for
    bench.broker.fire()
    assert "broker" not in bench.state.reasons
    assert [record.message.partition(" ")[0] for record in caplog.records if "can't be used" in record.message] == [
        "orders.dead",
        "orders.retry.5s",
    ]
    # On a channel that was given up nothing is consumed, and how it ends decides nothing.
    for channel in channels[:2]:
        if late == "an answer":
            channel.consuming(None)
            assert channel.closed
        else:
            bench.consumer._on_close(channel, ChannelClosedByBroker(404, "NOT_FOUND - due to timeout"))
    assert not channels[2].closed
    assert bench.lost == []
    bench.broker.fire()
    assert next(left, None) is None
    bench.ledger.close()


def test_without_an_answer_for_the_order_queue_nothing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter([Waiting("orders")])
    monkeypatch.setattr(Broker, "channel", lambda _, on_open_callback: on_open_callback(next(left)))
    bench = Bench(tmp_path / "ledger.db")
    bench.broker.fire()
    assert "broker" in bench.state.reasons
    bench.ledger.close()
