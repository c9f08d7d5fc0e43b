"""The exchange and the queues: are they there, bound, and declared as everywhere?"""

from __future__ import annotations

import re
import shlex
from typing import Any

from ... import topology
from ...settings import Settings
from ..case import Case
from ..table import BROKER, ERROR, Check, Finding, LookError
from . import needs
from .fixes import RESTART


def declared_otherwise(case: Case) -> Finding | None:
    """By the management API; without it, by what the service says it was refused."""
    s, told = case.broker.settings, case.host.unit["StatusText"]
    vhost = shlex.quote(s.vhost)
    expected = topology.queues(s) if case.host.ours and not case.host.foreign else {s.queue: None}
    try:
        for name, arguments in expected.items():
            found = case.broker.queue(name)
            if found and _otherwise(s, name, arguments or {}, found):
                seen = f"queue {name}: durable {found['durable']}, arguments {found['arguments']}"
                delete = f"rabbitmqctl delete_queue --vhost {vhost} --if-empty {shlex.quote(name)}"
                cause = (
                    "The queue was declared otherwise than RoboShop's services do (406); deleted, it is declared anew."
                )
                return Finding(seen, cause, delete, BROKER)
    except LookError:
        if "declared otherwise" not in told:
            raise
        at_fault = re.search(r"for (queue|exchange) '(.+?)' in vhost", told)
        kind, name = at_fault.groups() if at_fault else ("queue", s.queue)
        delete = f"rabbitmqctl delete_queue --vhost {vhost} --if-empty {shlex.quote(name)}"
        if kind == "exchange":
            delete = f"rabbitmqadmin --vhost={vhost} delete exchange name={shlex.quote(name)}"
        return Finding(told, f"The {kind} was declared otherwise than RoboShop's services do (406).", delete, BROKER)
    return None


def _otherwise(s: Settings, name: str, wanted: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether the service can't take a queue as it is found; see topology.ways."""
    arguments = dict(found["arguments"])
    if name != topology.dead_queue(s):  # which has to be classic
        given = arguments if name == s.queue else ("x-queue-type",)
        wanted = {key: value for key, value in wanted.items() if key != "x-queue-type"}
        for key in [key for key in given if topology.OF_QUORUM.fullmatch(key)]:
            arguments.pop(key, None)
    return bool(arguments != wanted or not found["durable"] or found["auto_delete"])


def queue_missing(case: Case) -> Finding | None:
    s = case.broker.settings
    if case.host.starting:
        raise LookError("the service is still starting")
    lost = [] if case.orders else [f"queue {s.queue}"]
    if case.broker.refusal("exchange_declare", s.exchange, passive=True)[0] == 404:
        lost.append(f"exchange {s.exchange}")
    if not lost:
        return None
    seen = f"there is no {' and no '.join(lost)}"
    return Finding(seen, "It was deleted; Dispatch declares it when it connects.", RESTART)


def queue_unbound(case: Case) -> Finding | None:
    s = case.broker.settings
    keys = case.broker.bindings()
    if s.routing_key in keys:
        return None
    others = f" (but {', '.join(keys)})" if keys else ""
    seen = f"queue {s.queue} is not bound to exchange {s.exchange} with key {s.routing_key}{others}"
    return Finding(seen, "Orders that payment publishes vanish; Dispatch binds the queue when it connects.", RESTART)


# What can keep the service from running.
DECLARED = (
    Check("declared-otherwise", "queues", ERROR, "the queues are declared as everywhere", declared_otherwise,
          needs.LOGIN, about=BROKER),
)  # fmt: skip
# What a service that runs has declared.
PRESENT = (
    Check("queue-missing", "queues", ERROR, "exchange and queue exist", queue_missing,
          (*needs.ACTIVE, "declared-otherwise", "service-hung"), about=BROKER),
    Check("queue-unbound", "queues", ERROR, "the queue is bound to the exchange", queue_unbound,
          (*needs.ACTIVE, "declared-otherwise", "queue-missing"), about=BROKER),
)  # fmt: skip
