"""The tests' own lab: two brokers, a Dispatch host and one that is never provisioned, beside a user's ``make lab``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pika
import pytest
from docker.models.containers import Container

from dispatch_app.database import Database
from tests.lab import engine, image
from tests.lab.ansible import ROOT, Run, playbook
from tests.lab.hosts import Host, Lab, execute, put
from tests.lab.inventory import copied, replace
from tests.postgresql import Server

NAME = "test"
BROKER, OTHER_BROKER, DISPATCH, FRESH = "test-broker", "test-broker-2", "test-dispatch", "test-fresh"
# Docker hands out addresses from the start of the range, so no host gets this one at its end.
SUBNET, UNUSED_ADDRESS = "172.31.222.0/24", "172.31.222.250"


@dataclass(frozen=True)
class TestLab:
    """The hosts, and a copy of the lab's inventory for them, which a test may edit."""

    __test__ = False

    client: docker.DockerClient
    lab: Lab
    inventory: Path
    password: str
    amqp_ports: dict[str, int]

    def host(self, name: str) -> Container:
        return self.client.containers.get(name)

    def run(self, name: str, *command: str) -> str:
        """Run a command on a host as root; return its output, without white space around it."""
        code, output = execute(self.host(name), *command)
        assert code == 0, f"{' '.join(command)} on {name}: {output}"
        return output

    def put(self, name: str, directory: str, *files: Path) -> None:
        """Copy files of this machine into a directory of a host."""
        put(self.host(name), directory, {file.name: file.read_bytes() for file in files})

    def playbook(self, name: str, *arguments: str, watch: Callable[[str], object] | None = None) -> Run:
        return playbook(name, *arguments, inventory=self.inventory, watch=watch)

    @contextlib.contextmanager
    def edited(self, old: str, new: str, book: str = "dispatch") -> Iterator[None]:
        """Change one line of the inventory, as a user does; afterwards restore it, and by a play what it was for."""
        file = self.inventory / "group_vars" / "all" / "dispatch.yml"
        before = file.read_text()
        replace(file, old, new)
        try:
            yield
        finally:
            file.write_text(before)
            run = self.playbook(book)
            assert run.code == 0, run.output

    def publish(self, body: bytes, broker: str = BROKER, exchange: str = "robot-shop") -> None:
        """Publish as payment does: declare the exchange, send transient messages with headers {} and nothing else."""
        with contextlib.closing(self.connect(broker)) as connection:
            channel = connection.channel()
            channel.exchange_declare(exchange, "direct", durable=True)
            channel.basic_publish(exchange, "orders", body, pika.BasicProperties(headers={}))

    def connect(self, broker: str = BROKER) -> pika.BlockingConnection:
        """Connect to a broker of the lab as payment does."""
        credentials = pika.PlainCredentials("roboshop", self.password)
        return pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self.amqp_ports[broker], credentials=credentials)
        )

    def waiting(self, broker: str = BROKER) -> int:
        """How many orders no consumer has taken yet."""
        with contextlib.closing(self.connect(broker)) as connection:
            return int(connection.channel().queue_declare("orders", passive=True).method.message_count)

    def dispatched(self, order: str, name: str = DISPATCH) -> list[dict[str, Any]]:
        """What the ledger of a Dispatch host says of an order."""
        lines = self.run(name, "dispatch", "orders", "--json", "--id", order).splitlines()
        return [dict(json.loads(line)) for line in lines]

    def assert_consuming(self, name: str = DISPATCH) -> None:
        """Publish an order and wait until the ledger of a host has it; no other host may be consuming."""
        published = order()
        self.publish(json.dumps(published).encode())
        until(lambda: self.dispatched(published["orderid"], name) != [])

    @contextlib.contextmanager
    def making_room(self) -> Iterator[None]:
        """Stop Dispatch on its host, so that another one gets the orders; start it afterwards."""
        self.run(DISPATCH, "systemctl", "stop", "dispatch")
        try:
            yield
        finally:
            self.run(DISPATCH, "systemctl", "start", "dispatch")


@contextlib.contextmanager
def booted(lab: Lab, distribution: str = image.DEFAULT) -> Iterator[docker.DockerClient]:
    """Boot a lab's hosts from nothing, and remove them afterwards."""
    client = engine.connect(ROOT / ".lab")
    lab.down(client)
    try:
        lab.up(client, image.ensure(client, distribution))
        yield client
    finally:
        lab.down(client)
        client.close()


def unit_by_hand(broker: str, password: str) -> str:
    """The unit as people write it who follow the runbook."""
    return f"""[Unit]
Description=Dispatch Service

[Service]
User=roboshop
Environment=AMQP_HOST={broker}
Environment=AMQP_USER=roboshop
Environment=AMQP_PASS={password}
ExecStart=/app/dispatch
SyslogIdentifier=dispatch

[Install]
WantedBy=multi-user.target
"""


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def order(order_id: str | None = None) -> dict[str, Any]:
    """An order as payment's first generation writes it."""
    item = {"sku": "HAL-1", "qty": 1, "name": "HAL 9000", "price": 2001, "subtotal": 2001}
    cart = {"items": [item], "total": 2001, "tax": 333.5}
    return {"orderid": order_id or str(uuid.uuid4()), "user": "dave", "cart": cart}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL that answers throughout."""
    # A killed process loses nothing without a sync, only a power cut would.
    made = Server(fsync="off")
    yield made
    made.remove()


@pytest.fixture
def database(postgresql: Server) -> Database:
    """A new database with the ledger's schema."""
    return postgresql.create(f"test_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """An artifact that works and differs from the inventory's."""
    path = tmp_path / "newer.zip"
    shutil.copy(ROOT / "dist" / "dispatch.zip", path)
    with zipfile.ZipFile(path, "a") as artifact:
        artifact.writestr("NOTE", str(tmp_path))
    return path


@pytest.fixture
def wont_start(tmp_path: Path) -> Path:
    """An artifact whose `check` passes and whose service ends as soon as it is started."""
    maker, artifact = ROOT / "molecule" / "release" / "artifacts.py", ROOT / "dist" / "dispatch.zip"
    subprocess.run([sys.executable, maker, artifact, tmp_path], check=True)
    return tmp_path / "wont-start.zip"


def release(artifact: Path) -> str:
    """The id of an artifact's release on a Dispatch host."""
    return f"{hashlib.sha256(artifact.read_bytes()).hexdigest()[:12]}-python3.11"


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    """Hosts that have booted and are not provisioned yet."""
    directory = tmp_path_factory.mktemp("lab")
    ports = {BROKER: 22351, OTHER_BROKER: 22352}
    lab = Lab(
        NAME,
        directory / ".lab",
        (
            Host(BROKER, "rabbitmq", 22301, ((5672, ports[BROKER]),)),
            Host(OTHER_BROKER, "rabbitmq", 22302, ((5672, ports[OTHER_BROKER]),)),
            Host(DISPATCH, "dispatch", 22303),
            Host(FRESH, "fresh", 22304),
        ),
        SUBNET,
    )
    with booted(lab) as client:
        inventory = copied(lab, directory, BROKER)
        password = uuid.uuid4().hex
        (lab.state / "amqp_password").write_text(password + "\n")
        yield TestLab(client, lab, inventory, password, ports)


@pytest.fixture(scope="session")
def lab(hosts: TestLab) -> TestLab:
    """The hosts, provisioned by ``playbooks/site.yml``."""
    run = hosts.playbook("site", "-vvv", "--diff")
    assert run.code == 0, run.output
    assert hosts.password not in run.output
    assert run.recap.keys() == {BROKER, OTHER_BROKER, DISPATCH}
    return hosts
