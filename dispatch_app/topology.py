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
OWN: dict[str, Any] = {"x-queue-type": "classic"}


def dead_queue(settings: Settings) -> str:
    """Return the name of the queue dead letters wait in."""
    return f"{settings.queue}.dead"


def retry_queue(settings: Settings, attempt: int) -> str:
    """Return the queue for an order whose `attempt`-th attempt (from 1) failed."""
    return f"{settings.queue}.retry.{RETRY_DELAYS[attempt - 1]}s"


def retry_arguments(settings: Settings, delay: int) -> dict[str, Any]:
    """Return a retry queue's arguments: after `delay` seconds back to the order queue."""
    return {
        **OWN,
        "x-message-ttl": delay * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": settings.queue,
    }


def declare(channel: Any, settings: Settings) -> None:
    """Declare everything, on any pika channel; the asynchronous ones queue the calls."""
    declare_exchange(channel, settings)
    channel.queue_declare(settings.queue, durable=True)
    channel.queue_bind(settings.queue, settings.exchange, settings.routing_key)
    declare_own(channel, settings)


def declare_exchange(channel: Any, settings: Settings) -> None:
    """Declare the exchange as every publisher does."""
    channel.exchange_declare(settings.exchange, "direct", durable=True)


def declare_own(channel: Any, settings: Settings) -> None:
    """Declare the queues for dead letters and for retries."""
    channel.queue_declare(dead_queue(settings), durable=True, arguments=OWN)
    for attempt, delay in enumerate(RETRY_DELAYS, 1):
        name = retry_queue(settings, attempt)
        channel.queue_declare(name, durable=True, arguments=retry_arguments(settings, delay))
