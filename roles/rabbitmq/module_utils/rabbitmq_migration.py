"""Makes quorum queues of the order queue and of those beside it, while a shop uses them. For Python 3.9 and later.

A queue's type never changes, so the order queue is deleted and declared anew under its name. Meanwhile what is
published goes by an alternate exchange into a queue beside it, from where `dispatch move` brings it back: the exchange
hands over at the very message at which the order queue is unbound, so no order is lost and none is in both.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ansible.module_utils.rabbitmq_cluster import ctl, refuse_unhealthy, rows, status
from ansible.module_utils.rabbitmq_definitions import classic_queues, queue_type, queue_type_step
from ansible.module_utils.rabbitmq_host import Run
from ansible.module_utils.server_files import RefusedError

USER = "roboshop-migration"  # of the management API, for as long as this lasts
RETRY_SECONDS = 600  # longer than any of the default delays after which an order is tried again
_LOOK = 0.2  # seconds between two looks
_LEAST = 3  # nodes


@dataclass(frozen=True)
class Binding:
    """What brings messages from an exchange to the order queue."""

    source: str
    key: str


class Api:
    """The management API of the host's own node."""

    def __init__(self, address: str, password: str) -> None:
        self._base = f"http://{f'[{address}]' if ':' in address else address}:15672/api/"
        self._token = base64.b64encode(f"{USER}:{password}".encode()).decode()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, method: str, *path: str, body: object = None, query: str = "") -> Any:
        """Make a request; `path` is given part by part. Raises RefusedError with RabbitMQ's words."""
        url = self._base + "/".join(quote(part, safe="") for part in path) + query
        headers = {"Authorization": f"Basic {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - http alone
        try:
            with self._opener.open(request, timeout=30) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise RefusedError(f"RabbitMQ's management API answers {error.code} to {method} {url}: {said}") from error
        except OSError as error:
            raise RefusedError(f"RabbitMQ's management API at {self._base} can't be used: {error}") from error


class Migration:
    """The order queue of one virtual host, and the queues beside it that Dispatch declares."""

    def __init__(self, run: Run, api: Callable[[str], Any], vhost: str, queue: str) -> None:
        """Work by `run` and by the API that `api` makes with a password."""
        self._run, self._open, self._vhost, self.queue = run, api, vhost, queue
        self.aside = f"{queue}.moving"
        self._policy = f"{queue}-moving"
        self._api: Any = None

    # -- what there is ----------------------------------------------------------------

    def look(self) -> dict[str, Any]:
        """Return the cluster's definitions. Raises RefusedError."""
        return dict(json.loads(ctl(self._run, "rabbitmqctl", "--quiet", "export_definitions", "-")))

    def own(self, definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the order queue's and Dispatch's own queues, by name."""
        pattern = re.compile(re.escape(self.queue) + r"(\.dead|\.retry\.[0-9]+s)?")
        found = [row for row in definitions.get("queues", ()) if row["vhost"] == self._vhost]
        return {row["name"]: row for row in found if pattern.fullmatch(row["name"])}

    def due(self, definitions: dict[str, Any]) -> list[str]:
        """Return those of them that are classic queues."""
        own = self.own(definitions)
        return [name for name in classic_queues(definitions, self._vhost) if name in own]

    def is_aside(self, definitions: dict[str, Any]) -> bool:
        """Whether there is a queue that orders wait in meanwhile: from now, or from a play that was cut short."""
        return any((row["vhost"], row["name"]) == (self._vhost, self.aside) for row in definitions.get("queues", ()))

    def bindings(self, definitions: dict[str, Any]) -> list[Binding]:
        """Return what binds the order queue, or bound it before a play that was cut short."""
        rows = [row for row in definitions.get("bindings", ()) if row["vhost"] == self._vhost]
        now = [row for row in rows if row["destination"] == self.queue and row["destination_type"] == "queue"]
        before = [row for row in rows if row["source"] == self.aside]
        found = [Binding(row["source"], row["routing_key"]) for row in now if row["source"]]
        found += [Binding(row["arguments"]["bound-to"], row["routing_key"]) for row in before]
        return list(dict.fromkeys(found))

    def refuse_unfit(self, definitions: dict[str, Any]) -> None:
        """Raise RefusedError where an order could get lost, or wait for ever."""
        cluster = status(self._run)
        refuse_unhealthy(cluster)
        if cluster.alarms:
            raise RefusedError(f"The cluster has an alarm, and takes no orders: {'; '.join(cluster.alarms)}")
        if len(cluster.members) < _LEAST:
            raise RefusedError(
                f"The cluster has {len(cluster.members)} nodes; a quorum queue survives one from three on. Set "
                "rabbitmq_cluster: true, add hosts to the group rabbitmq, and run playbooks/rabbitmq.yml first."
            )
        others = sorted({*classic_queues(definitions, self._vhost)} - {*self.due(definitions)})
        if others:
            raise RefusedError(
                f"The virtual host {self._vhost} has other durable classic queues, which their services could not "
                f"declare any more: {', '.join(others)}. Give Dispatch a virtual host of its own, or move those first."
            )
        arguments = {**self.own(definitions).get(self.queue, {}).get("arguments", {})}
        arguments.pop("x-queue-type", None)
        if arguments:
            raise RefusedError(f"{self.queue} was declared with arguments that no service gives: {arguments}.")
        own = [row for row in definitions.get("bindings", ()) if row["vhost"] == self._vhost]
        if any(row["arguments"] for row in own if row["destination"] == self.queue):
            raise RefusedError(f"{self.queue} is bound with arguments, which no service gives. Bind it without.")
        self._refuse_sharers(definitions)

    def _refuse_sharers(self, definitions: dict[str, Any]) -> None:
        """An exchange passes on to its alternate only what it has no queue for at all."""
        exchanges = {row["name"]: row for row in definitions.get("exchanges", ()) if row["vhost"] == self._vhost}
        for binding in self.bindings(definitions):
            exchange = exchanges.get(binding.source, {"type": "direct", "arguments": {}})
            if exchange["type"] != "direct" or "alternate-exchange" in exchange["arguments"]:
                raise RefusedError(
                    f"{self.queue} is bound to {binding.source}, which is no direct exchange or has an alternate "
                    "exchange. Bind it to RoboShop's own exchange alone."
                )
            for row in definitions.get("bindings", ()):
                same = (row["vhost"], row["source"], row["routing_key"]) == (self._vhost, binding.source, binding.key)
                if same and row["destination"] not in (self.queue, self.aside):
                    raise RefusedError(
                        f"{row['destination']} is bound to {binding.source} with the key {binding.key}, too, so orders "
                        f"would go there alone while {self.queue} is made anew. Unbind it meanwhile."
                    )

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return, of each queue, how many messages wait or are delivered, and how many consumers it has."""
        words = ("name", "messages_ready", "messages_unacknowledged", "consumers")
        listed = rows(self._run, "list_queues", "--vhost", self._vhost, *words)
        return {
            row["name"]: (row["messages_ready"] + row["messages_unacknowledged"], row["consumers"]) for row in listed
        }

    # -- what is done -----------------------------------------------------------------

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Have a user for the management API while the block lasts. Raises RefusedError."""
        password = secrets.token_hex(16)
        self._run(["rabbitmqctl", "delete_user", USER])  # of a play that was cut short
        code, output, error = self._run(["rabbitmqctl", "add_user", USER], data=password)
        if code:
            raise RefusedError(f"rabbitmqctl add_user failed. RabbitMQ says: {error.strip() or output.strip()}")
        try:
            ctl(self._run, "rabbitmqctl", "set_user_tags", USER, "administrator")
            ctl(self._run, "rabbitmqctl", "set_permissions", "--vhost", self._vhost, USER, ".*", ".*", ".*")
            self._api = self._open(password)
            yield
        finally:
            self._run(["rabbitmqctl", "delete_user", USER])

    def recover(self, definitions: dict[str, Any]) -> None:
        """Undo what a play that was cut short has left, but for the queue that orders wait in. Raises RefusedError."""
        if self.queue not in self.own(definitions):
            self._declare(self.queue, "quorum")
        self._bind(self.bindings(definitions))
        self._lift()

    def swap(self, definitions: dict[str, Any], seconds: float) -> tuple[str, float]:
        """Make the order queue a quorum queue; return why not, if it was undone, and how long orders went aside.

        They do so for at most about `seconds`. Raises RefusedError before anything has changed for the shop.
        """
        bindings, retrying = self.bindings(definitions), [name for name in self.own(definitions) if ".retry." in name]
        waiting, consumers = self.counts().get(self.queue, (0, 0))
        if waiting and not consumers:
            raise RefusedError(
                f"{waiting} orders wait in {self.queue}, and nobody consumes them. Start Dispatch first."
            )
        self._await_empty(retrying, RETRY_SECONDS)
        self._put_aside(bindings)
        begin = time.monotonic()
        before = queue_type(definitions, self._vhost)
        try:
            for binding in bindings:
                way = ("e", binding.source, "q", self.queue, binding.key or "~")
                self._api.ask("DELETE", "bindings", self._vhost, *way)
            self._await_empty([self.queue, *retrying], seconds)
            self._set_type("quorum")
            if any(row["source"] for row in self._api.ask("GET", "queues", self._vhost, self.queue, "bindings")):
                raise RefusedError(f"{self.queue} was bound again meanwhile, by a service that connected.")
            self._api.ask("DELETE", "queues", self._vhost, self.queue, query="?if-empty=true")
        except RefusedError as refused:
            self._bind(bindings)
            self._lift()
            self._set_type(before)
            return str(refused), time.monotonic() - begin
        reason = ""
        try:
            self._declare(self.queue, "quorum")
        except RefusedError as refused:
            self._declare(self.queue, "classic")
            self._set_type(before)
            reason = str(refused)
        self._bind(bindings)
        self._lift()
        return reason, time.monotonic() - begin

    def replace_empty(self, name: str, row: dict[str, Any], seconds: float) -> bool:
        """Make a queue of Dispatch's own a quorum queue once it is empty; return whether it was within `seconds`.

        What Dispatch sends there meanwhile comes back to it, and it sends it again.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._api.ask("DELETE", "queues", self._vhost, name, query="?if-empty=true")
                break
            except RefusedError:  # there are messages in it
                if time.monotonic() > deadline:
                    return False
            time.sleep(_LOOK)
        self._declare(name, "quorum", row["arguments"])
        return True

    def finish(self) -> bool:
        """Remove the queue in which orders waited, and its exchange; return whether it was empty."""
        self._lift()
        # RabbitMQ deletes no quorum queue on condition that it is empty, and counts what is in it now and then only.
        look = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        if self._api.ask("POST", "queues", self._vhost, self.aside, "get", body=look):
            return False
        self._api.ask("DELETE", "queues", self._vhost, self.aside)
        self._api.ask("DELETE", "exchanges", self._vhost, self.aside)
        return True

    def settle_type(self) -> None:
        """Have new queues of the virtual host be quorum queues, where no classic one is left. Raises RefusedError."""
        definitions = self.look()
        if not classic_queues(definitions, self._vhost) and queue_type(definitions, self._vhost) != "quorum":
            self._set_type("quorum")

    def _put_aside(self, bindings: list[Binding]) -> None:
        api, vhost = self._api, self._vhost
        api.ask("PUT", "exchanges", vhost, self.aside, body={"type": "fanout", "durable": True})
        self._declare(self.aside, "quorum")
        for binding in bindings:
            # Who finds this after a play that was cut short knows by it what was bound.
            note = {"routing_key": binding.key, "arguments": {"bound-to": binding.source}}
            api.ask("POST", "bindings", vhost, "e", self.aside, "q", self.aside, body=note)
        sources = sorted({binding.source for binding in bindings})
        policy = {
            "pattern": f"^({'|'.join(map(re.escape, sources))})$",
            "apply-to": "exchanges",
            "priority": 1000,
            "definition": {"alternate-exchange": self.aside},
        }
        api.ask("PUT", "policies", vhost, self._policy, body=policy)
        deadline = time.monotonic() + 30
        while not all(api.ask("GET", "exchanges", vhost, name).get("policy") == self._policy for name in sources):
            if time.monotonic() > deadline:
                self._lift()
                raise RefusedError(f"The policy {self._policy} does not come into force for {', '.join(sources)}.")
            time.sleep(_LOOK)

    def _await_empty(self, names: list[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while left := {name: count for name, (count, _) in self.counts().items() if name in names and count}:
            if time.monotonic() > deadline:
                listed = ", ".join(f"{count} in {name}" for name, count in sorted(left.items()))
                raise RefusedError(
                    f"Orders still wait after {seconds:g} s: {listed}. See why Dispatch does not finish them."
                )
            time.sleep(_LOOK)

    def _declare(self, name: str, kind: str, arguments: dict[str, Any] | None = None) -> None:
        body = {"durable": True, "auto_delete": False, "arguments": {**(arguments or {}), "x-queue-type": kind}}
        self._api.ask("PUT", "queues", self._vhost, name, body=body)

    def _bind(self, bindings: list[Binding]) -> None:
        for binding in bindings:
            body = {"routing_key": binding.key, "arguments": {}}
            self._api.ask("POST", "bindings", self._vhost, "e", binding.source, "q", self.queue, body=body)

    def _lift(self) -> None:
        """Let the exchange drop again what it has no queue for."""
        with contextlib.suppress(RefusedError):  # there is no such policy
            self._api.ask("DELETE", "policies", self._vhost, self._policy)

    def _set_type(self, kind: str) -> None:
        step = queue_type_step(self._vhost, kind)
        known = self._run(["rabbitmqctl", "help", step.words[0]])[0] == 0
        ctl(self._run, "rabbitmqctl", *(step.words if known or not step.otherwise else step.otherwise))
