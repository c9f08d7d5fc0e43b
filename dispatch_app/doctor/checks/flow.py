"""The flow: do orders come in, and are they worked off?"""

from __future__ import annotations

import re
import shlex

from ... import topology
from ..case import Case
from ..table import BROKER, ERROR, NAME, WARNING, Check, Finding, LookError
from . import needs
from .fixes import FREE_DISK, RESTART, provision
from .hook import failing

_BACKLOG_SECONDS = 1.5  # in which a working consumer finishes something
_DISK_LIMIT = 50_000_000  # octets, RabbitMQ's default (rabbitmq.com, "Free Disk Space Alarms")


def broker_alarm(case: Case) -> Finding | None:
    for node in case.broker.nodes():
        if node.get("mem_alarm"):
            used, limit = node.get("mem_used", 0) >> 20, node.get("mem_limit", 0) >> 20
            return Finding(f"{node['name']} uses {used} MiB of memory, its limit is {limit} MiB",
                           "RabbitMQ's memory alarm blocks publishers: new orders do not come in.",
                           "rabbitmqctl set_vm_memory_high_watermark 0.4", BROKER)  # fmt: skip
        if node.get("disk_free_alarm"):
            free, limit = node.get("disk_free", 0), node.get("disk_free_limit", 0)
            # A limit that is lower than what is left ends the alarm; where even RabbitMQ's default is more, only space
            # does.
            fix = "rabbitmqctl set_disk_free_limit 50MB" if free > _DISK_LIMIT else FREE_DISK
            return Finding(f"{node['name']} has {free >> 20} MiB of disk left, its limit is {limit >> 20} MiB",
                           "RabbitMQ's disk alarm blocks publishers: new orders do not come in.",
                           fix, BROKER)  # fmt: skip
    return None


def no_consumer(case: Case) -> Finding | None:
    if case.host.starting:
        raise LookError("the service is still starting")
    if case.orders is None or case.orders.consumers:
        return None
    queue = case.broker.settings.queue
    return Finding(f"queue {queue} has no consumer, and {case.orders.ready} orders wait",
                   "Nobody consumes: orders pile up.", RESTART)  # fmt: skip


def not_consuming(case: Case) -> Finding | None:
    if not case.host.ours or not case.host.pid or case.host.starting:
        return None
    if case.host.foreign:
        raise LookError(needs.FOREIGN)
    status, text = case.process.ask("/readyz")
    if status in (0, 200):
        return None
    return Finding(f"{case.process.http}/readyz answers {status}: {text.strip()}",
                   "This host does not consume, though nothing hinders it now.", RESTART)  # fmt: skip


def no_progress(case: Case) -> Finding | None:
    """Messages wait or are out, and nothing has been delivered or acknowledged for the broker's last five seconds.

    Orders that are held because their effect can't come about are meant to wait.
    """
    if case.process.counters.get("dispatch_effect_held_seconds"):
        return None
    found = case.broker.order_queue
    rates = found.get("message_stats", {})
    moving = sum(rates.get(f"{name}_details", {}).get("rate", 0) for name in ("ack", "deliver", "deliver_no_ack"))
    ready, unacked = found.get("messages_ready", 0), found.get("messages_unacknowledged", 0)
    if moving or not ready + unacked or case.process.progress(_BACKLOG_SECONDS):
        return None
    user = shlex.quote(case.broker.settings.user)
    return Finding(f"{ready} orders wait, {unacked} are delivered and not acknowledged, {found.get('consumers', 0)} "
                   "consumers, and nothing moves", "A consumer holds orders and does not finish them; closing its "
                   "connection gives them back, and Dispatch connects again by itself.",
                   f"rabbitmqctl close_all_user_connections {user} 'it makes no progress'", BROKER)  # fmt: skip


def retry_backlog(case: Case) -> Finding | None:
    names = topology.retry_queues(case.broker.settings)
    waiting = {name: depth.ready for name in names if (depth := case.depths[name]) and depth.ready}
    if not waiting:
        return None
    if case.host.foreign:
        raise LookError(f"{sum(waiting.values())} wait in {', '.join(waiting)}, which this program does not fill")
    hook = case.host.environment.get("DISPATCH_HOOK")
    seen = ", ".join(f"{count} in {name}" for name, count in waiting.items())
    if hook:
        return failing(case, hook, seen)
    return provision(seen, "Orders fail and are tried again; the release before this one may not have the fault.",
                      "rollback")  # fmt: skip


def dead_letters(case: Case) -> Finding | None:
    name = topology.dead_queue(case.broker.settings)
    depth = case.depths[name]
    if depth is None or not depth.ready:
        return None
    if case.host.foreign:
        raise LookError(f"{depth.ready} wait in {name}, which this program does not fill and has no command for")
    found = (re.match(r'dispatch_orders_dead_total\{reason="(.*)"\}', key) for key in case.process.counters)
    reasons = {match[1]: case.process.counters[match[0]] for match in found if match}
    why = ", ".join(f"{count:.0f} {reason}" for reason, count in sorted(reasons.items()) if count)
    seen = f"{depth.ready} in {name}" + (f"; this process put there: {why}" if why else "")
    cause = (
        "Messages that could not be dispatched wait for somebody to look at them. `dispatch dead replay` puts them "
        "back once their cause is mended; this moves them out of the queue into a new file, from which `dispatch dead "
        "import` puts them back."
    )
    return Finding(seen, cause, f"{NAME} dead export --all")


CHECKS = (
    Check("broker-alarm", "flow", ERROR, "no alarm blocks publishers", broker_alarm, needs.LOGIN, about=BROKER),
    Check("no-consumer", "flow", ERROR, "somebody consumes", no_consumer,
          (*needs.ACTIVE, "declared-otherwise", "queue-missing", "service-hung"), symptom=True),
    Check("not-consuming", "flow", ERROR, "this host consumes", not_consuming, (*needs.ACTIVE, "hook-broken"),
          symptom=True),
    Check("no-progress", "flow", ERROR, "orders are worked off", no_progress,
          (*needs.ACTIVE, "no-consumer", "service-hung"), symptom=True, about=BROKER),
    Check("retry-backlog", "flow", WARNING, "no order waits to be tried again", retry_backlog, needs.LOGIN,
          about=BROKER),
    Check("dead-letters", "flow", WARNING, "no dead letter waits", dead_letters, needs.LOGIN, about=BROKER),
)  # fmt: skip
