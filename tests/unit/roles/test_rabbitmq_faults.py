"""All faults of the broker's variables are said at once, and the permissions fit what Dispatch needs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
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
    "rabbitmq_cluster": None,
    "rabbitmq_cluster_hosts": ["mq"],
    "rabbitmq_cluster_tls": False,
    "rabbitmq_cookie_file": "/dev/null",
    "rabbitmq_peer_discovery": "classic_config",
    "rabbitmq_aws_region": "",
    "rabbitmq_aws_tags": {},
    "rabbitmq_aws_autoscaling_group": False,
    "rabbitmq_version": "",
    "rabbitmq_erlang_version": "",
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
AWS = {"rabbitmq_peer_discovery": "aws"}


@pytest.fixture
def one(tmp_path: Path) -> dict[str, Any]:
    """The values of a host that is one of a cluster."""
    file = tmp_path / "erlang.cookie"
    file.write_text("A1B2C3D4\n")
    return {"rabbitmq_cluster": True, "rabbitmq_cluster_hosts": ["broker", "b", "c"], "rabbitmq_cookie_file": str(file)}


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
        (
            {"rabbitmq_policies": [{"name": "x", "pattern": "x", "definition": {"a": 1}, "priority": "high"}]},
            "The policy x .* has the priority 'high'",
        ),
        ({"rabbitmq_cluster_hosts": "a,b"}, "rabbitmq_cluster_hosts is 'a,b', which is no list"),
        ({"rabbitmq_cluster_hosts": ["a", "b"]}, "There are several brokers, a, b, .* Set rabbitmq_cluster: true"),
        ({"rabbitmq_cluster_tls": True}, "rabbitmq_cluster_tls is true, and rabbitmq_cluster is not"),
        ({"rabbitmq_peer_discovery": "dns"}, "rabbitmq_peer_discovery is 'dns'. Choose of classic_config, aws"),
        ({**AWS, "rabbitmq_aws_tags": {"Role": "mq"}}, "rabbitmq_peer_discovery is aws, and rabbitmq_cluster is not"),
        ({"rabbitmq_aws_region": "Frankfurt"}, "rabbitmq_aws_region is 'Frankfurt', which is no region"),
        ({"rabbitmq_aws_tags": ["Role"]}, "rabbitmq_aws_tags is .'Role'., which names no tags"),
        ({"rabbitmq_aws_tags": {"my.role": "mq"}}, "rabbitmq_aws_tags names 'my.role', and RabbitMQ's configuration"),
        ({"rabbitmq_aws_tags": {"Role": "mq # two"}}, "rabbitmq_aws_tags gives Role the value 'mq # two'"),
        ({"rabbitmq_aws_tags": {"Role": 7}}, "rabbitmq_aws_tags gives Role the value 7"),
        ({"rabbitmq_version": 3.1}, "rabbitmq_version is 3.1, a number to YAML"),
        ({"rabbitmq_version": "latest"}, "rabbitmq_version is 'latest', which is no version"),
        ({"rabbitmq_erlang_version": "25 or so"}, "rabbitmq_erlang_version is '25 or so', which is no version"),
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


def test_several_brokers_may_be_said_to_be_one_or_each_its_own(one: dict[str, Any]) -> None:
    for cluster in (True, False):
        assert found(**{**one, "rabbitmq_cluster": cluster, "rabbitmq_cluster_hosts": ["broker", "mq"]}) == []


@pytest.mark.parametrize(
    "more",
    [
        {"rabbitmq_cluster_tls": True},
        {
            **AWS,
            "rabbitmq_aws_tags": {"Role": "rabbitmq", "Environment": "pre prod"},
            "rabbitmq_aws_region": "eu-central-1",
        },
        {**AWS, "rabbitmq_aws_autoscaling_group": True, "rabbitmq_aws_region": "us-gov-west-1"},
        {"rabbitmq_version": "3.10.8-1.1+deb12u1", "rabbitmq_erlang_version": "1:25.2.3+dfsg-1+deb12u4"},
        {"rabbitmq_version": "4.1.5", "rabbitmq_erlang_version": "27.3"},
    ],
)
def test_what_a_cluster_may_have_is_no_fault(one: dict[str, Any], more: dict[str, Any]) -> None:
    assert found(**one, **more) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rabbitmq_cluster_hosts": ["mq"]}, "rabbitmq_cluster_hosts is mq, without broker"),
        ({**AWS}, "neither rabbitmq_aws_tags and rabbitmq_aws_autoscaling_group say which"),
        (
            {**AWS, "rabbitmq_aws_tags": {"Role": "mq"}, "rabbitmq_aws_autoscaling_group": True},
            "both rabbitmq_aws_tags",
        ),
        ({"rabbitmq_cluster_tls": True, "rabbitmq_tls_names": ["not a name"]}, "rabbitmq_tls_names names 'not a name'"),
        (
            {"rabbitmq_cookie_file": "/dev/null/cookie"},
            "rabbitmq_cookie_file is /dev/null/cookie, which can't be made",
        ),
        ({"rabbitmq_cookie_file": "/proc"}, "rabbitmq_cookie_file is /proc, which can't be read .Is a directory"),
    ],
)
def test_what_is_wrong_with_a_cluster_is_named(one: dict[str, Any], changed: dict[str, Any], said: str) -> None:
    (fault,) = found(**{**one, **changed})
    assert re.search(said, fault), fault


@pytest.mark.parametrize(
    ("cookie", "said"),
    [
        (b"", "0 characters in it are no Erlang cookie"),
        (b"two words", "9 characters in it are no Erlang cookie"),
        (b"x" * 256, "256 characters in it are no Erlang cookie"),
        (b"\xff\xfe", "which can't be read .it is no text"),
        (b"ABCDEFGHIJKLMNOPQRST\n", "holds 20 capital letters"),
    ],
)
def test_a_cookie_that_no_node_would_keep_is_told_and_not_shown(one: dict[str, Any], cookie: bytes, said: str) -> None:
    Path(one["rabbitmq_cookie_file"]).write_bytes(cookie)
    (fault,) = found(**one)
    assert re.search(said, fault), fault
    assert "two words" not in fault
    assert "ABCDEF" not in fault


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
