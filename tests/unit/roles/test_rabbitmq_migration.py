"""Classic queues become quorum queues while orders come in: each goes to exactly one queue at every moment."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils import rabbitmq_migration as migration
from ansible.module_utils.server_files import RefusedError

quorum = importlib.import_module("roles.rabbitmq.library.rabbitmq_quorum")

RETRY = {"x-message-ttl": 1000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "orders"}
BOUND = {
    "vhost": "/", "source": "robot-shop", "destination": "orders", "destination_type": "queue",
    "routing_key": "orders", "arguments": {},
}  # fmt: skip


class Broker:
    """A cluster with a virtual host, its rabbitmqctl and its management API; an order arrives after every request."""

    def __init__(self, **queues: dict[str, Any]) -> None:
        self.queues: dict[str, dict[str, Any]] = {
            name.replace("_", "."): {"arguments": {}, "messages": 0, "consumers": 0, **queue}
            for name, queue in queues.items()
        }
        self.exchanges: dict[str, dict[str, Any]] = {"robot-shop": {"type": "direct", "arguments": {}}}
        self.bound = [dict(BOUND)]
        self.policy: dict[str, Any] = {}
        self.type = "classic"
        self.users: list[str] = []
        self.members = ["rabbit@a", "rabbit@b", "rabbit@c"]
        self.orders = 0
        self.works = True  # Dispatch acknowledges what it gets
        self.fails: Callable[[str, tuple[str, ...]], bool] = lambda *_: False
        self.asked: list[str] = []
        self.passwords: list[str | None] = []

    # -- rabbitmqctl ------------------------------------------------------------------

    def __call__(self, argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        words = [word for word in argv[1:] if not word.startswith("--") and word != "json"]
        command = words[0]
        if command == "export_definitions":
            return 0, json.dumps(self.definitions()), ""
        if command == "cluster_status":
            return 0, json.dumps({"disk_nodes": self.members, "running_nodes": self.members}), ""
        if command == "list_queues":
            if self.works:
                self.consume()
            rows = [
                {
                    "name": name,
                    "messages_ready": queue["messages"],
                    "messages_unacknowledged": 0,
                    "consumers": queue["consumers"],
                }
                for name, queue in self.queues.items()
            ]
            return 0, json.dumps(rows), ""
        if command == "update_vhost_metadata":
            self.type = argv[-1]
        if command == "add_user":
            self.users.append(words[1])
            self.passwords.append(data)
        if command == "delete_user":
            self.users = [name for name in self.users if name != words[1]]
        return 0, "", ""

    def definitions(self) -> dict[str, Any]:
        row = {"vhost": "/", "durable": True, "auto_delete": False}
        queues = [{**row, "name": name, "arguments": queue["arguments"]} for name, queue in self.queues.items()]
        exchanges = [{"vhost": "/", "name": name, **exchange} for name, exchange in self.exchanges.items()]
        vhosts = [{"name": "/", "metadata": {"default_queue_type": self.type}}]
        return copy.deepcopy({"queues": queues, "exchanges": exchanges, "bindings": self.bound, "vhosts": vhosts})

    # -- the management API -----------------------------------------------------------

    def open(self, _password: str) -> Broker:
        return self

    def ask(self, method: str, *path: str, body: Any = None, query: str = "") -> Any:
        assert self.users == [migration.USER]
        if self.fails(method, path):
            raise RefusedError(f"{method} {'/'.join(path)} fails")
        self.asked.append(f"{method} {path[0]} {path[-1]}")
        answer = self._answer(method, *path, body=body, query=query)
        self.publish()
        return answer

    def _answer(self, method: str, kind: str, _vhost: str, *rest: str, body: Any, query: str) -> Any:
        name = rest[0]
        if kind == "queues" and method == "PUT":
            found = self.queues.setdefault(name, {"arguments": body["arguments"], "messages": 0, "consumers": 0})
            if found["arguments"].get("x-queue-type", self.type) != body["arguments"]["x-queue-type"]:
                raise RefusedError(f"400 inequivalent arg 'x-queue-type' for queue '{name}'")
        elif kind == "queues" and method == "POST":
            assert rest[1] == "get"
            return [{}] if self.queues[name]["messages"] else []
        elif kind == "queues" and method == "DELETE":
            if query and self.queues[name]["arguments"].get("x-queue-type") == "quorum":
                raise RefusedError("540 if-empty is not supported by quorum queues")
            if query and self.queues[name]["messages"]:
                raise RefusedError(f"400 queue {name} is not empty")
            del self.queues[name]
            self.bound = [row for row in self.bound if row["destination"] != name]
        elif kind == "queues":
            rows = [row for row in self.bound if row["destination"] == name]
            return [*rows, {"source": "", "destination": name}]
        elif kind == "exchanges" and method == "PUT":
            self.exchanges[name] = {"type": body["type"], "arguments": {}}
        elif kind == "exchanges" and method == "DELETE":
            del self.exchanges[name]
            self.bound = [row for row in self.bound if row["source"] != name]
        elif kind == "exchanges":
            return {"policy": "orders-moving"} if self.policy else {}
        elif kind == "bindings" and method == "POST":
            _, source, _, target = rest
            row = {**BOUND, "source": source, "destination": target, **body}
            self.bound += [] if row in self.bound else [row]
        elif kind == "bindings":
            _, source, _, target, key = rest
            kept = [row for row in self.bound if (row["source"], row["destination"]) != (source, target)]
            assert len(kept) < len(self.bound), key
            self.bound = kept
        elif kind == "policies":
            self.policy = body["definition"] if method == "PUT" else {}
        return None

    # -- payment and Dispatch ---------------------------------------------------------

    def publish(self) -> None:
        """An order goes where the exchange takes it, and it is lost where that is nowhere."""
        self.orders += 1
        taken = [str(row["destination"]) for row in self.bound if row["source"] == "robot-shop"]
        if not taken and (other := self.policy.get("alternate-exchange")):
            taken = [str(row["destination"]) for row in self.bound if row["source"] == other]
        assert len(taken) == 1, f"an order went to {taken or 'nowhere'}, after {self.asked[-1]}"
        self.queues[taken[0]]["messages"] += 1

    def consume(self) -> None:
        self.queues["orders"]["messages"] = 0


def classic(**more: Any) -> Broker:
    arguments = {"x-queue-type": "classic"}
    return Broker(
        orders={"consumers": 1}, orders_dead={"arguments": arguments}, orders_retry_1s={"arguments": RETRY}, **more
    )


def begin(broker: Broker, check_mode: bool = False) -> dict[str, Any]:
    return dict(quorum.begin(migration.Migration(broker, broker.open, "/", "orders"), 0.5, check_mode))


def finish(broker: Broker, check_mode: bool = False) -> dict[str, Any]:
    return dict(quorum.finish(migration.Migration(broker, broker.open, "/", "orders"), 0.5, check_mode))


def types(broker: Broker) -> dict[str, str]:
    return {name: queue["arguments"].get("x-queue-type", "classic") for name, queue in broker.queues.items()}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(quorum, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(migration, "_LOOK", 0.01)


def bring_back(broker: Broker) -> None:
    """As `dispatch move` does."""
    broker.queues["orders"]["messages"] += broker.queues["orders.moving"]["messages"]
    broker.queues["orders.moving"]["messages"] = 0


def test_all_become_quorum_queues_and_nothing_of_the_way_there_is_left() -> None:
    broker = classic()
    result = begin(broker)
    assert (result["changed"], result["replaced"], result["undone"]) == (True, ["orders"], "")
    assert result["aside"] == "orders.moving"
    assert broker.queues["orders.moving"]["messages"] > 0
    bring_back(broker)
    result = finish(broker)
    assert (result["replaced"], result["left"]) == (["orders.dead", "orders.retry.1s"], [])
    assert types(broker) == dict.fromkeys(["orders", "orders.dead", "orders.retry.1s"], "quorum")
    assert broker.queues["orders.retry.1s"]["arguments"] == {**RETRY, "x-queue-type": "quorum"}
    assert (broker.type, broker.policy, broker.users, broker.bound) == ("quorum", {}, [], [BOUND])
    assert list(broker.exchanges) == ["robot-shop"]
    assert begin(broker)["changed"] is finish(broker)["changed"] is False


def test_a_preview_changes_nothing() -> None:
    broker = classic()
    before = broker.definitions()
    assert begin(broker, check_mode=True)["replaced"] == ["orders", "orders.dead", "orders.retry.1s"]
    assert finish(broker, check_mode=True)["left"] == ["orders", "orders.dead", "orders.retry.1s"]
    assert broker.definitions() == before
    assert broker.asked == []


def test_where_dispatch_does_not_finish_everything_is_put_back() -> None:
    broker = classic()
    broker.works = False
    result = begin(broker)
    assert "Orders still wait after 0.5 s" in result["undone"]
    assert (result["replaced"], result["aside"]) == ([], "orders.moving")
    assert (broker.type, broker.policy) == ("classic", {})
    assert BOUND in broker.bound
    bring_back(broker)
    assert finish(broker)["left"] == ["orders", "orders.dead", "orders.retry.1s"]
    assert broker.bound == [BOUND]
    assert list(broker.exchanges) == ["robot-shop"]
    assert set(types(broker).values()) == {"classic"}


def test_where_the_new_queue_can_t_be_declared_the_old_kind_is_back() -> None:
    broker = classic()
    declared = iter([False, True])  # the queue beside it, then the order queue
    broker.fails = lambda method, path: method == "PUT" and path[0] == "queues" and next(declared, False)
    result = begin(broker)
    assert "PUT queues///orders fails" in result["undone"]
    assert (types(broker)["orders"], broker.type, broker.policy) == ("classic", "classic", {})
    assert BOUND in broker.bound


def test_where_the_order_queue_can_t_be_unbound_it_stays_bound() -> None:
    broker = classic()
    broker.fails = lambda method, path: (method, path[0]) == ("DELETE", "bindings")
    assert "bindings" in begin(broker)["undone"]
    assert (BOUND in broker.bound, broker.policy) == (True, {})


def test_a_service_that_binds_the_queue_again_meanwhile_keeps_it_from_being_deleted() -> None:
    broker = classic()
    unbound = broker._answer

    def answer(method: str, kind: str, *rest: str, **more: Any) -> Any:
        done = unbound(method, kind, *rest, **more)
        if (method, kind) == ("DELETE", "bindings"):
            broker.bound.append(dict(BOUND))
        return done

    broker._answer = answer  # type: ignore[method-assign]
    result = begin(broker)
    assert "bound again" in result["undone"]
    assert types(broker)["orders"] == "classic"


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_play_that_is_cut_short_anywhere_loses_nothing_and_the_next_ones_end_it(cut: int) -> None:
    class PowerCutError(Exception):
        """Nothing after this is done, not even what a block ends with."""

    broker, count = classic(), 0

    def power(*_: Any) -> bool:
        nonlocal count
        count += 1
        if count >= cut:
            raise PowerCutError
        return False

    broker.fails = power
    try:
        begin(broker)
    except PowerCutError:
        broker.users.append(migration.USER)
    broker.fails = lambda *_: False
    for _ in range(2):
        result = begin(broker)
        assert result["undone"] == ""
        if result["aside"]:
            bring_back(broker)
        finish(broker)
    assert set(types(broker).values()) == {"quorum"}
    assert (broker.users, broker.policy, broker.bound) == ([], {}, [BOUND])
    assert broker.queues["orders"]["messages"] >= 1


def test_what_waits_among_the_dead_letters_stays_and_is_told() -> None:
    broker = classic()
    broker.queues["orders.dead"]["messages"] = 3
    begin(broker)
    bring_back(broker)
    result = finish(broker)
    assert (result["replaced"], result["left"]) == (["orders.retry.1s"], ["orders.dead"])
    assert broker.queues["orders.dead"]["messages"] == 3
    assert broker.type == "quorum"  # which orders has needed; Dispatch takes the dead-letter queue as it is
    broker.queues["orders.dead"]["messages"] = 0
    assert finish(broker)["replaced"] == ["orders.dead"]


def test_orders_that_are_aside_still_keep_their_queue() -> None:
    broker = classic()
    begin(broker)
    with pytest.raises(RefusedError, match=r"dispatch move orders\.moving"):
        finish(broker)
    assert broker.queues["orders.moving"]["messages"] > 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda broker: broker.members.pop(), "2 nodes"),
        (lambda broker: broker.queues.update(other={"arguments": {}}), "other durable classic queues.*other"),
        (lambda broker: broker.queues["orders"].update(arguments={"x-max-length": 5}), "x-max-length"),
        (lambda broker: broker.bound.append({**BOUND, "destination": "audit"}), "audit is bound to robot-shop"),
        (lambda broker: broker.bound[0].update(arguments={"a": 1}), "bound with arguments"),
        (lambda broker: broker.exchanges["robot-shop"].update(type="topic"), "no direct exchange"),
        (lambda broker: broker.queues["orders"].update(messages=5, consumers=0), "nobody consumes"),
        (lambda broker: broker.queues["orders.retry.1s"].update(messages=5), "5 in orders.retry.1s"),
    ],
)
def test_what_could_lose_an_order_is_refused_before_anything_changes(spoil: Any, said: str) -> None:
    broker = classic()
    broker.works = False
    spoil(broker)
    before = broker.definitions()
    with pytest.raises(RefusedError, match=said):
        begin(broker)
    assert broker.definitions() == before
    assert (broker.asked, broker.users) == ([], [])


def test_the_password_of_the_user_meanwhile_is_on_no_command_line() -> None:
    broker = classic()
    begin(broker)
    (password,) = broker.passwords
    assert password
    assert len(password) == 32
