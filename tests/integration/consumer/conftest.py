"""The consumer's tests run on the lab's broker, each in a virtual host of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.conftest import BROKER, TestLab, until
from tests.integration.consumer import hooks
from tests.integration.consumer.harness import Broker, Outcome, Proxy, Service
from tests.lab.hosts import execute

_REPORT = pytest.StashKey[list[tuple[str, str, Outcome]]]()
_REMARKS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def real_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The lab's broker, or, to save booting the lab, a running one: DISPATCH_TEST_BROKER=container:port:password."""
    if running := os.environ.get("DISPATCH_TEST_BROKER"):
        name, port, password = running.split(":")
        client = docker.from_env()
        yield Broker(client.containers.get(name), int(port), password, "/")
        client.close()
        return
    lab: TestLab = request.getfixturevalue("lab")
    yield Broker(lab.host(BROKER), lab.amqp_ports[BROKER], lab.password, "/")
    # These tests stop the broker while the lab's own service uses it, so they wait until that consumes again.
    orders = ("list_queues", "--no-table-headers", "name", "consumers")
    until(lambda: "orders\t1" in execute(lab.host(BROKER), "rabbitmqctl", "--quiet", *orders)[1].splitlines(), 60)


@pytest.fixture
def broker(real_broker: Broker) -> Iterator[Broker]:
    """A new virtual host."""
    vhost = f"test-{uuid.uuid4().hex[:8]}"
    real_broker.ctl("add_vhost", vhost)
    real_broker.ctl("set_permissions", "--vhost", vhost, "roboshop", ".*", ".*", ".*")
    yield Broker(real_broker.container, real_broker.port, real_broker.password, vhost)
    real_broker.ctl("delete_vhost", vhost)


@pytest.fixture
def proxy(real_broker: Broker) -> Iterator[Proxy]:
    """A way to the broker that a test may break."""
    made = Proxy(real_broker.port)
    yield made
    made.close()


@pytest.fixture
def service(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service that is not started yet; its log is shown if the test fails."""
    made = Service(broker, tmp_path, **getattr(request, "param", {}))
    yield made
    if made._process and made.alive():
        made.kill()
    if made.journal.exists():
        lines = [line for line in made.journal.read_text().splitlines() if '"dispatched' not in line]
        print(*(line[:300] for line in lines[-40:]), sep="\n")


@pytest.fixture
def gate(service: Service, tmp_path: Path) -> Path:
    """A file that keeps the hook `gate` of a started service waiting as long as it exists."""
    path = tmp_path / "gate"
    path.touch()
    service.environment[hooks.AWAY] = str(path)
    service.start()
    service.await_ready()
    return path


@pytest.fixture
def reckoned(request: pytest.FixtureRequest) -> list[tuple[str, str, Outcome]]:
    """The rows of the table that ends the run: fault, seed, outcome."""
    return request.config.stash.setdefault(_REPORT, [])


@pytest.fixture
def remarks(request: pytest.FixtureRequest) -> list[str]:
    """Lines to show at the end of the run."""
    return request.config.stash.setdefault(_REMARKS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show figures, and the fault suite's table."""
    if remarks := config.stash.get(_REMARKS, []):
        terminalreporter.section("the consumer's figures")
        terminalreporter.write("".join(f"{remark}\n" for remark in remarks))
    rows = config.stash.get(_REPORT, [])
    if not rows:
        return
    head = ("attempted", "confirmed", "dispatched", "dead", "lost", "duplicated", "redelivered", "again")
    faults = [outcome for fault, _, outcome in rows if not fault.startswith("control")]
    total = tuple(sum(column) for column in zip(*(outcome.row for outcome in faults), strict=True))
    table = [(fault, seed, *outcome.row) for fault, seed, outcome in rows] + [("total without control", "", *total)]
    terminalreporter.section("orders under faults")
    width = max(len(fault) for fault, *_ in table)
    for name, seed, *numbers in (("fault", "seed", *head), *table):
        cells = "".join(f"{number:>12}" for number in numbers)
        terminalreporter.write_line(f"{name:{width}}  {seed:>4}{cells}")
    terminalreporter.write_line(
        "again: delivered or sent again after it was dispatched, acknowledged without an effect"
    )
