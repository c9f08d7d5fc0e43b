"""What Dispatch declares on the broker, the names it gives its own queues, and the permissions that takes.

Dispatch shares the exchange and the order queue with every other RoboShop service, and declares them
exactly as those do: durable, without arguments. RabbitMQ refuses anything else with 406
PRECONDITION_FAILED; limits beyond that belong in the broker's policies.

No type is asked for, neither for the order queue nor for Dispatch's own ones: where there is no such queue
yet, the virtual host's default decides, which the role rabbitmq sets to quorum for a cluster. A queue that is
there is taken whatever its type. It is still declared first: so it is there whoever deletes it meanwhile,
and one that is not durable or deletes itself, which would lose orders, is refused as before.
"""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import Any, NamedTuple

from .settings import Settings

# Arguments of a quorum queue that lose no order. RabbitMQ compares arguments only after durable, auto_delete and
# the owner (rabbit_amqqueue:assert_equivalence), so what is refused for one of these is otherwise as it should be.
OF_QUORUM = re.compile(r"x-queue-type|x-delivery-limit|x-quorum-[\w-]+")
_REFUSED = re.compile(rf"inequivalent arg '({OF_QUORUM.pattern})'")

EVENT = "order.dispatched"  # the type of the message that announces an order, and its routing key

# What the services of either RoboShop generation use. All log in as one user.
_SHARED = ("robot-shop", "roboshop", "orders")


def dead_queue(settings: Settings) -> str:
    """Return the name of the queue in which dead letters wait."""
    return f"{settings.queue}.dead"


def retry_queue(settings: Settings, failures: int) -> str:
    """Return the name of the retry queue for an order that had failed `failures` times before it failed now."""
    return f"{settings.queue}.retry.{settings.retry_delays[failures]}s"


def retry_queues(settings: Settings) -> list[str]:
    """Return the names of all retry queues."""
    return list(dict.fromkeys(retry_queue(settings, failures) for failures in range(len(settings.retry_delays))))


def queues(settings: Settings) -> dict[str, dict[str, Any] | None]:
    """Return the arguments of every queue, by name; those of a retry queue lead back to the order queue."""
    arguments: dict[str, dict[str, Any] | None] = {settings.queue: None, dead_queue(settings): None}
    for failures, delay in enumerate(settings.retry_delays):
        arguments[retry_queue(settings, failures)] = {
            "x-message-ttl": delay * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": settings.queue,
        }
    return arguments


def declare_exchange(channel: Any, settings: Settings) -> None:
    """Declare the exchange as every publisher does."""
    channel.exchange_declare(settings.exchange, "direct", durable=True)


class Way(NamedTuple):
    """One way to declare a queue; a passive one takes the queue as it is."""

    arguments: dict[str, Any] | None
    passive: bool = False


def ways(settings: Settings) -> dict[str, list[Way]]:
    """Return how each queue is declared, by name; the ways after the first are for a queue of another type.

    A retry queue is taken with no other arguments than its own: they say when its orders come back, and to where.
    """
    retrying = retry_queues(settings)
    found = {}
    for name, arguments in queues(settings).items():
        typed = [Way({**(arguments or {}), "x-queue-type": kind}) for kind in ("quorum", "classic")]
        found[name] = [Way(arguments), *(typed if name in retrying else [Way(None, passive=True)])]
    return found


def is_of_other_type(error: BaseException) -> bool:
    """Whether the broker refused to declare a queue only because its type is another one."""
    return getattr(error, "reply_code", 0) == 406 and bool(_REFUSED.search(str(getattr(error, "reply_text", ""))))


def is_away(error: BaseException) -> bool:
    """Whether the broker has a queue that it was asked to declare, and nobody can use it for now.

    A classic queue is away while the node of the cluster that it lives on is down. A declaration that is not passive is
    answered with 404 for nothing else.
    """
    return getattr(error, "reply_code", 0) == 404


def is_missing(error: BaseException) -> bool:
    """Whether there is no such queue, by the answer to a passive declaration; one that is away may hold orders."""
    return is_away(error) and "no queue " in str(getattr(error, "reply_text", ""))


class Declaration:
    """Declares and binds everything on an asynchronous channel, and knows what to try on the next one.

    A refusal closes a channel (AMQP 0-9-1, 1.2), so each way needs a channel of its own. A queue of Dispatch's own that
    is away is left out: orders are consumed without it, and the outbox holds what belongs there.
    """

    at_first = False  # for the outbox: the consumer has declared it all

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ways = ways(settings)
        self._open: list[str] = []  # the queues that the broker has not answered for
        self.away: dict[str, str] = {}  # the queues that nobody can use for now, and what the broker says of them

    def send(self, channel: Any) -> None:
        """Send all requests; pika queues them, and the broker answers in their order."""
        self._open = list(self._ways)
        declare_exchange(channel, self._settings)
        for name, (way, *_) in self._ways.items():
            channel.queue_declare(
                name, way.passive, durable=True, arguments=way.arguments, callback=partial(self._answered, name)
            )
        channel.queue_bind(self._settings.queue, self._settings.exchange, self._settings.routing_key)

    def _answered(self, name: str, _: Any) -> None:
        self._open.remove(name)

    def can_go_on(self, error: BaseException) -> bool:
        """Whether to send it again on a new channel, after `error` closed the one before; that is never twice alike."""
        if not self._open:
            return False
        if is_away(error):
            return self.leave_out(str(getattr(error, "reply_text", error)))
        ways = self._ways[self._open[0]]
        if not is_of_other_type(error) or len(ways) < 2:
            return False
        del ways[0]
        return True

    def leave_out(self, why: str) -> bool:
        """Whether to send it again on a new channel without the queue that the next answer would be about."""
        if not self._open or self._open[0] == self._settings.queue:
            return False
        self.away[self._open[0]] = why
        del self._ways[self._open[0]]
        return True


class EventExchange:
    """Declares the exchange to which dispatched orders are announced, and takes one that is there as it is."""

    at_first = True

    def __init__(self, settings: Settings) -> None:
        self._name = settings.event_exchange or ""
        self._passive = self._answered = False

    def send(self, channel: Any) -> None:
        """Send the request; pika queues it."""
        if self._passive:  # which takes no permission, and an exchange of any type
            channel.exchange_declare(self._name, passive=True, callback=self._on_answer)
        else:
            channel.exchange_declare(self._name, "topic", durable=True, callback=self._on_answer)

    def _on_answer(self, _: Any) -> None:
        self._answered = True

    def can_go_on(self, error: BaseException) -> bool:
        """Whether to send it again on a new channel, after `error` closed the one before; that is never twice alike."""
        if self._answered or self._passive or getattr(error, "reply_code", 0) not in (403, 406):
            return False
        self._passive = True
        return True


def grant(settings: Settings) -> str:
    """Return the command that grants the user, for the broker's shell, what RoboShop's services need and no more.

    The role rabbitmq grants the same: regular expressions of the names a user may configure, write and read
    (rabbitmq.com, "Access Control").
    """
    events = [settings.event_exchange] if settings.event_exchange else []
    names = dict.fromkeys((*_SHARED, settings.exchange, settings.queue, *events))
    escaped = "|".join(re.sub(r"([][\\.^$*+?(){}|])", r"\\\1", name) for name in names)
    own = rf"({escaped})(\..*)?"
    patterns = (f"^{own}$", rf"^({own}|amq\.default)$", f"^{own}$")
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", settings.vhost, settings.user, *patterns])
