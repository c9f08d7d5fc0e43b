"""`dispatch drain`: wait until no order is left on a broker, before it is left for another.

AMQP tells how many messages of a queue are ready, not how many are delivered and not acknowledged
yet. Those become ready again where their consumer is lost, and a working one acknowledges in
milliseconds; so the queues count as empty once they have stayed so for a moment.
"""

from __future__ import annotations

import time
from typing import Any

import pika
from pika import exceptions

from . import topology
from .settings import Settings

SETTLE = 3.0  # seconds without a ready message
_LOOK = 0.5  # seconds between two looks


def drain(settings: Settings, parameters: pika.ConnectionParameters, timeout: float | None) -> int:
    """Wait, `timeout` seconds for the last message, and print progress; return how many were left.

    Counts the order queue and the retry queues, from which orders come back to it. Raises pika's exceptions.
    """
    conn: Any = pika.BlockingConnection(parameters)
    try:
        now = empty_since = started = time.monotonic()
        before = -1
        while True:
            # Retry queues first: what one of them gives back meanwhile is then found in the order queue.
            retrying = sum(_ready(conn, name)[0] for name in topology.retry_queues(settings))
            ready, consumers = _ready(conn, settings.queue)
            if left := ready + retrying:
                empty_since = now
            if left != before:
                before = left
                print(f"{left} messages left, {retrying} of them to be tried again; {consumers} consumers", flush=True)
            if now - empty_since >= SETTLE or (left and timeout is not None and now - started >= timeout):
                return left
            conn.sleep(_LOOK)
            now = time.monotonic()
    finally:
        if conn.is_open:
            conn.close()


def _ready(conn: Any, queue: str) -> tuple[int, int]:
    """Return how many messages of a queue are ready, and how many consumers it has; none if there is no queue."""
    channel = conn.channel()
    try:
        method = channel.queue_declare(queue, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return 0, 0
    channel.close()
    return method.message_count, method.consumer_count
