"""The exchange and the queues: are they there, bound, and declared as everywhere?"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from ... import topology
from ...settings import Settings
from ..case import Case
from ..table import BROKER, ERROR, WARNING, Check, Finding, LookError
from . import needs
from .fixes import RESTART

_DEFAULT_LIMIT = 20  # deliveries, from RabbitMQ 4.0 on (rabbitmq.com, "Quorum Queues", "Poison Message Handling")
_ENOUGH = 1_000_000  # no order is delivered that often
# Both RabbitMQ 3.10, which takes no -1 for no limit, and 4.0 accept it; the role rabbitmq sets the same.
_NO_LIMIT = 1_000_000_000


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
    given = ("x-queue-type",) if name in topology.retry_queues(s) else tuple(arguments)
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


def delivery_limit(case: Case) -> Finding | None:
    """By the management API: whether RabbitMQ would drop an order, or a dead letter, that is delivered often."""
    s = case.broker.settings
    for name in topology.queues(s):
        found = case.broker.queue(name)
        if not found or found.get("type") != "quorum":
            continue
        if "x-delivery-limit" in found["arguments"]:  # who declared it so wants it so, and no policy lifts it
            continue
        policy = found.get("effective_policy_definition") or {}
        limit = policy.get("delivery-limit", _DEFAULT_LIMIT if case.broker.version >= (4,) else -1)
        if not 0 <= limit < _ENOUGH:
            continue
        seen = f"quorum queue {name} gives a message up after {limit} deliveries"
        cause = "RabbitMQ drops an order that was given back that often, and a dead letter looked at that often."
        vhost = shlex.quote(s.vhost)
        definition = shlex.quote(json.dumps({**policy, "delivery-limit": _NO_LIMIT}, sort_keys=True))
        called, pattern = shlex.quote(f"{name}-delivery-limit"), shlex.quote(f"^{re.escape(name)}$")
        raised = f"--priority 1000 --apply-to queues {called} {pattern} {definition}"
        return Finding(seen, cause, f"rabbitmqctl set_policy --vhost {vhost} {raised}", BROKER)
    return None


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
    Check("delivery-limit", "queues", WARNING, "no queue drops what is delivered often", delivery_limit,
          (*needs.LOGIN, "declared-otherwise"), about=BROKER),
)  # fmt: skip
