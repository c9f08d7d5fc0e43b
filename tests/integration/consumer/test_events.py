"""Dispatched orders are announced on a real broker, whatever is missing there at first: once, or again under one id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pika
import pytest

from dispatch_app import failures
from dispatch_app.topology import EVENT
from tests.integration.consumer.harness import EVENTS as EXCHANGE
from tests.integration.consumer.harness import Broker, Service, heard, listen, order, until

EVENTS = pytest.mark.parametrize("service", [{"DISPATCH_EVENT_EXCHANGE": EXCHANGE}], indirect=True)
USER = "limited"


@pytest.fixture
def limited(broker: Broker) -> Iterator[dict[str, str]]:
    """A user who may use what the consumer needs, and not the exchange of the events."""
    broker.ctl("add_user", USER, USER)
    needed = r"^(orders.*|robot-shop)$"
    broker.ctl("set_permissions", "-p", broker.vhost, USER, needed, r"^(orders.*|robot-shop|amq\.default)$", needed)
    yield {"AMQP_USER": USER, "AMQP_PASS": USER}
    broker.ctl("delete_user", USER)


def obstacle(service: Service, reason: str) -> bool:
    return f'dispatch_events_obstacle{{reason="{reason}"}} 1.0' in service.get("/metrics")[1]


@EVENTS
def test_an_order_is_kept_until_a_queue_is_bound_and_then_announced_once(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    broker.publish(order("one"), correlation_id="c-1")
    broker.publish(order("one"), order("two"))
    until(lambda: obstacle(service, "unroutable"))
    assert service.metric("dispatch_events_pending") == 2
    assert service.get("/readyz")[0] == 200  # orders are consumed all the same
    listen(broker)
    until(lambda: service.metric("dispatch_events_announced_total") == 2)
    until(lambda: service.metric("dispatch_events_pending") == 0)
    # What came back once is sent again in any order.
    (first, body), (second, _) = sorted(heard(broker), key=lambda message: str(message[0]["message_id"]))
    seen = [first[name] for name in ("message_id", "correlation_id", "delivery_mode", "type")]
    assert seen == ["one", "c-1", 2, EVENT]
    assert (body["data"]["order_id"], body["data"]["correlation_id"]) == ("one", "c-1")
    assert (second["message_id"], second.get("correlation_id")) == ("two", None)


@EVENTS
def test_what_was_not_announced_before_a_kill_is_announced_by_the_next_start(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    broker.publish(*(order(f"order-{number}") for number in range(700)))
    until(lambda: len(service.dispatched()) == 700)
    service.kill()
    listen(broker)
    service.start()
    until(lambda: service.metric("dispatch_events_announced_total") == 700)
    assert service.stop() == 0
    assert {props["message_id"] for props, _ in heard(broker)} == {f"order-{number}" for number in range(700)}


@pytest.mark.parametrize("service", [{"DISPATCH_EVENT_EXCHANGE": "robot-shop"}], indirect=True)
def test_the_shop_s_own_exchange_does_as_well(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    listen(broker, "robot-shop")
    broker.publish(order("one"))
    until(lambda: service.metric("dispatch_events_announced_total") == 1)
    assert [props["message_id"] for props, _ in heard(broker)] == ["one"]


@EVENTS
def test_a_user_without_the_permission_is_told_before_and_after(
    broker: Broker, service: Service, limited: dict[str, str]
) -> None:
    def check() -> tuple[int, bool]:
        done = service.command("check")
        return done.returncode, EXCHANGE in done.stderr and "rabbitmqctl set_permissions" in done.stderr

    service.environment.update(limited)
    assert check() == (failures.PERMISSION, True)  # to make the exchange
    service.start()
    service.await_ready()
    broker.publish(order("one"))
    until(lambda: obstacle(service, "exchange"))
    listen(broker)  # who listens makes the exchange
    assert check() == (failures.PERMISSION, True)  # to publish there
    until(lambda: obstacle(service, "permission"))
    broker.ctl("set_permissions", "-p", broker.vhost, USER, ".*", ".*", ".*")
    assert check()[0] == 0
    until(lambda: service.metric("dispatch_events_pending") == 0)
    assert [props["message_id"] for props, _ in heard(broker)] == ["one"]


@EVENTS
def test_a_check_on_a_new_broker_names_the_exchange_and_makes_nothing(broker: Broker, service: Service) -> None:
    done = service.command("check")
    assert done.returncode == 0, done.stderr
    assert EXCHANGE in done.stdout
    with closing(broker.connect()) as connection, pytest.raises(pika.exceptions.ChannelClosedByBroker):
        connection.channel().exchange_declare(EXCHANGE, passive=True)
