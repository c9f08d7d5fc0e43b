"""One trace, from payment's request to the commit in Dispatch's ledger: two processes, a real RabbitMQ, a collector."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.integration.consumer.harness import USER, Broker, Service, order, until
from tests.lab.ansible import ROOT
from tests.lab.shop import pay
from tests.otlp import Collector, Span, collecting, tree

CART = {"items": [{"sku": "HAL-1", "qty": 1, "name": "HAL 9000", "price": 2001, "subtotal": 2001}], "total": 2001}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture
def payment(broker: Broker, collector: Collector) -> Iterator[int]:
    """The port at which payment answers, as it does on a host of the lab."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    environment = {
        "PYTHONPATH": str(ROOT), "AMQP_HOST": "127.0.0.1", "AMQP_USER": USER, "AMQP_PASS": broker.password,
        "USER_HOST": "127.0.0.1", "CART_HOST": "127.0.0.1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.integration.consumer.paying", str(port), str(broker.port), broker.vhost]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    until(lambda: answers(port), what="payment answers")
    yield port
    process.kill()
    process.wait()


def answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def path_of(spans: list[Span], order_id: str) -> list[Span]:
    """The spans that lead to an order's, the first one first, and that of the commit that it links to."""
    by_id = {span.id: span for span in spans}
    (last,) = (span for span in spans if span.attributes.get("order.id") == order_id)
    path = [last, by_id[last.links[0][1]]]
    while path[0].parent:
        path.insert(0, by_id[path[0].parent])
    return path


def test_one_trace_leads_from_the_request_to_the_commit(
    service: Service, collector: Collector, payment: int, remarks: list[str]
) -> None:
    service.environment["DISPATCH_OTLP_ENDPOINT"] = collector.url
    service.start()
    service.await_ready()
    order_id = pay(payment, "dave", CART)
    service.await_dispatched(order_id)
    spans = collector.wait(4)
    path = path_of(spans, order_id)
    remarks += ["a trace from payment's request to the commit:", *tree(spans)]
    assert [(span.service, span.name) for span in path] == [
        ("payment", "POST /pay/{id}"),
        ("payment", "publish robot-shop:orders"),
        ("dispatch", "process robot-shop:orders"),
        ("dispatch", "COMMIT orders"),
    ]
    assert len({span.trace for span in path}) == 1
    assert path[-1].parent == path[-2].id
    assert len(spans) == 4
    assert service.stop() == 0


def test_orders_that_are_paid_at_once_link_to_the_commits_that_recorded_them(
    service: Service, collector: Collector, payment: int
) -> None:
    service.environment["DISPATCH_OTLP_ENDPOINT"] = collector.url
    service.start()
    service.await_ready()
    assert service.stop() == 0  # so that the orders wait for one commit
    ids = [pay(payment, "dave", CART) for _ in range(5)]
    service.start()
    service.await_dispatched(*ids)
    assert service.stop() == 0
    spans = collector.wait(5 * 3 + 1)
    paths = [path_of(spans, order_id) for order_id in ids]
    assert [[span.service for span in path] for path in paths] == [["payment"] * 2 + ["dispatch"] * 2] * 5
    assert len({path[0].trace for path in paths}) == 5
    commits = {path[-1].id for path in paths}
    assert len(commits) < 5
    assert len(spans) == 5 * 3 + len(commits)


def test_a_collector_that_goes_away_costs_no_order_and_no_stop(
    broker: Broker, service: Service, collector: Collector
) -> None:
    service.environment["DISPATCH_OTLP_ENDPOINT"] = collector.url
    service.start()
    service.await_ready()
    broker.publish(order("before"))
    service.await_dispatched("before")
    collector.wait(2)
    collector.close()
    ids = [f"order-{number}" for number in range(300)]
    broker.publish(*(order(order_id) for order_id in ids))
    service.await_dispatched("before", *ids)
    assert service.stop() == 0
    dropped = [line["message"] for line in service.log() if collector.url in line["message"]]
    assert len(dropped) <= 1  # a batch is given up after seconds; the stop may come before
