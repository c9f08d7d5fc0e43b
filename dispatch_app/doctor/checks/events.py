"""Announcements: does the shop learn of the orders that are dispatched?"""

from __future__ import annotations

import json
import re
import shlex

from ... import topology
from ..case import Case
from ..table import BROKER, WARNING, Check, Finding
from . import needs
from .fixes import RESTART

STUCK_SECONDS = 300.0
_OBSTACLE = re.compile(r'dispatch_events_obstacle\{reason="(\w+)"\}')


def events_stuck(case: Case) -> Finding | None:
    s, counters = case.broker.settings, case.process.counters
    seconds = counters.get("dispatch_events_oldest_seconds", 0.0)
    if not s.event_exchange or seconds < STUCK_SECONDS:
        return None
    reason = next((found[1] for name, value in counters.items() if value and (found := _OBSTACLE.fullmatch(name))), "")
    waiting = counters.get("dispatch_events_pending", 0.0)
    seen = f"{waiting:.0f} orders wait to be announced to {s.event_exchange}, the first for {seconds / 60:.0f} minutes"
    kept = "They are kept, and announced once that is mended."
    if reason == "unroutable":
        keep = shlex.quote(_queue(s.vhost, s.event_exchange))
        cause = f"No queue is bound to that exchange with the key {topology.EVENT}. {kept}"
        holding = f"This makes a queue {topology.EVENT}, which holds them until a service consumes it."
        command = f"printf %s {keep} | rabbitmqctl import_definitions"
        return Finding(f"{seen}: unroutable", f"{cause} {holding}", command, BROKER)
    if reason in ("permission", "exchange"):
        missing = "make that exchange, which does not exist" if reason == "exchange" else "publish to that exchange"
        return Finding(f"{seen}: {reason}", f"User {s.user} may not {missing}. {kept}", topology.grant(s), BROKER)
    return Finding(f"{seen}: {reason or 'nothing is in the way'}", f"The broker does not take them. {kept}", RESTART)


def _queue(vhost: str, exchange: str) -> str:
    """RabbitMQ's definition of a queue for the announcements (rabbitmq.com, "Schema Definition Export and Import")."""
    queue = {"vhost": vhost, "name": topology.EVENT, "durable": True, "auto_delete": False, "arguments": {}}
    binding = {
        "vhost": vhost, "source": exchange, "destination": topology.EVENT, "destination_type": "queue",
        "routing_key": topology.EVENT, "arguments": {},
    }  # fmt: skip
    return json.dumps({"queues": [queue], "bindings": [binding]})


CHECKS = (
    Check("events-stuck", "flow", WARNING, "dispatched orders are announced", events_stuck, needs.ACTIVE, about=BROKER),
)
