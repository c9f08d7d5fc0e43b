"""A fleet spreads over the nodes of a cluster, and each host goes on to the next at once."""

from __future__ import annotations

from collections import Counter

import pytest

from dispatch_app.amqp import connection
from dispatch_app.route import BACKOFF, Route
from dispatch_app.settings import load

NODES = ("a", "b", "c")
FLEET = [f"dispatch-{number}" for number in range(300)]


def visited(route: Route, times: int, consumed: bool = False) -> list[str]:
    hosts = []
    for _ in range(times):
        hosts.append(route.host)
        route.go_on(consumed)
    return hosts


def test_a_host_tries_all_in_the_same_order_at_every_start() -> None:
    first = visited(Route(NODES, "dispatch-1"), 6)
    assert sorted(first[:3]) == [*NODES]
    assert first[:3] == first[3:] == visited(Route(NODES, "dispatch-1"), 3)


def test_a_fleet_spreads_and_so_do_those_that_lose_their_node() -> None:
    routes = [Route(NODES, name) for name in FLEET]
    count = Counter(route.host for route in routes)
    assert min(count[node] for node in NODES) > 75
    lost = [route for route in routes if route.host == "a"]
    for route in lost:
        route.go_on(consumed=True)
    count = Counter(route.host for route in lost)
    assert min(count["b"], count["c"]) > len(lost) / 3


def test_after_orders_were_consumed_the_next_node_s_turn_comes() -> None:
    route = Route(NODES, "x")
    seen = visited(route, 1) + visited(route, 4, consumed=True)
    assert seen[:3] == seen[3:] + visited(Route(NODES, "x"), 3)[2:]


def test_every_node_is_tried_at_once_before_the_wait_grows() -> None:
    route = Route(NODES, "x")
    waits = [route.go_on(consumed=number == 0) for number in range(60)]
    assert max(waits[:2]) <= BACKOFF[0]
    assert waits[2] > BACKOFF[0] / 2
    assert max(waits) <= BACKOFF[1]
    assert max(waits) > BACKOFF[1] / 2
    assert route.failures == 60


def test_a_broker_alone_is_not_asked_again_at_once() -> None:
    route = Route(("a",), "x")
    assert (route.host, route.go_on(consumed=True) >= BACKOFF[0], route.host) == ("a", True, "a")


@pytest.mark.parametrize(("hosts", "most"), [("a", 5), ("a,b", 2)])
def test_a_node_that_does_not_answer_is_not_waited_for_where_there_are_others(hosts: str, most: int) -> None:
    settings = load({"AMQP_HOST": hosts, "AMQP_PASS": "p"})
    assert connection.parameters(settings, "a").socket_timeout == most
