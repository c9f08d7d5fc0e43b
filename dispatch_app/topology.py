"""What Dispatch declares on the broker, and the names it gives its own queues.

The exchange and the order queue are shared with every other RoboShop service and are
declared exactly as those do: durable, without arguments; anything else would be refused
with 406 PRECONDITION_FAILED. Limits beyond that belong in the broker's policies.
"""

from __future__ import annotations

from typing import Any

from .settings import Settings

# Seconds an order waits before it is tried again; after the last it is dead-lettered.
RETRY_DELAYS = (1, 5, 30, 120, 300)

# Their type is named so that a virtual host's default of quorum queues doesn't apply: those
# count every look at a dead letter as a delivery and drop it after 20 (RabbitMQ 4.0 docs).
_OWN: dict[str, Any] = {"x-queue-type": "classic"}


def dead_queue(settings: Settings) -> str:
    """Return the name of the queue dead letters wait in."""
    return f"{settings.queue}.dead"


def retry_queue(settings: Settings, failures: int) -> str:
    """Return the queue for an order that had failed `failures` times before this one."""
    return f"{settings.queue}.retry.{RETRY_DELAYS[failures]}s"


def retry_queues(settings: Settings) -> list[str]:
    """Return the names of all retry queues."""
    return [retry_queue(settings, failures) for failures in range(len(RETRY_DELAYS))]


def queues(settings: Settings) -> dict[str, dict[str, Any] | None]:
    """Return the arguments of every queue, by name; a retry queue's lead back to the order queue."""
    found: dict[str, dict[str, Any] | None] = {settings.queue: None, dead_queue(settings): _OWN}
    for failures, delay in enumerate(RETRY_DELAYS):
        found[retry_queue(settings, failures)] = {
            **_OWN,
            "x-message-ttl": delay * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": settings.queue,
        }
    return found


def declare_exchange(channel: Any, settings: Settings) -> None:
    """Declare the exchange as every publisher does."""
    channel.exchange_declare(settings.exchange, "direct", durable=True)


def declare(channel: Any, settings: Settings) -> None:
    """Declare and bind everything; pika's asynchronous channels line the requests up."""
    declare_exchange(channel, settings)
    for name, arguments in queues(settings).items():
        channel.queue_declare(name, durable=True, arguments=arguments)
    channel.queue_bind(settings.queue, settings.exchange, settings.routing_key)
