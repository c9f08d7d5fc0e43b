"""A fleet on one ledger: nothing is lost and nothing is dispatched twice, whichever host or database server breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from dispatch_app.amqp.connection import HEARTBEAT
from dispatch_app.database import Database
from tests.integration.consumer.harness import (
    EVENTS,
    SIGKILLED,
    Broker,
    Outcome,
    Service,
    Sharing,
    heard,
    listen,
    load,
    order,
    reckon,
    until,
)
from tests.integration.consumer.variants import COUNTDOWN
from tests.postgresql import Server

HOSTS = 3


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that a test may break."""
    made = Server(fsync="off")
    yield made
    made.remove()


@pytest.fixture
def ledger(server: Server) -> Database:
    return server.create("orders")


@pytest.fixture
def running() -> Iterator[Callable[[Service], Service]]:
    """Start a service, and see to its end."""

    def end(service: Service) -> None:
        if service.alive():
            service.kill()

    with ExitStack() as ends:

        def start(service: Service) -> Service:
            service.start()
            ends.callback(end, service)
            return service

        yield start


Running = Callable[[Service], Service]


def progress(service: Service, orders: int = 100) -> None:
    enough = len(service.dispatched()) + orders
    until(lambda: len(service.dispatched()) >= enough, what="progress")


def killed_and_started_again(server: Server, service: Service) -> None:
    for _ in range(4):
        progress(service)
        server.kill()
        service.await_trouble("orders are held")
        server.start()


def frozen_for_longer_than_the_heartbeat(server: Server, service: Service) -> None:
    losses = service.metric("dispatch_connection_losses_total")
    server.freeze()
    service.await_trouble("the ledger's database does not answer; orders are held")
    time.sleep(2 * HEARTBEAT + 2)  # RabbitMQ would have closed the connection by now
    assert service.get("/livez")[0] == 200
    assert service.metric("dispatch_connection_losses_total") == losses
    server.thaw()


def stopped_for_a_while(server: Server, service: Service) -> None:
    server.stop()
    service.await_trouble("refuses connections")
    server.start()


@pytest.mark.parametrize(
    "fault",
    [
        killed_and_started_again,
        pytest.param(frozen_for_longer_than_the_heartbeat, marks=pytest.mark.long),
        pytest.param(stopped_for_a_while, marks=pytest.mark.long),
    ],
)
def test_orders_wait_for_the_database_and_go_on_by_themselves(
    fault: Callable[[Server, Service], None], broker: Broker, server: Server, ledger: Database, tmp_path: Path,
    running: Running, reckoned: list[tuple[str, str, Outcome]],
) -> None:  # fmt: skip
    service = running(Sharing(broker, tmp_path / "one", ledger))
    service.await_ready()
    with load(broker, "1") as publishers:
        progress(service)
        fault(server, service)
        service.await_ready()
        progress(service)
    assert service.metric("dispatch_connection_losses_total") == 0
    outcome = reckon(broker, publishers, service)
    reckoned.append((f"database {fault.__name__.replace('_', ' ')}", "1", outcome))
    assert not outcome.lost
    assert not outcome.twice
    assert outcome.confirmed == outcome.dispatched | outcome.dead
    assert outcome.redelivered == 0
    assert ledger.password not in service.journal.read_text()


def test_it_starts_while_the_database_is_away_and_goes_on_once_it_is_there(
    broker: Broker, server: Server, ledger: Database, tmp_path: Path, running: Running
) -> None:
    server.stop()
    service = running(Sharing(broker, tmp_path / "one", ledger))
    service.await_trouble("refuses connections")
    until(lambda: "not connected" not in service.get("/readyz")[1], what="consuming")
    broker.publish(order("early"))
    server.start()
    service.await_dispatched("early")
    service.await_ready()
    assert service.stop() == 0


def test_a_stop_does_not_wait_for_a_database_that_is_away(
    broker: Broker, server: Server, ledger: Database, tmp_path: Path, running: Running
) -> None:
    service = running(Sharing(broker, tmp_path / "one", ledger))
    service.await_ready()
    server.stop()
    broker.publish(order("held"))
    service.await_trouble("the ledger can't be written")
    begin = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - begin < 10
    assert broker.messages()["orders"] == 1
    server.start()


def test_a_replica_that_is_given_as_the_primary_holds_orders_until_it_is_one(
    broker: Broker, server: Server, ledger: Database, tmp_path: Path, running: Running
) -> None:
    replica = Server(copy_of=server)
    try:
        service = Sharing(broker, tmp_path / "one", replica.database(ledger.name))
        checked = service.command("check")
        assert checked.returncode == 19
        assert "takes writes: what answers is a replica; name the primary" in checked.stderr
        running(service)
        service.await_trouble("what answers is a replica")
        until(lambda: broker.messages().get("orders") == 0, what="the queue")
        broker.publish(order("held"))
        server.kill()
        replica.sql("SELECT pg_promote()")
        service.await_dispatched("held")
        service.await_ready()
        assert "ok: the ledger at" in service.command("check").stdout
        assert service.stop() == 0
    finally:
        replica.remove()
        server.start()


def schedule(
    broker: Broker, hosts: list[Service], running: Running, seed: str, breaks: Callable[[], None] = lambda: None
) -> Outcome:
    """Break one host after the other under load, between its commit and its acknowledgement, and connections."""
    random = Random(seed)  # noqa: S311 - no secret
    for host in hosts:
        running(host).await_ready()
    with load(broker, seed, publishers=3) as publishers:
        for host in hosts:
            assert host.stop() == 0
            host.environment[COUNTDOWN] = str(random.randrange(4))
            host.start("tests.integration.consumer.variants", "killed_after_the_effect")
            assert host.process.wait(60) == SIGKILLED
            host.start()
            host.await_ready()
            broker.drop_connections()
            breaks()
        for host in hosts:
            host.await_ready(120)
        progress(hosts[0])
    return reckon(broker, publishers, *hosts)


def test_each_order_takes_effect_once_over_the_fleet_whoever_dies(
    broker: Broker, server: Server, ledger: Database, tmp_path: Path, running: Running,
    reckoned: list[tuple[str, str, Outcome]],
) -> None:  # fmt: skip
    def restart() -> None:
        server.kill()
        server.start()

    hosts: list[Service] = [Sharing(broker, tmp_path / str(number), ledger) for number in range(HOSTS)]
    outcome = schedule(broker, hosts, running, "fleet", restart)
    reckoned.append(("fleet: hosts and database killed", "1", outcome))
    assert not outcome.lost
    assert not outcome.twice
    assert outcome.confirmed == outcome.dispatched | outcome.dead
    assert outcome.redelivered > 0
    assert "deadlock" not in server.log.read_text()
    assert all(host.dispatched() for host in hosts)


def test_hosts_with_ledgers_of_their_own_are_found_out(
    broker: Broker, tmp_path: Path, running: Running, reckoned: list[tuple[str, str, Outcome]]
) -> None:
    hosts = []
    for number in range(HOSTS):
        (tmp_path / str(number)).mkdir()
        hosts.append(Service(broker, tmp_path / str(number)))
    outcome = schedule(broker, hosts, running, "fleet")
    reckoned.append(("control: a ledger of each host's own", "1", outcome))
    assert not outcome.lost
    assert outcome.twice


@pytest.mark.long
def test_orders_of_a_host_that_has_died_are_announced_by_another(
    broker: Broker, ledger: Database, tmp_path: Path, running: Running
) -> None:
    listen(broker)
    first, second = (
        Sharing(broker, tmp_path / name, ledger, DISPATCH_EVENT_EXCHANGE=EVENTS) for name in ("first", "second")
    )
    broker.ctl(
        "set_permissions", "--vhost", broker.vhost, "roboshop", ".*", "^(orders.*|robot-shop|amq.default)$", ".*"
    )
    running(first).await_ready()
    broker.publish(*(order(f"{number:03}") for number in range(100)))
    until(lambda: len(first.dispatched()) == 100, what="orders dispatched")
    until(lambda: first.metric("dispatch_events_pending") == 100, what="the list")
    first.kill()
    broker.ctl("set_permissions", "--vhost", broker.vhost, "roboshop", ".*", ".*", ".*")
    running(second).await_ready()
    until(lambda: second.metric("dispatch_events_announced_total") >= 100, what="orders announced")
    assert {body["data"]["order_id"] for _, body in heard(broker)} == {f"{number:03}" for number in range(100)}
    assert second.stop() == 0
