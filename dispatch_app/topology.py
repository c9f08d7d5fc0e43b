"""What Dispatch declares on the broker, the names it gives its own queues, and the permissions that takes.

Dispatch shares the exchange and the order queue with every other RoboShop service, and declares them
exactly as those do: durable, without arguments. RabbitMQ refuses anything else with 406
PRECONDITION_FAILED; limits beyond that belong in the broker's policies.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from .settings import Settings

# Seconds an order waits before each new try; after the last one it is dead-lettered.
RETRY_DELAYS = (1, 5, 30, 120, 300)

# The queue type is explicit because a virtual host may default to quorum queues, which count every
# look at a dead letter as a delivery and drop it after 20 (RabbitMQ 4.0 docs).
_OWN: dict[str, Any] = {"x-queue-type": "classic"}

# What the services of either RoboShop generation use. All log in as one user.
_SHARED = ("robot-shop", "roboshop", "orders")


def dead_queue(settings: Settings) -> str:
    """Return the name of the queue in which dead letters wait."""
    return f"{settings.queue}.dead"


def retry_queue(settings: Settings, failures: int) -> str:
    """Return the name of the retry queue for an order that had failed `failures` times before it failed now."""
    return f"{settings.queue}.retry.{RETRY_DELAYS[failures]}s"


def retry_queues(settings: Settings) -> list[str]:
    """Return the names of all retry queues."""
    return [retry_queue(settings, failures) for failures in range(len(RETRY_DELAYS))]


def queues(settings: Settings) -> dict[str, dict[str, Any] | None]:
    """Return the arguments of every queue, by name; those of a retry queue lead back to the order queue."""
    arguments: dict[str, dict[str, Any] | None] = {settings.queue: None, dead_queue(settings): _OWN}
    for failures, delay in enumerate(RETRY_DELAYS):
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


def declare(channel: Any, settings: Settings) -> None:
    """Declare and bind everything; pika's asynchronous channels queue the requests."""
    declare_exchange(channel, settings)
    for name, arguments in queues(settings).items():
        channel.queue_declare(name, durable=True, arguments=arguments)
    channel.queue_bind(settings.queue, settings.exchange, settings.routing_key)


def grant(settings: Settings) -> str:
    """Return the command that grants the user, for the broker's shell, what RoboShop's services need and no more.

    The role rabbitmq grants the same: regular expressions of the names a user may configure, write and read
    (rabbitmq.com, "Access Control").
    """
    names = dict.fromkeys((*_SHARED, settings.exchange, settings.queue))
    escaped = "|".join(re.sub(r"([][\\.^$*+?(){}|])", r"\\\1", name) for name in names)
    own = rf"({escaped})(\..*)?"
    patterns = (f"^{own}$", rf"^({own}|amq\.default)$", f"^{own}$")
    return shlex.join(["rabbitmqctl", "set_permissions", "-p", settings.vhost, settings.user, *patterns])
