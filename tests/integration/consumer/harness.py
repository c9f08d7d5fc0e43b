"""Runs the consumer against a real broker: a virtual host, processes, load, tools for faults, and the reckoning."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pika
from docker.models.containers import Container
from pika import exceptions

from dispatch_app import topology
from dispatch_app.amqp import properties
from dispatch_app.database import Database
from dispatch_app.ledgers.port import Filter
from dispatch_app.ledgers.postgresql import read
from tests.lab.ansible import ROOT
from tests.lab.hosts import execute

USER = "roboshop"
EVENTS = "robot-shop.events"  # the exchange to which orders are announced
LARGE = b" " * 150_000  # added to an order, this exceeds RabbitMQ's frames of 128 KiB
# A publisher or a test gets one of these while the broker is away.
AWAY = (exceptions.AMQPError, OSError)


def until(condition: Callable[[], object], seconds: float = 60, what: str = "", interval: float = 0.02) -> None:
    """Wait until `condition` holds; fail after `seconds`, which keep a test from hanging and measure no speed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(interval)


def order(order_id: str, **more: object) -> bytes:
    """An order as payment's first generation writes it."""
    item = {"sku": "HAL-1", "qty": 1, "name": "HAL 9000", "price": 2001, "subtotal": 2001}
    cart = {"items": [item], "total": 2001, "tax": 333.5}
    return json.dumps({"orderid": order_id, "user": "dave", "cart": cart, **more}).encode()


@dataclass(frozen=True)
class Broker:
    """One virtual host of a real broker, and the container that runs it."""

    container: Container
    port: int
    password: str = field(repr=False)
    vhost: str

    def run(self, *command: str) -> str:
        code, output = execute(self.container, *command)
        assert code == 0, f"{' '.join(command)}: {output}"
        return output

    def ctl(self, *words: str) -> str:
        return self.run("rabbitmqctl", "--quiet", *words)

    def connect(self) -> Any:
        credentials = pika.PlainCredentials(USER, self.password)
        return pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self.port, self.vhost, credentials, socket_timeout=5)
        )

    def publish(self, *bodies: bytes, **props: Any) -> None:
        """Publish with confirms and `mandatory`, with the given properties; the queue must exist."""
        with closing(self.connect()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("robot-shop", "orders", body, pika.BasicProperties(**props), mandatory=True)

    def messages(self) -> dict[str, int]:
        """Count ready and unacknowledged messages by queue, as the queues themselves report them."""
        lines = self.ctl("list_queues", "-p", self.vhost, "--no-table-headers", "name", "messages").splitlines()
        return {name: int(count) for name, count in (line.split() for line in lines)}

    def drained(self) -> bool:
        return not any(count for name, count in self.messages().items() if name != "orders.dead")

    def drop_connections(self) -> None:
        self.ctl("close_all_connections", "--vhost", self.vhost, "closed by a test")

    def take_dead(self) -> list[tuple[bytes, bytes]]:
        """Take all dead letters out of their queue; return their property lists and bodies, unchanged."""
        properties.install()
        taken: list[tuple[bytes, bytes]] = []
        with closing(self.connect()) as connection:
            channel = connection.channel()
            while True:
                method, props, body = channel.basic_get("orders.dead", auto_ack=True)
                if method is None:
                    return taken
                taken.append((props.raw, body))


class Service:
    """Processes of `dispatch run`, one after the other, with one state directory."""

    def __init__(self, broker: Broker, directory: Path, **environment: str) -> None:
        """Take settings from `environment` beyond those that reach `broker`."""
        self.state, self.journal = directory / "state", directory / "journal"
        self.state.mkdir(exist_ok=True)
        self.ledger = self.state / "ledger.db"
        self.shares: object = self.ledger  # the same of all services that record in one ledger
        with socket.create_server(("127.0.0.1", 0)) as free:
            http = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{http}"
        self.environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STATE_DIRECTORY": str(self.state),
            "AMQP_HOST": "127.0.0.1", "AMQP_PORT": str(broker.port), "AMQP_VHOST": broker.vhost,
            "AMQP_USER": USER, "AMQP_PASS": broker.password, "DISPATCH_HTTP": http, **environment,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process, "not started"
        return self._process

    def start(self, *program: str) -> None:
        """Start the service itself, or a program that stands in for it."""
        command = [sys.executable, "-m", *(program or ("dispatch_app", "run"))]
        with self.journal.open("ab") as journal:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stderr=journal)

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop as systemd does; return the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def command(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run another subcommand with the service's settings."""
        return subprocess.run(
            [sys.executable, "-m", "dispatch_app", *words],
            cwd=ROOT, env={**self.environment, **environment}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def get(self, path: str) -> tuple[int, str]:
        """Ask the service over HTTP; the status is 0 if nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - http, to itself
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @contextlib.contextmanager
    def locked_out(self) -> Iterator[None]:
        """Keep the service from writing its ledger."""
        with closing(sqlite3.connect(self.ledger, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    def await_ready(self, seconds: float = 60) -> None:
        until(lambda: self.get("/readyz")[0] == 200, seconds, f"ready; {self.get('/readyz')}")

    def await_trouble(self, part: str, seconds: float = 60) -> str:
        """Wait until the service is not ready for a reason that contains `part`; return the reason."""
        until(lambda: part in self.get("/readyz")[1], seconds, f"{part!r} in {self.get('/readyz')}")
        return self.get("/readyz")[1].strip()

    def metric(self, name: str) -> float:
        """Return a metric, summed over its labels; 0 if nobody answers."""
        lines = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return sum(map(float, lines))

    def dispatched(self) -> list[tuple[str, int]]:
        """Return id and redelivered of every order in the ledger."""
        if not self.ledger.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as db:
            try:
                return db.execute("SELECT id, redelivered FROM all_orders").fetchall()
            except sqlite3.OperationalError:  # the service was killed before it made the table
                return []

    def await_dispatched(self, *ids: str) -> None:
        until(lambda: set(ids) <= {row[0] for row in self.dispatched()}, what=f"{ids} dispatched")

    def log(self) -> list[dict[str, Any]]:
        """Return the log records of all processes; a line cut off by SIGKILL is left out."""
        records = []
        for line in self.journal.read_text().splitlines() if self.journal.exists() else ():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
        return records


class Sharing(Service):
    """A service whose ledger is that of a fleet."""

    def __init__(self, broker: Broker, directory: Path, database: Database, **environment: str) -> None:
        directory.mkdir(exist_ok=True)
        given = {"DISPATCH_LEDGER": database.uri, "DISPATCH_LEDGER_PASSWORD": database.password}
        super().__init__(broker, directory, **given, **environment)
        self.shares = self.database = database

    def dispatched(self) -> list[tuple[str, int]]:
        """Return id and redelivered of every order in the ledger."""
        return [(order["id"], order["redelivered"]) for order in read(self.database, 10**6, Filter())]


def listen(broker: Broker, exchange: str = EVENTS) -> None:
    """Bind a queue to an exchange, as a service does that wants to know of dispatched orders."""
    with closing(broker.connect()) as connection:
        channel = connection.channel()
        if exchange == EVENTS:
            channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_declare("heard", durable=True)
        channel.queue_bind("heard", exchange, topology.EVENT)


def heard(broker: Broker) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Take what that queue has: properties and bodies."""
    properties.install()
    taken = []
    with closing(broker.connect()) as connection:
        channel = connection.channel()
        while (got := channel.basic_get("heard", auto_ack=True))[0]:
            taken.append((properties.show(got[1].raw), json.loads(got[2])))
    return taken


class Endpoint:
    """An HTTP endpoint that counts what it is told, and that may be away, or slow."""

    def __init__(self, port: int = 0) -> None:
        """Answer on this loopback port, or else on a free one, which stays the same."""
        self.told: Counter[str] = Counter()  # by the id of the order
        self.seconds = 0.0  # each answer takes
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                time.sleep(endpoint.seconds)
                self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.told[self.headers["webhook-id"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._handler, self.port = Handler, port
        self.come_back()

    def come_back(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def go_away(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()


class Publisher(threading.Thread):
    """Publishes persistent orders until told to end. It repeats each until it is confirmed, so one may arrive twice.

    One in 50 is not an order, one in 100 is too large for one frame, and one in 100 is sent again after it was
    confirmed, as by a shop that retries.
    """

    def __init__(self, broker: Broker, seed: str) -> None:
        """Draw ids from a generator of its own, so that one seed always gives the same orders."""
        super().__init__(daemon=True)
        self._broker, self._end = broker, threading.Event()
        self._random = Random(seed)  # noqa: S311 - no secret
        self.attempted = 0
        self.confirmed: set[str] = set()

    def end(self) -> None:
        """Stop once the order at hand is confirmed."""
        self._end.set()
        self.join(120)
        assert not self.is_alive(), "the last order is never confirmed"

    def run(self) -> None:
        at_hand: tuple[str, bytes] | None = None
        while at_hand or not self._end.is_set():
            with contextlib.suppress(*AWAY), closing(self._broker.connect()) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                while at_hand or not self._end.is_set():
                    at_hand = at_hand or self._next()
                    for _ in range(1 + (self._random.random() < 0.01)):
                        self.attempted += 1
                        channel.basic_publish(
                            "robot-shop", "orders", at_hand[1], pika.BasicProperties(headers={}, delivery_mode=2),
                            mandatory=True,
                        )  # fmt: skip
                        self.confirmed.add(at_hand[0])
                    at_hand = None
            self._end.wait(0.1)

    def _next(self) -> tuple[str, bytes]:
        order_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        draw = self._random.random()
        if draw < 0.02:
            return order_id, f"no order: {order_id}".encode()
        return order_id, order(order_id) + (LARGE if draw < 0.03 else b"")


@dataclass
class Outcome:
    """The reckoning of one run: what became of the load."""

    attempted: int
    confirmed: set[str]
    dispatched: set[str]
    dead: set[str]
    twice: list[str]  # dispatched more than once, or dispatched and dead
    redelivered: int
    again: int  # acknowledged again without an effect: dispatched before

    @property
    def lost(self) -> set[str]:
        return self.confirmed - self.dispatched - self.dead

    @property
    def row(self) -> tuple[int, ...]:
        sets = (self.confirmed, self.dispatched, self.dead, self.lost, self.twice)
        return (self.attempted, *map(len, sets), self.redelivered, self.again)


@contextlib.contextmanager
def load(broker: Broker, seed: str, publishers: int = 2) -> Iterator[list[Publisher]]:
    """Publish throughout the block; on leaving it, wait until every order at hand is confirmed."""
    threads = [Publisher(broker, f"{seed}/{number}") for number in range(publishers)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.end()


def reckon(broker: Broker, publishers: list[Publisher], *services: Service) -> Outcome:
    """Let the services finish what waits, stop them, and compare the sets."""
    until(broker.drained, 120, "queues drained")
    for service in services:
        assert service.stop() == 0
        journal = service.journal.read_text()
        assert broker.password not in journal
        assert "HAL-1" not in journal  # which every order's body holds
    log = [line for service in services for line in service.log()]
    rows = [row for one in {service.shares: service for service in services}.values() for row in one.dispatched()]
    effects = Counter(entry["id"] for line in log if line["message"] == "dispatched" for entry in line["orders"])
    again = [line for line in log if line["message"] == "dispatched before, acknowledged again"]
    dispatched = {order_id for order_id, _ in rows}
    dead = {body.decode().removeprefix("no order: ") for _, body in broker.take_dead()}
    twice = [order_id for order_id, count in effects.items() if count > 1]
    twice += [order_id for order_id, count in Counter(order_id for order_id, _ in rows).items() if count > 1]
    return Outcome(
        sum(publisher.attempted for publisher in publishers),
        set().union(*(publisher.confirmed for publisher in publishers)),
        dispatched,
        dead,
        twice + sorted(dispatched & dead),
        sum(redelivered for _, redelivered in rows) + sum(line.get("redelivered", 0) for line in again),
        sum(line["count"] for line in again),
    )


class Proxy:
    """A TCP proxy to the broker that can fall silent, without either end noticing, or be cut."""

    def __init__(self, target: int) -> None:
        """Listen on a free loopback port and forward to `target`."""
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Forward nothing from now on, like a black hole; new connections get no answer, either."""
        self._flowing.clear()

    def speak(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        connected, self._sockets = self._sockets, []
        for sock in connected:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
            sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.speak()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += (near, far)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        self._flowing.wait()  # nor does a black hole pass on the end of a connection
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def kill_moment(random: Random) -> float:
    """A moment to kill the service, in seconds after its start: sometimes before it consumes, mostly amid its work."""
    return random.uniform(0.1, 1.2)


SIGKILLED = -signal.SIGKILL
