"""A shop in the lab, for tests of clusters and fleets: boots its hosts, asks and plays them, and pays for orders."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import pika
from docker.models.containers import Container
from pika import exceptions

from tests.integration.conftest import order, until
from tests.lab.ansible import Run, playbook
from tests.lab.hosts import Lab, execute


class Payment:
    """Publishes orders one after another, each until a broker has confirmed it; transient, as payment does.

    Where `no_orders` is not 0, one in so many messages is not an order, and says only what its id would be.
    """

    def __init__(self, password: str, ports: tuple[int, ...], no_orders: int = 0) -> None:
        self._login = pika.PlainCredentials("roboshop", password)
        self._ports, self._no_orders = ports, no_orders
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self.confirmed: dict[str, float] = {}  # when, in seconds since 1970, by the order's id
        self.trouble: BaseException | None = None

    def __enter__(self) -> Payment:
        self._thread.start()
        until(lambda: len(self.confirmed) > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(60)
        assert self.trouble is None, self.trouble

    @property
    def longest(self) -> float:
        """The longest time between two confirms, in seconds."""
        return max(later - earlier for earlier, later in itertools.pairwise(list(self.confirmed.values())))

    def _publish(self) -> None:
        ports, (order_id, message) = itertools.cycle(self._ports), self._next()
        properties = pika.BasicProperties(headers={})
        try:
            while not self._ends.is_set():
                with contextlib.suppress(exceptions.AMQPError, OSError), self._channel(next(ports)) as channel:
                    while not self._ends.is_set():
                        channel.basic_publish("robot-shop", "orders", message, properties, mandatory=True)
                        self.confirmed[order_id] = time.time()
                        order_id, message = self._next()
                        self._ends.wait(0.002)
        except BaseException as error:
            self.trouble = error

    def _next(self) -> tuple[str, bytes]:
        body = order()
        order_id = str(body["orderid"])
        if self._no_orders and (len(self.confirmed) + 1) % self._no_orders == 0:
            return order_id, f"no order: {order_id}".encode()
        return order_id, json.dumps(body).encode()

    @contextlib.contextmanager
    def _channel(self, port: int) -> Iterator[Any]:
        parameters = pika.ConnectionParameters(
            "127.0.0.1", port, credentials=self._login, socket_timeout=1, stack_timeout=3, heartbeat=4
        )
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.exchange_declare("robot-shop", "direct", durable=True)
            yield channel
        finally:
            if connection.is_open:
                connection.close()


class Shop:
    """The hosts of a lab, and the inventory by which a user provisions them."""

    def __init__(self, client: docker.DockerClient, lab: Lab, inventory: Any, password: str) -> None:
        self.client, self.lab, self.inventory, self.password = client, lab, inventory, password

    def named(self, group: str) -> list[str]:
        """The names of the hosts of a group."""
        return [host.name for host in self.lab.hosts if host.group == group]

    def host(self, name: str) -> Container:
        return self.client.containers.get(name)

    def run(self, name: str, script: str) -> str:
        """Run a script on a host as root; return its output, without white space around it."""
        code, output = execute(self.host(name), "sh", "-c", script)
        assert code == 0, f"{script} on {name}: {output}"
        return output

    def playbook(self, name: str, *arguments: str, **variables: object) -> Run:
        return playbook(name, *arguments, "-e", json.dumps(variables), inventory=self.inventory)

    def ctl(self, *words: str, name: str = "") -> Any:
        """Ask a broker, or else the first one, by rabbitmqctl."""
        name = name or self.named("rabbitmq")[0]
        code, output = execute(self.host(name), "rabbitmqctl", "--quiet", "--formatter", "json", *words)
        assert code == 0, f"{' '.join(words)} on {name}: {output}"
        return json.loads(output)

    def up(self, name: str) -> set[str]:
        """The nodes that a broker knows to run, none where it does not run itself."""
        with contextlib.suppress(AssertionError, ValueError, docker.errors.APIError):
            return set(self.ctl("cluster_status", name=name)["running_nodes"])
        return set()

    def await_whole(self) -> None:
        """Wait until all brokers see each other."""
        for name in self.named("rabbitmq"):
            until(lambda name=name: self.sees_all(name), 180)  # type: ignore[misc]

    def sees_all(self, name: str) -> bool:
        """Whether a broker sees all brokers."""
        return len(self.up(name)) == len(self.named("rabbitmq"))
