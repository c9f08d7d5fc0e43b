"""What Dispatch declares on the broker, the names it gives its own queues, and the permissions that takes.

Dispatch shares the exchange and the order queue with every other RoboShop service, and declares them
exactly as those do: durable, without arguments. RabbitMQ refuses anything else with 406
PRECONDITION_FAILED; limits beyond that belong in the broker's policies.

A queue's type belongs in no policy, and an operator may have made the order queue a quorum queue. It is
consumed all the same. It is still declared first: so it is there whoever deletes it meanwhile, and one that
is not durable or deletes itself, which would lose orders, is refused as before.
"""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import Any, NamedTuple

from .settings import Settings

# The queue type is explicit because a virtual host may default to quorum queues, which count every
# look at a dead letter as a delivery and drop it after 20 (RabbitMQ 4.0 docs).
_OWN: dict[str, Any] = {"x-queue-type": "classic"}
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
    arguments: dict[str, dict[str, Any] | None] = {settings.queue: None, dead_queue(settings): _OWN}
    for failures, delay in enumerate(settings.retry_delays):
        arguments[retry_queue(settings, failures)] = {
            **_OWN,
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
    """Return how each queue is declared, by name; a second way is for a queue of another type.

    There is none for the dead letters: a quorum queue drops them once they have been looked at often enough.
    """
    found = {name: [Way(arguments)] for name, arguments in queues(settings).items()}
    found[settings.queue].append(Way(None, passive=True))
    for name in retry_queues(settings):
        found[name].append(Way({**(queues(settings)[name] or {}), "x-queue-type": "quorum"}))
    return found


def is_of_other_type(error: BaseException) -> bool:
    """Whether the broker refused to declare a queue only because its type is another one."""
    return getattr(error, "reply_code", 0) == 406 and bool(_REFUSED.search(str(getattr(error, "reply_text", ""))))


class Declaration:
    """Declares and binds everything on an asynchronous channel, and knows what to try on the next one.

    A refusal closes a channel (AMQP 0-9-1, 1.2), so each way needs a channel of its own.
    """

    at_first = False  # for the outbox: the consumer has declared it all

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ways = ways(settings)
        self._open: list[str] = []  # the queues that the broker has not answered for

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
        if not self._open or not is_of_other_type(error) or len(self._ways[self._open[0]]) < 2:
            return False
        del self._ways[self._open[0]][0]
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
