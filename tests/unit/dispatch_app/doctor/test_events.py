"""Announcements that don't get through are told with what is in their way, and with a command that mends it."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace
from typing import Any

import pytest

from dispatch_app import topology
from dispatch_app.doctor.checks import events
from dispatch_app.doctor.table import BROKER, Finding
from dispatch_app.settings import load

SETTINGS = load({"AMQP_HOST": "a", "AMQP_PASS": "b", "AMQP_VHOST": "it's", "DISPATCH_EVENT_EXCHANGE": "x'y"})


def found(seconds: float, reason: str = "", settings: Any = SETTINGS) -> Finding | None:
    gauges = {f'dispatch_events_obstacle{{reason="{one}"}}': float(one == reason) for one in ("broker", "unroutable")}
    if reason:
        gauges[f'dispatch_events_obstacle{{reason="{reason}"}}'] = 1.0
    counters = {"dispatch_events_oldest_seconds": seconds, "dispatch_events_pending": 7.0, **gauges}
    case: Any = SimpleNamespace(broker=SimpleNamespace(settings=settings), process=SimpleNamespace(counters=counters))
    return events.events_stuck(case)


def test_what_has_waited_for_a_moment_or_is_not_asked_for_is_no_fault() -> None:
    assert found(events.STUCK_SECONDS - 1, "unroutable") is None
    assert found(9999, "", load({"AMQP_HOST": "a", "AMQP_PASS": "b"})) is None


def test_where_nobody_listens_the_fix_makes_a_queue() -> None:
    finding = found(600, "unroutable")
    assert finding
    assert finding.evidence == "7 orders wait to be announced to x'y, the first for 10 minutes: unroutable"
    words = shlex.split(finding.command)
    assert (words[:2], words[3:], finding.where) == (
        ["printf", "%s"],
        ["|", "rabbitmqctl", "import_definitions"],
        BROKER,
    )
    made = json.loads(words[2])
    (queue,), (binding,) = made["queues"], made["bindings"]
    assert (queue["vhost"], queue["durable"]) == ("it's", True)
    assert (binding["source"], binding["destination"], binding["routing_key"]) == ("x'y", queue["name"], topology.EVENT)


@pytest.mark.parametrize("reason", ["permission", "exchange"])
def test_where_the_user_may_not_the_fix_grants_it(reason: str) -> None:
    finding = found(600, reason)
    assert finding
    assert (finding.command, finding.where) == (topology.grant(SETTINGS), BROKER)


def test_anything_else_is_begun_anew() -> None:
    finding = found(600, "broker")
    assert finding
    assert finding.command == "systemctl restart dispatch"
