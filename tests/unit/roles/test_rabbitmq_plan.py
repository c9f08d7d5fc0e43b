"""What keeps hosts from being one cluster is told by name, and those that have something come first."""

from __future__ import annotations

from typing import Any

import pytest
from rabbitmq_plan import rabbitmq_plan


def node(host: str, **told: Any) -> dict[str, Any]:
    """What a host says on which RabbitMQ is not installed yet."""
    return {
        "node": f"rabbit@{host}", "running": False, "members": [], "down": [], "partitions": [], "queues": [],
        "cookie": "none", "unresolved": {}, "tls": False, "switches_tls": False, **told,
    }  # fmt: skip


def installed(host: str, **told: Any) -> dict[str, Any]:
    """What a host says whose node runs alone and has nothing."""
    return node(host, **{"running": True, "members": [f"rabbit@{host}"], "cookie": "other", **told})


def member(host: str, *others: str, **told: Any) -> dict[str, Any]:
    """What a host says whose node runs in a cluster with others."""
    return installed(host, **{"members": [f"rabbit@{name}" for name in (host, *others)], "cookie": "same", **told})


def planned(nodes: dict[str, Any], restart: bool = False, **versions: str) -> dict[str, Any]:
    """The plan of hosts that all get 3.10.8, or other versions."""
    given = {host: versions.get(host, "3.10.8") for host in nodes}
    packages = {
        host: {"version": version, "series": ".".join(version.split(".")[:2])} for host, version in given.items()
    }
    return dict(rabbitmq_plan(nodes, packages, restart))


FRESH = {host: node(host) for host in ("a", "b", "c")}
SETTLED = {"a": member("a", "b", "c"), "b": member("b", "a", "c"), "c": member("c", "a", "b")}


def test_fresh_hosts_become_one_in_the_inventory_s_order() -> None:
    plan = planned(FRESH)
    assert plan == {
        "faults": [], "seed": "a", "node": "rabbit@a", "last": "c", "members": ["rabbit@a", "rabbit@b", "rabbit@c"],
        "switches_tls": False,
    }  # fmt: skip
    assert planned(SETTLED)["faults"] == []
    assert planned({"a": node("a")}) == {
        "faults": [], "seed": "a", "node": "rabbit@a", "last": "a", "members": ["rabbit@a"], "switches_tls": False,
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
    plan = planned({**FRESH, **found})
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
        ({**FRESH, "b": node("b", tls=True)}, ["rabbitmq_cluster_tls is false for a, true for b, false for c"]),
        (
            {
                **SETTLED,
                "a": member("a", "b", "c", down=["rabbit@c"]),
            },
            ["a sees rabbit@c down, which runs", "4369"],
        ),
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
    (fault,) = planned(nodes)["faults"]
    for words in said:
        assert words in fault


def test_a_broker_alone_may_get_another_cookie() -> None:
    assert planned({**FRESH, "a": installed("a", queues=["orders"])})["faults"] == []


def test_nodes_that_would_be_of_different_series_are_refused_before_one_is_installed() -> None:
    (fault,) = planned(FRESH, b="4.0.5")["faults"]
    assert "the hosts would have a 3.10.8, b 4.0.5, c 3.10.8" in fault
    assert "rabbitmq_version" in fault
    # Nobody can tell yet, where the repositories are not there.
    assert planned(FRESH, b="")["faults"] == []
    # Releases of one series go together.
    assert planned(SETTLED, b="3.10.25")["faults"] == []


def test_tls_between_nodes_is_turned_on_only_where_all_are_stopped_together() -> None:
    on = {host: {**told, "tls": True, "switches_tls": True} for host, told in SETTLED.items()}
    plan = planned(on)
    assert plan["switches_tls"]
    (fault,) = plan["faults"]
    assert "rabbitmq_cluster_tls is true, and a, b, c in a cluster that does otherwise" in fault
    assert "playbooks/restart_brokers.yml" in fault
    assert planned(on, restart=True)["faults"] == []
    # A restart that was cut short has left them stopped.
    stopped = {host: {**told, "running": False} for host, told in on.items()}
    assert planned(stopped, restart=True)["faults"] == []
    # Hosts that are in no cluster yet have nobody to lose.
    plan = planned({host: {**told, "tls": True, "switches_tls": True} for host, told in FRESH.items()})
    assert (plan["faults"], plan["switches_tls"]) == ([], False)
