"""The objects on a broker: what is due is done and nothing else, and no password shows."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import importlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.rabbitmq_definitions import User, Wanted, password_fits, shown, steps
from ansible.module_utils.server_files import RefusedError

definitions = importlib.import_module("ansible.module_utils.rabbitmq_definitions")
objects = importlib.import_module("roles.rabbitmq.library.rabbitmq_objects")

UNUSUAL = "9f8e7d6c"
PASSWORD = "orders"  # noqa: S105 - one that other values hold, too, as a careless user's does
PERMISSIONS = {"configure": "^orders$", "write": "^(orders|amq\\.default)$", "read": "^orders$"}
POLICY = {"name": "limit", "pattern": "^orders$", "apply_to": "queues", "priority": 0, "definition": {"max-length": 5}}
SERVICES = User("roboshop", PASSWORD, ["monitoring"], PERMISSIONS)
WATCH = User("watch", "look", ["monitoring"])
WANTED = Wanted([SERVICES], "/", [POLICY], True)


def hashed(password: str, algorithm: str = "sha256") -> dict[str, str]:
    """A user's hash as RabbitMQ keeps it: the salt, then the digest of salt and password."""
    digest = hashlib.new(algorithm, b"salt" + password.encode()).digest()
    return {
        "password_hash": base64.b64encode(b"salt" + digest).decode(),
        "hashing_algorithm": f"rabbit_password_hashing_{algorithm}",
    }


SETTLED: dict[str, Any] = {
    "users": [{"name": "roboshop", "tags": ["monitoring"], **hashed(PASSWORD)}, {"name": "ops", "tags": []}],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": "roboshop", "vhost": "/", **PERMISSIONS}],
    "policies": [
        {
            "vhost": "/",
            "name": "limit",
            "pattern": "^orders$",
            "apply-to": "queues",
            "definition": {"max-length": 5},
            "priority": 0,
        }
    ],
}
FRESH: dict[str, Any] = {
    "users": [{"name": "guest", "tags": ["administrator"]}],
    "vhosts": [{"name": "/"}],
    "permissions": [],
    "policies": [],
}


class Node:
    """A module's way to run commands, answered as rabbitmqctl would; `altered` is what it adds to passwords."""

    def __init__(self, definitions: dict[str, Any], refused: str = "", altered: str = "", lets_in: bool = True) -> None:
        self.definitions, self.refused, self.altered = copy.deepcopy(definitions), refused, altered
        self.lets_in = lets_in
        self.new = True  # of a version that has every command
        self.ran: list[tuple[list[str], str | None]] = []

    def run_command(self, argv: list[str], data: str | None, **_: object) -> tuple[int, str, str]:
        if argv[-2:] == ["export_definitions", "-"]:
            return 0, json.dumps(self.definitions), ""
        if argv[1] == "help":
            return (0 if self.new else 64), "", ""
        if argv[1] == "authenticate_user":
            return (0 if self.lets_in else 1), "", ""
        self.ran.append((argv[1:], data))
        if self.refused:
            return 70, "", self.refused
        if argv[1] in ("add_user", "change_password"):
            assert data is not None
            users = [user for user in self.definitions["users"] if user["name"] != argv[2]]
            self.definitions["users"] = [*users, {"name": argv[2], "tags": [], **hashed(data + self.altered)}]
        return 0, "", ""


def services(**changed: str) -> Wanted:
    """What is wanted, with another user for the services."""
    return dataclasses.replace(WANTED, users=[dataclasses.replace(SERVICES, **changed)])


def settle(node: Node, wanted: Wanted = WANTED, check_mode: bool = False) -> dict[str, Any]:
    return dict(objects.settle(objects.Broker(node, [user.password for user in wanted.users]), wanted, check_mode))


def test_a_fresh_broker_gets_everything_and_guest_goes() -> None:
    node = Node(FRESH)
    result = settle(node)
    assert [words[0] for words, _ in node.ran] == [
        "add_user", "set_user_tags", "set_permissions", "set_policy", "delete_user",
    ]  # fmt: skip
    assert node.ran[0] == (["add_user", "roboshop"], PASSWORD)
    assert result["changed"]
    assert result["steps"][-1] == "remove the user guest"


def test_the_password_goes_by_standard_input_alone() -> None:
    secret = services(password=UNUSUAL)
    node = Node(FRESH)
    result = settle(node, secret)
    assert [data for _, data in node.ran if data] == ["9f8e7d6c"]
    assert "9f8e7d6c" not in json.dumps([words for words, _ in node.ran])
    assert "9f8e7d6c" not in json.dumps(result) + repr(secret) + repr(list(steps(secret, FRESH, [])))


def test_a_settled_broker_is_left_alone() -> None:
    node = Node(SETTLED)
    result = settle(node)
    assert node.ran == []
    assert not result["changed"]
    assert result["diff"]["before"] == result["diff"]["after"]


@pytest.mark.parametrize(
    ("change", "command"),
    [
        (lambda found: found["users"][0].update(hashed("another")), "change_password"),
        (lambda found: found["users"][0].update(tags=["administrator"]), "set_user_tags"),
        (lambda found: found["permissions"][0].update(read=".*"), "set_permissions"),
        (lambda found: found["policies"][0].update(definition={"max-length": 6}), "set_policy"),
        (lambda found: found["users"].append({"name": "guest", "tags": []}), "delete_user"),
        (lambda found: found["vhosts"].clear(), "add_vhost"),
    ],
)
def test_what_differs_alone_is_changed_and_a_preview_changes_nothing(change: Any, command: str) -> None:
    found = copy.deepcopy(SETTLED)
    change(found)
    node = Node(found)
    assert settle(node, check_mode=True)["changed"]
    assert node.ran == []
    assert settle(node)["changed"]
    assert [words[0] for words, _ in node.ran] == [command]


def test_guest_stays_where_that_is_wanted_or_where_it_is_the_user() -> None:
    found = copy.deepcopy(SETTLED)
    found["users"].append({"name": "guest", "tags": []})
    assert list(steps(dataclasses.replace(WANTED, without_guest=False), found, ["roboshop"])) == []
    assert "delete_user" not in [step.words[0] for step in steps(services(name="guest"), found, ["guest"])]


def test_a_password_is_compared_by_the_hash_the_user_has() -> None:
    assert password_fits("right", hashed("right")) is True
    assert password_fits("right", hashed("right", "sha512")) is True
    assert password_fits("wrong", hashed("right")) is False
    assert password_fits("right", {"hashing_algorithm": "rabbit_password_hashing_md5"}) is None


def test_where_the_hash_is_unknown_the_broker_is_asked() -> None:
    found = copy.deepcopy(SETTLED)
    found["users"][0]["hashing_algorithm"] = "rabbit_password_hashing_md5"
    assert not settle(Node(found))["changed"]
    assert settle(Node(found, lets_in=False))["steps"] == ["change the password of roboshop"]


def test_a_password_that_rabbitmqctl_alters_is_not_taken_for_set() -> None:
    with pytest.raises(RefusedError, match="rabbitmqctl gave roboshop another password than the one it read"):
        settle(Node(FRESH, altered="\u00a0"))


def test_a_user_of_its_own_watches_and_touches_no_message() -> None:
    both = dataclasses.replace(WANTED, users=[SERVICES, WATCH])
    node = Node(SETTLED)
    settle(node, both)
    assert node.ran == [(["add_user", "watch"], "look"), (["set_user_tags", "watch", "monitoring"], None)]
    found = copy.deepcopy(node.definitions)
    found["users"][-1]["tags"] = ["monitoring"]
    assert not settle(Node(found), both)["changed"]
    found["permissions"].append({"user": "watch", "vhost": "/", **dict.fromkeys(PERMISSIONS, ".*")})
    node = Node(found)
    settle(node, both)
    assert node.ran == [(["clear_permissions", "--vhost", "/", "watch"], None)]


def test_a_refusal_is_told_in_rabbitmq_s_words_without_the_password() -> None:
    with pytest.raises(RefusedError) as refused:
        settle(
            Node(FRESH, refused="Error: 9f8e7d6c: minimum required password length is 40"),
            services(password=UNUSUAL),
        )
    assert str(refused.value) == (
        "rabbitmqctl add_user failed. RabbitMQ says: Error: ********: minimum required password length is 40"
    )


def test_the_diff_shows_the_objects_concerned_and_no_hash() -> None:
    before, after = shown(WANTED, {**FRESH, "users": [*FRESH["users"], {"name": "roboshop", **hashed("x")}]})
    assert before["guest"] is True
    assert after["guest"] is False
    assert after["permissions"] == [{"user": "roboshop", "vhost": "/", **PERMISSIONS}]
    assert "hash" not in json.dumps([before, after])


def test_the_module_fails_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[str] = []

    def fail_json(msg: str) -> None:
        failed.append(msg)
        raise SystemExit

    def run_command(*_: object, **__: object) -> tuple[int, str, str]:
        return 69, "", "Error: unable to perform an operation on node 'rabbit@x'."

    parameters = {**vars(WANTED), "users": [vars(SERVICES)]}
    module = SimpleNamespace(params=parameters, check_mode=False, run_command=run_command, fail_json=fail_json)
    monkeypatch.setattr(objects, "AnsibleModule", lambda *_, **__: module)
    with pytest.raises(SystemExit):
        objects.main()
    assert failed[0].startswith("rabbitmqctl can't reach RabbitMQ's node on this host.")


CLUSTER = dataclasses.replace(WANTED, queue_type="quorum")
ORDERS = {"name": "orders", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}


@pytest.mark.parametrize(("new", "command"), [(True, "update_vhost_metadata"), (False, "eval")])
def test_new_queues_of_a_cluster_are_quorum_queues(new: bool, command: str) -> None:
    node = Node(SETTLED)
    node.new = new
    result = settle(node, CLUSTER)
    assert [words[0] for words, _ in node.ran] == [command]
    assert "quorum" in " ".join(node.ran[0][0])
    assert (result["classic"], result["diff"]["after"]["queue_type"]) == ([], "quorum")


def test_a_virtual_host_of_a_name_that_is_not_ascii_is_named_to_erlang_by_its_octets() -> None:
    step = definitions.queue_type_step('\u00fc"', "quorum")
    assert step.otherwise
    assert "<<195,188,34>>" in step.otherwise[1]


def test_a_new_virtual_host_of_a_cluster_has_the_type_from_the_start() -> None:
    node = Node(SETTLED)
    settle(node, dataclasses.replace(CLUSTER, vhost="shop"))
    assert ["add_vhost", "shop", "--default-queue-type", "quorum"] in [words for words, _ in node.ran]


@pytest.mark.parametrize(
    ("queue", "kept"),
    [
        (ORDERS, ["orders"]),
        ({**ORDERS, "arguments": {"x-queue-type": "classic"}}, ["orders"]),
        ({**ORDERS, "arguments": {"x-queue-type": "quorum"}}, []),
        ({**ORDERS, "vhost": "other"}, []),
        ({**ORDERS, "durable": False}, []),
        ({**ORDERS, "auto_delete": True}, []),
    ],
)
def test_the_type_stays_while_a_service_could_not_declare_its_queue_any_more(
    queue: dict[str, Any], kept: list[str]
) -> None:
    node = Node({**SETTLED, "queues": [queue]})
    result = settle(node, CLUSTER)
    assert result["classic"] == kept
    assert bool(node.ran) == result["changed"] == (not kept)
    assert result["diff"]["after"]["queue_type"] == ("classic" if kept else "quorum")


@pytest.mark.parametrize("where", [{"metadata": {"default_queue_type": "quorum"}}, {"default_queue_type": "quorum"}])
def test_a_type_that_is_set_is_left_alone(where: dict[str, Any]) -> None:
    node = Node({**SETTLED, "vhosts": [{"name": "/", **where}]})
    result = settle(node, CLUSTER)
    assert (node.ran, result["changed"]) == ([], False)
    assert result["diff"]["before"] == result["diff"]["after"]


def test_without_a_cluster_the_type_is_nobody_s_business() -> None:
    node = Node({**SETTLED, "vhosts": [{"name": "/", "metadata": {"default_queue_type": "quorum"}}]})
    assert (settle(node)["changed"], node.ran) == (False, [])


def test_a_policy_has_its_priority() -> None:
    node = Node(SETTLED)
    settle(node, dataclasses.replace(WANTED, policies=[{**POLICY, "priority": 3}]))
    ((words, _),) = node.ran
    assert words[words.index("--priority") + 1] == "3"
