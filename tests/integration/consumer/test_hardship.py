"""What a broker, a publisher or a disk can do to a consumer short of going away."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import closing
from pathlib import Path

import pika
import pytest

from dispatch_app.ledgers.soundness import AT_ONCE
from dispatch_app.ledgers.sqlite import SqliteLedger
from tests.integration.consumer import hooks
from tests.integration.consumer.harness import LARGE, Broker, Proxy, Service, order, until


@pytest.mark.parametrize("service", [{"DISPATCH_HOOK": f"{hooks.__name__}:gate"}], indirect=True)
def test_an_alarm_stops_what_is_put_aside_and_not_the_orders(broker: Broker, service: Service, gate: Path) -> None:
    orders = [f"order-{number}" for number in range(50)]
    try:
        # When the alarm comes, the gate holds the first order, so the one that fails and the good ones are still to do.
        broker.publish(order("gate"), order("failing"), *map(order, orders))
        broker.ctl("set_vm_memory_high_watermark", "0.0001")
        gate.unlink()
        service.await_dispatched("gate", *orders)
        assert "takes no messages" in service.await_trouble("takes no messages")
        until(lambda: broker.messages()["orders"] == 1, what="orders acknowledged")
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")
    service.await_dispatched("gate", *orders, "failing")
    service.await_ready()
    assert service.metric("dispatch_connections_total") == 1
    assert service.stop() == 0
    assert broker.drained()


@pytest.mark.parametrize("more", [b"", LARGE], ids=["small", "large"])
def test_a_routing_key_that_is_no_text_stops_nothing(broker: Broker, service: Service, more: bytes) -> None:
    service.start()
    service.await_ready()
    with closing(broker.connect()) as connection:
        props = pika.BasicProperties(headers={"CC": ["orders"]})
        connection.channel().basic_publish("robot-shop", b"\xff", order("odd") + more, props)
    broker.publish(order("even"))
    service.await_dispatched("odd", "even")
    assert service.metric("dispatch_connections_total") == 1


def test_large_orders_that_have_to_wait_take_little_memory(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    orders, megabyte = [f"order-{number}" for number in range(300)], b" " * 1_000_000
    with service.locked_out():
        broker.publish(*(order(name) + megabyte for name in orders))
        until(lambda: service.metric("dispatch_connection_losses_total") > 0, what="smaller portions")
        service.await_trouble("the ledger can't be written")
    service.await_dispatched(*orders)
    until(broker.drained, what="orders acknowledged")
    status = Path("/proc", str(service.process.pid), "status").read_text()
    (peak,) = map(int, re.findall(r"VmHWM:\s+(\d+) kB", status))
    assert peak < 250_000
    assert [line for line in service.log() if "too much memory" in line["message"]]


def test_orders_held_for_too_long_come_again(broker: Broker, service: Service) -> None:
    def limit(milliseconds: int, tick: int) -> None:
        settings = f"[application:set_env(rabbit, K, V) || {{K, V}} <- [{{consumer_timeout, {milliseconds}}}, "
        broker.ctl("eval", settings + f"{{channel_tick_interval, {tick}}}]].")

    limit(500, 500)
    try:
        service.start()
        service.await_ready()
        with service.locked_out():
            broker.publish(order("slow"))
            until(
                lambda: [line for line in service.log() if "waited too long for acknowledgements" in line["message"]],
                what="the broker's patience to end",
            )
    finally:
        limit(1_800_000, 60_000)
    service.await_dispatched("slow")
    until(broker.drained, what="the order acknowledged")
    assert service.stop() == 0


def test_a_password_that_is_changed_meanwhile(broker: Broker, service: Service) -> None:
    user, password, another = f"user-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex, uuid.uuid4().hex
    broker.ctl("add_user", user, password)
    try:
        broker.ctl("set_permissions", "--vhost", broker.vhost, user, ".*", ".*", ".*")
        service.environment |= {"AMQP_USER": user, "AMQP_PASS": password}
        service.start()
        service.await_ready()
        broker.ctl("change_password", user, another)
        broker.drop_connections()
        assert f"refuses the credentials of user {user}" in service.await_trouble("refuses the credentials")
        broker.ctl("change_password", user, password)
        service.await_ready()
        assert service.stop() == 0
    finally:
        broker.ctl("delete_user", user)
    assert password not in service.journal.read_text()


def test_of_several_hosts_one_that_works_is_found_again_and_again(service: Service, proxy: Proxy) -> None:
    service.environment |= {"AMQP_HOST": "127.0.0.2,127.0.0.1", "AMQP_PORT": str(proxy.port)}
    service.start()
    for connections in (1, 2, 3):
        until(lambda: service.metric("dispatch_connections_total") == connections, what="a connection")  # noqa: B023 - called in this turn
        service.await_ready()
        proxy.cut()
    refused = [line for line in service.log() if "127.0.0.2" in line["message"] and "refuses" in line["message"]]
    assert refused


@pytest.mark.long  # the service looks a minute after its start
def test_damage_in_a_large_ledger_ends_the_service_although_it_has_started(service: Service) -> None:
    path = service.ledger
    ledger = SqliteLedger(path)
    while path.stat().st_size <= AT_ONCE:
        ledger.record([(f"order-{uuid.uuid4()}", "user", 1.0, 1, None, 0) for _ in range(10_000)])
    ledger.close()
    with path.open("r+b") as file:
        file.seek(AT_ONCE // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096)
    service.start()
    assert service.process.wait(150) == os.EX_DATAERR
    assert "is damaged" in service.journal.read_text()
