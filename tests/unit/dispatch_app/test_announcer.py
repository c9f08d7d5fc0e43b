"""Each dispatched order is announced at least once, under one id, and leaves the list only once that is confirmed."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pika import exceptions
from prometheus_client.parser import text_string_to_metric_families

from dispatch_app import topology
from dispatch_app.amqp import properties
from dispatch_app.amqp.properties import RawProperties
from dispatch_app.effects import announcer as module
from dispatch_app.effects.announcer import Announcer
from dispatch_app.effects.event import announcement
from dispatch_app.health import State, exposition
from dispatch_app.ledgers.desk import AtOnce
from dispatch_app.ledgers.port import AwayError, Backlog, Filter, Unannounced
from dispatch_app.ledgers.sqlite import SqliteLedger, backup, read
from dispatch_app.settings import load

SETTINGS = load({"AMQP_HOST": "a", "AMQP_PASS": "b", "DISPATCH_EVENT_EXCHANGE": "shop.events"})


class Channel:
    """One channel; what is published on it is confirmed when the test says so."""

    is_open = True
    closed: Any
    returned: Any

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self.sent: list[tuple[str, str, bytes, bytes]] = []

    def exchange_declare(self, *asked: Any, callback: Callable[[Any], None], passive: bool = False, **_: Any) -> None:
        self._broker.declared.append(("passively", asked[0]) if passive else asked)
        if refusal := self._broker.refusals and self._broker.refusals.pop(0):
            self._broker.timers.append(lambda: self.refuse(refusal))
        else:
            callback(None)

    def refuse(self, refusal: Any) -> None:
        code, text = refusal
        self.is_open = False
        self.closed(self, exceptions.ChannelClosedByBroker(code, text))

    def confirm_delivery(self, confirm: Callable[[Any], None], callback: Callable[[Any], None]) -> None:
        self.confirmed = confirm
        if not any(timer.__name__ == "<lambda>" for timer in self._broker.timers):  # refused, so nothing is answered
            callback(None)

    def add_on_close_callback(self, callback: Any) -> None:
        self.closed = callback

    def add_on_return_callback(self, callback: Any) -> None:
        self.returned = callback

    def basic_publish(self, exchange: str, key: str, body: bytes, props: RawProperties, mandatory: bool) -> None:
        assert mandatory
        self.sent.append((exchange, key, props.raw, body))

    def confirm(self, tag: int, several: bool = True, name: str = "Basic.Ack") -> None:
        class Frame:
            class method:  # noqa: N801 - pika's name
                NAME, delivery_tag, multiple = name, tag, several

        self.confirmed(Frame)

    def give_back(self, tag: int) -> None:
        """Find no queue for a message."""
        self.returned(self, None, RawProperties(self.sent[tag - 1][2]), b"")
        self.confirm(tag, several=False)

    def close(self) -> None:
        self.is_open = False


class Broker:
    """The announcer's connection and its loop."""

    is_open = True
    is_closing = is_closed = False
    frame_max = 131072

    def __init__(self) -> None:
        self.params, self.timers, self.delays = self, list[Callable[[], None]](), list[float]()
        self.channels: list[Channel] = []
        self.declared: list[tuple[Any, ...]] = []
        self.refusals: list[tuple[int, str]] = []

    def connect(self, opened: Callable[[Any], None], lost: Callable[[Any, Exception], None]) -> Any:
        self._lost = lost
        opened(self)
        return self

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        self.channels.append(Channel(self))
        on_open_callback(self.channels[-1])

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.delays.append(delay)
        self.timers.append(callback)

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def close(self) -> None:
        self._lost(self, exceptions.ConnectionClosedByClient(200, "Normal shutdown"))

    def abort(self, error: Exception) -> None:
        self._lost(self, error)

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Desk:
    """An announcer with a real ledger, on a stand-in broker."""

    def __init__(self, path: Path) -> None:
        self.path, self.broker, self.state = path, Broker(), State()
        self.ledger = SqliteLedger(path, announcing=True)
        self.state.backlog = self.ledger.backlog

    def begin(self) -> Announcer:
        self.announcer = Announcer(self.broker.connect, SETTINGS, "a", self.broker, AtOnce(self.ledger), self.state)
        return self.announcer

    def record(self, *ids: str) -> None:
        self.ledger.record([(order_id, "u", 1.5, 2, f"corr-{order_id}", 0) for order_id in ids])

    def waiting(self) -> list[str]:
        return [order.id for order in self.ledger.unannounced(1000)]

    def sent(self) -> list[str]:
        return [
            str(properties.show(raw)["message_id"]) for channel in self.broker.channels for _, _, raw, _ in channel.sent
        ]

    def metrics(self) -> dict[str, float]:
        families = text_string_to_metric_families(exposition(self.state, 0).decode())
        samples = [sample for family in families for sample in family.samples if "events" in sample.name]
        return {sample.name + sample.labels.get("reason", ""): sample.value for sample in samples}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


def test_an_order_is_announced_once_recorded_and_struck_off_once_confirmed(desk: Desk) -> None:
    announcer = desk.begin()
    desk.broker.fire()
    assert desk.broker.channels == []  # nothing to announce, so there is no connection
    desk.record("a", "b")
    announcer.wake()
    desk.broker.fire()
    assert desk.broker.declared == [("shop.events", "topic")]
    assert desk.sent() == ["a", "b"]
    assert desk.waiting() == ["a", "b"]
    desk.broker.channels[0].confirm(2)
    desk.broker.fire()
    assert desk.waiting() == []
    assert desk.metrics() == {
        "dispatch_events_announced_total": 2, "dispatch_events_pending": 0, "dispatch_events_oldest_seconds": 0,
        **{f"dispatch_events_obstacle{reason}": 0 for reason in ("broker", "exchange", "permission", "unroutable")},
    }  # fmt: skip


def test_a_duplicate_is_not_announced_again(desk: Desk) -> None:
    desk.record("a")
    desk.ledger.announced([order.seq for order in desk.ledger.unannounced(9)])
    desk.record("b", "a", "b")
    assert desk.waiting() == ["b"]


def test_what_is_not_confirmed_is_announced_by_the_next_process_under_the_same_id(desk: Desk) -> None:
    desk.record("a", "b", "c")
    announcer = desk.begin()
    desk.broker.fire()
    desk.broker.channels[0].confirm(1)
    announcer.close()  # the connection is lost
    assert desk.waiting() == ["b", "c"]
    desk.ledger.close()
    desk.ledger = SqliteLedger(desk.path, announcing=True)
    desk.begin()
    desk.broker.fire()
    assert desk.sent() == ["a", "b", "c", "b", "c"]


def test_of_a_long_list_only_so_much_is_at_hand_and_each_is_sent_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_HAND", 3)
    desk.record(*"abcde")
    desk.begin()
    desk.broker.fire()
    assert desk.sent() == ["a", "b", "c"]
    desk.broker.channels[0].confirm(2)  # c is not confirmed yet
    desk.broker.fire()
    assert desk.sent() == ["a", "b", "c", "d", "e"]
    desk.broker.channels[0].confirm(5)
    desk.record("f")
    desk.broker.fire()
    assert desk.sent() == ["a", "b", "c", "d", "e", "f"]


def test_an_order_is_announced_after_all_others_have_been_forgotten(desk: Desk) -> None:
    desk.record("a", "b")
    announcer = desk.begin()
    desk.broker.fire()
    desk.broker.channels[0].confirm(2)
    desk.broker.fire()
    desk.ledger._db.execute("DELETE FROM dispatched")  # as retention does after a quiet time
    desk.record("c")
    announcer.wake()
    desk.broker.fire()
    assert desk.sent() == ["a", "b", "c"]


def test_what_no_queue_takes_is_kept_and_tried_again_ever_later(desk: Desk) -> None:
    desk.record("a", "b")
    desk.begin()
    desk.broker.fire()
    for _ in range(8):
        desk.broker.channels[-1].give_back(1)
        assert desk.state.event_obstacle == "unroutable"
        desk.broker.fire()
    assert desk.broker.delays[-8:] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert desk.metrics()["dispatch_events_obstacleunroutable"] == 1
    assert desk.metrics()["dispatch_events_pending"] == 2
    desk.broker.channels[-1].confirm(2)
    desk.broker.fire()
    assert (desk.waiting(), desk.state.event_obstacle) == ([], None)


@pytest.mark.parametrize("code", [403, 406])
def test_an_exchange_that_is_there_is_taken_as_it_is(desk: Desk, code: int) -> None:
    desk.broker.refusals = [(code, "access to exchange refused, or inequivalent arg 'type'")]
    desk.record("a")
    desk.begin()
    desk.broker.fire()
    desk.broker.fire()
    assert desk.broker.declared == [("shop.events", "topic"), ("passively", "shop.events")]
    assert desk.sent() == ["a"]


def test_it_is_told_where_the_exchange_is_missing_and_may_not_be_made(desk: Desk) -> None:
    desk.broker.refusals = [(403, "ACCESS_REFUSED - access to exchange"), (404, "NOT_FOUND - no exchange")]
    desk.record("a")
    desk.begin()
    for _ in range(3):
        desk.broker.fire()
    assert (desk.state.event_obstacle, desk.sent()) == ("exchange", [])
    for _ in range(2):  # somebody has made it meanwhile
        desk.broker.fire()
    assert desk.sent() == ["a"]


def test_it_is_told_where_the_user_may_not_publish(desk: Desk) -> None:
    desk.record("a")
    desk.begin()
    desk.broker.fire()
    desk.broker.channels[0].refuse((403, "ACCESS_REFUSED - access to exchange 'shop.events' refused"))
    assert desk.state.event_obstacle == "permission"
    desk.broker.fire()
    assert desk.sent() == ["a", "a"]


def test_a_locked_ledger_delays_and_loses_nothing(desk: Desk) -> None:
    desk.record("a")
    desk.begin()
    desk.broker.fire()
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        desk.broker.channels[0].confirm(1)
        desk.broker.fire()
        assert desk.waiting() == ["a"]
        other.execute("ROLLBACK")
    desk.broker.fire()
    assert (desk.waiting(), desk.sent()) == ([], ["a"])


def test_a_stop_announces_what_it_can_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_HAND", 1)
    done: list[bool] = []
    announcer = desk.begin()
    desk.record("a", "b")
    announcer.drain(lambda: done.append(True))
    desk.broker.timers.remove(announcer._finish)  # the time for the last announcements is not over
    for tag in (1, 2):
        assert done == []
        desk.broker.channels[0].confirm(tag)
        desk.broker.fire()
    assert (done, desk.waiting()) == ([True], [])


def test_a_stop_does_not_wait_for_what_nobody_takes(desk: Desk) -> None:
    done: list[bool] = []
    desk.record("a")
    announcer = desk.begin()
    desk.broker.fire()
    announcer.drain(lambda: done.append(True))
    assert done == []
    desk.broker.channels[0].give_back(1)
    assert (done, desk.waiting()) == ([True], ["a"])


def test_the_message_says_what_happened_to_which_order_and_lasts() -> None:
    made = announcement(Unannounced(7, "o-1", "c-1", 1_700_000_000_123), "shop.events", "h-1", lambda: None)
    body = json.loads(made.pack(131072))
    props = properties.show(made.sent)
    assert (made.exchange, made.queue) == ("shop.events", "order.dispatched")
    assert (props["message_id"], props["correlation_id"], props["delivery_mode"]) == ("o-1", "c-1", 2)
    assert (props["type"], props["content_type"]) == ("order.dispatched", "application/cloudevents+json")
    assert {name: body[name] for name in ("specversion", "id", "type", "source")} == {
        "specversion": "1.0", "id": "o-1", "type": "order.dispatched", "source": "/dispatch/h-1",
    }  # fmt: skip
    when = "2023-11-14T22:13:20.123Z"
    assert body["data"] == {"order_id": "o-1", "dispatched_at": when, "host": "h-1", "correlation_id": "c-1"}


def test_an_id_or_a_correlation_id_too_long_for_a_property_is_in_the_body_all_the_same() -> None:
    long_id, long_correlation = "ü" * 255, "ä" * 200
    first, second = (
        announcement(Unannounced(7, long_id, long_correlation, 0), "x", host, lambda: None) for host in ("h", "i")
    )
    props, data = properties.show(first.raw), json.loads(first.body)["data"]
    assert str(props["message_id"]).startswith("sha256:")
    assert props["message_id"] == properties.show(second.raw)["message_id"]
    assert "correlation_id" not in props
    assert (data["order_id"], data["correlation_id"]) == (long_id, long_correlation)


def test_an_order_is_recorded_and_to_be_announced_or_neither(desk: Desk) -> None:
    desk.ledger._db.execute("CREATE TRIGGER t BEFORE INSERT ON listed BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(AwayError, match="no"):
        desk.record("a")
    assert list(read(desk.path, 9, Filter())) == []


def test_retention_keeps_an_order_that_is_not_announced(desk: Desk) -> None:
    desk.record("a", "b")
    desk.ledger._db.execute("UPDATE dispatched SET dispatched_at = 1000")
    desk.record("new")
    desk.ledger.announced([desk.ledger.unannounced(1)[0].seq])
    assert desk.ledger.forget(days=1) == 1
    assert desk.waiting() == ["b", "new"]
    desk.ledger.close()
    desk.ledger = SqliteLedger(desk.path)  # nor while nothing is announced
    assert desk.ledger.forget(days=1) == 0


def test_a_backup_has_the_list(desk: Desk, tmp_path: Path) -> None:
    desk.record("a", "b")
    backup(desk.path, tmp_path / "copy.db")
    copy = SqliteLedger(tmp_path / "copy.db", announcing=True)
    assert [order.id for order in copy.unannounced(9)] == ["a", "b"]
    copy.close()


def test_the_backlog_tells_how_long_the_first_has_waited(desk: Desk) -> None:
    assert desk.ledger.backlog() == Backlog(0, 0.0)
    desk.record("a", "b")
    desk.ledger._db.execute("UPDATE dispatched SET dispatched_at = dispatched_at - 60000 WHERE id = 'a'")
    waiting, seconds = desk.ledger.backlog()
    assert (waiting, round(seconds / 10)) == (2, 6)


def test_without_the_setting_there_are_no_such_metrics_and_the_grant_is_as_before() -> None:
    assert b"dispatch_events" not in exposition(State(), 0)
    plain = load({"AMQP_HOST": "a", "AMQP_PASS": "b"})
    assert "shop.events" not in topology.grant(plain)
    assert r"shop\.events" in topology.grant(SETTINGS)
