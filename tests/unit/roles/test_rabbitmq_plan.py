"""What keeps hosts from being one cluster is told by name, and those that have something come first."""

from __future__ import annotations

from typing import Any

import pytest
from rabbitmq_plan import rabbitmq_plan


def node(host: str, **told: Any) -> dict[str, Any]:
    """What a host says on which RabbitMQ is not installed yet."""
    return {
        "node": f"rabbit@{host}", "version": "", "running": False, "members": [], "partitions": [], "queues": [],
        "cookie": "none", "unresolved": {}, **told,
    }  # fmt: skip


def installed(host: str, **told: Any) -> dict[str, Any]:
    """What a host says whose node runs alone and has nothing."""
    return node(
        host, **{"version": "3.10.8", "running": True, "members": [f"rabbit@{host}"], "cookie": "other", **told}
    )


def member(host: str, *others: str, **told: Any) -> dict[str, Any]:
    """What a host says whose node runs in a cluster with others."""
    return installed(host, **{"members": [f"rabbit@{name}" for name in (host, *others)], "cookie": "same", **told})


FRESH = {host: node(host) for host in ("a", "b", "c")}
SETTLED = {"a": member("a", "b", "c"), "b": member("b", "a", "c"), "c": member("c", "a", "b")}


def test_fresh_hosts_become_one_in_the_inventory_s_order() -> None:
    plan = rabbitmq_plan(FRESH)
    assert plan == {
        "faults": [], "seed": "a", "node": "rabbit@a", "last": "c", "members": ["rabbit@a", "rabbit@b", "rabbit@c"],
    }  # fmt: skip
    assert rabbitmq_plan(SETTLED)["faults"] == []
    assert rabbitmq_plan({"a": node("a")}) == {
        "faults": [], "seed": "a", "node": "rabbit@a", "last": "a", "members": ["rabbit@a"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "seed", "last"),
    [
        ({"b": installed("b")}, "b", "c"),
        ({"a": installed("a"), "c": installed("c", queues=["orders"])}, "c", "b"),
        ({"a": installed("a"), "b": member("b", "c"), "c": member("c", "b")}, "b", "c"),
    ],
)
def test_who_has_something_comes_first_and_the_others_join_it(found: dict[str, Any], seed: str, last: str) -> None:
    plan = rabbitmq_plan({**FRESH, **found})
    assert (plan["faults"], plan["seed"], plan["last"]) == ([], seed, last)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({"a": node("a"), "b": node("b")}, ["2 nodes (a, b)", "three, or five"]),
        ({**FRESH, "b": node("a")}, ["a and b both call themselves rabbit@a", "hostnamectl"]),
        (
            {**FRESH, "b": node("b", unresolved={"a": "Name or service not known"})},
            ["b can't reach", "a (Name", "/etc/"],
        ),
        ({**FRESH, "a": installed("a"), "b": installed("b", version="4.0.5")}, ["a has 3.10.8, b has 4.0.5"]),
        (
            {**FRESH, "a": installed("a", queues=["orders"]), "b": installed("b", queues=["orders", "x (shop)"])},
            ["b has queues of its own", "orders, x (shop)", "joins a"],
        ),
        (
            {"a": member("a", "b"), "b": member("b", "a"), "c": member("c", "d")},
            ["c is in another cluster than a: rabbit@c, rabbit@d"],
        ),
        ({**SETTLED, "a": member("a", "b", "c", "d")}, ["rabbit@d is in the cluster of a", "broker=rabbit@d"]),
        ({**SETTLED, "b": member("b", "a", "c", partitions=["rabbit@b can't see rabbit@a"])}, ["partitioned: by b"]),
        (
            {**SETTLED, "b": member("b", "a", "c", cookie="other")},
            ["b is in a cluster already", "rabbitmq_cookie_file"],
        ),
        ({**SETTLED, "b": member("b", "a", "c", running=False)}, ["b is a member", "systemctl start rabbitmq-server"]),
    ],
)
def test_what_can_t_be_one_is_refused_by_name(nodes: dict[str, Any], said: list[str]) -> None:
    (fault,) = rabbitmq_plan(nodes)["faults"]
    for words in said:
        assert words in fault


def test_a_broker_alone_may_get_another_cookie() -> None:
    assert rabbitmq_plan({**FRESH, "a": installed("a", queues=["orders"])})["faults"] == []
