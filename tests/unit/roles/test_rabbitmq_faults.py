"""All faults of the broker's variables are said at once, and the permissions fit what Dispatch needs."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from dispatch_app import topology
from dispatch_app.settings import load

faults = importlib.import_module("roles.rabbitmq.filter_plugins.rabbitmq_faults")

GOOD: dict[str, Any] = {
    "rabbitmq_user": "roboshop",
    "rabbitmq_password": "s3cret phrase: ä{#'\"",
    "rabbitmq_user_tags": "monitoring",
    "rabbitmq_monitoring_user": "watch",
    "rabbitmq_monitoring_password": "look, do not touch",
    "rabbitmq_vhost": "/",
    "rabbitmq_names": ["robot-shop", "orders"],
    "rabbitmq_plugins": ["rabbitmq_management"],
    "rabbitmq_policies": [{"name": "limit", "pattern": "^orders$", "definition": {"max-length": 1000}}],
    "rabbitmq_management_address": "",
    "rabbitmq_prometheus_address": "::1",
    "rabbitmq_clear_listener": True,
    "rabbitmq_tls": False,
    "rabbitmq_tls_names": ["broker.shop.internal", "10.0.1.20"],
    "rabbitmq_tls_verify_clients": False,
    "rabbitmq_tls_clients": ["dispatch"],
}
TLS = {"rabbitmq_tls": True}


def found(**changed: Any) -> list[str]:
    return list(faults.rabbitmq_faults({**GOOD, **changed}, changed.pop("host", "broker"), "/shop"))


def test_good_values_have_no_fault() -> None:
    assert found() == []
    assert found(rabbitmq_monitoring_user="", rabbitmq_monitoring_password="") == []
    assert found(**TLS, rabbitmq_clear_listener=False, rabbitmq_tls_verify_clients=True) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rabbitmq_password": None}, "rabbitmq_password is not set.*create /shop/group_vars/all/vault.yml"),
        ({"rabbitmq_password": ""}, "rabbitmq_password is not set"),
        ({"rabbitmq_password": 12345678}, "rabbitmq_password is a number to YAML"),
        ({"rabbitmq_password": "hunter22 "}, "rabbitmq_password begins or ends with white space"),
        ({"rabbitmq_password": "\u00a0hunter22"}, "rabbitmq_password begins or ends with white space"),
        ({"rabbitmq_password": "hunter22\n"}, "rabbitmq_password holds a control character"),
        ({"rabbitmq_password": "hunt\x7fer22"}, "rabbitmq_password holds a control character"),
        ({"rabbitmq_password": "hunt\x00er22"}, "rabbitmq_password holds a control character"),
        ({"rabbitmq_monitoring_user": "roboshop"}, "rabbitmq_monitoring_user is rabbitmq_user, which would lose"),
        ({"rabbitmq_monitoring_user": "-p"}, "rabbitmq_monitoring_user is -p, which rabbitmqctl would take"),
        ({"rabbitmq_monitoring_password": ""}, "rabbitmq_monitoring_password is not set.*create /shop/group_vars"),
        ({"rabbitmq_monitoring_password": "hunter22 "}, "rabbitmq_monitoring_password begins or ends with white"),
        ({"rabbitmq_user": ""}, "rabbitmq_user is empty"),
        ({"rabbitmq_user": "-p"}, "rabbitmq_user is -p, which rabbitmqctl would take for an option"),
        ({"rabbitmq_user": 7}, "rabbitmq_user is 7, which is no text"),
        ({"rabbitmq_vhost": "shop\n"}, "rabbitmq_vhost is 'shop.n', with white space"),
        ({"rabbitmq_vhost": "ä" * 128}, "rabbitmq_vhost has 256 octets"),
        ({"rabbitmq_user_tags": "monitoring --x"}, "rabbitmq_user_tags names '--x'"),
        ({"rabbitmq_user_tags": ["monitoring"]}, "rabbitmq_user_tags is .* no text"),
        ({"rabbitmq_names": "orders"}, "rabbitmq_names is 'orders', which is no list"),
        ({"rabbitmq_names": [""]}, "rabbitmq_names is empty"),
        ({"rabbitmq_plugins": ["rabbitmq_management]. [evil"]}, "rabbitmq_plugins names 'rabbitmq_management"),
        ({"rabbitmq_plugins": [True]}, "rabbitmq_plugins names True"),
        ({"rabbitmq_policies": [{"name": "x", "pattern": "^x$", "definition": {}}]}, "The policy x .* defines nothing"),
        ({"rabbitmq_policies": [{"name": "x", "definition": {"a": 1}}]}, "The policy x .* has no pattern"),
        (
            {"rabbitmq_policies": [{"name": "x", "pattern": "x", "definition": {"a": 1}, "apply_to": "queue"}]},
            "The policy x .* applies to queue. Choose of queues",
        ),
        ({"rabbitmq_management_address": "localhost"}, "rabbitmq_management_address is 'localhost', which is no IP"),
        ({"rabbitmq_prometheus_address": "10.0.1"}, "rabbitmq_prometheus_address is '10.0.1', which is no IP"),
        ({"rabbitmq_clear_listener": False}, "RabbitMQ would listen nowhere"),
        ({"rabbitmq_tls_verify_clients": True}, "no client would be verified"),
        ({**TLS, "rabbitmq_tls_names": ["not a name"]}, "rabbitmq_tls_names names 'not a name'"),
        ({**TLS, "rabbitmq_tls_clients": ["../ca"]}, "rabbitmq_tls_clients names '../ca'"),
        ({**TLS, "rabbitmq_tls_clients": ["ca"]}, "rabbitmq_tls_clients names 'ca'"),
        ({**TLS, "host": "web/../../x"}, "The host is named 'web/../../x'"),
        ({**TLS, "host": "ca"}, "The host is named 'ca'"),
        ({**TLS, "host": "\N{SNOWMAN}" * 84}, "The host is named '\N{SNOWMAN}.* in 251 octets at most"),
    ],
)
def test_a_bad_value_is_named_with_what_to_do(changed: dict[str, Any], said: str) -> None:
    (fault,) = found(**changed)
    assert re.search(said, fault), fault
    # Every fault has a next step behind it.
    assert fault.endswith(".") or "ansible-vault create" in fault or '"…"' in fault or "[first, second]" in fault
    assert "hunter22" not in fault


def test_all_faults_are_said_at_once() -> None:
    every = found(rabbitmq_user="", rabbitmq_password=None, rabbitmq_plugins=["-"], rabbitmq_prometheus_address="x")
    assert [fault.split()[0] for fault in every] == [
        "rabbitmq_user", "rabbitmq_password", "rabbitmq_plugins", "rabbitmq_prometheus_address",
    ]  # fmt: skip


@pytest.mark.parametrize(("exchange", "queue"), [("robot-shop", "orders"), ("roboshop", "shop.orders+1")])
def test_the_permissions_are_those_dispatch_needs(exchange: str, queue: str) -> None:
    settings = load({"AMQP_HOST": "b", "AMQP_PASS": "x", "AMQP_EXCHANGE": exchange, "AMQP_QUEUE": queue})
    granted = faults.rabbitmq_permissions([exchange, queue])
    for name in [exchange, *topology.queues(settings)]:
        assert all(re.search(granted[kind], name) for kind in ("configure", "write", "read")), name
    assert re.search(granted["write"], "amq.default")
    for name in ("amq.topic", "catalogue", "my-orders", "shopXorders+1", "ordersX", "amq.default.x", ""):
        assert not any(re.search(granted[kind], name) for kind in granted), name
    assert not re.search(granted["configure"], "amq.default")
