"""`dispatch drain`: wait until no order is left on a broker, before Dispatch moves to another.

AMQP tells how many messages in a queue are ready, but not how many have been delivered and not yet
acknowledged. A working consumer acknowledges within milliseconds, and if one is lost, its messages
become ready again. So the queues count as empty once they have been empty for a moment.
"""

from __future__ import annotations

import time
from typing import Any

import pika
from pika import exceptions

from . import topology
from .settings import Settings

QUIET = 3.0  # seconds without a ready message
_LOOK = 0.5  # seconds between two looks


def drain(settings: Settings, parameters: pika.ConnectionParameters, timeout: float | None) -> int:
    """Wait until the queues are empty, for at most `timeout` seconds, and print progress; return what is left.

    That is a number of messages, in the order queue and in the retry queues, from which orders come back. Raises
    pika's exceptions.
    """
    conn: Any = pika.BlockingConnection(parameters)
    try:
        now = empty_since = started = time.monotonic()
        before = -1
        while True:
            # Retry queues come first: an order that one of them gives back meanwhile then counts in the order queue.
            retrying = sum(_ready(conn, name)[0] for name in topology.retry_queues(settings))
            ready, consumers = _ready(conn, settings.queue)
            if left := ready + retrying:
                empty_since = now
            if left != before:
                before = left
                print(f"{left} messages left, {retrying} of them to be tried again; {consumers} consumers", flush=True)
            if now - empty_since >= QUIET or (left and timeout is not None and now - started >= timeout):
                return left
            conn.sleep(_LOOK)
            now = time.monotonic()
    finally:
        if conn.is_open:
            conn.close()


def _ready(conn: Any, queue: str) -> tuple[int, int]:
    """Return how many messages in a queue are ready and how many consumers it has, 0 and 0 without such a queue."""
    channel = conn.channel()
    try:
        method = channel.queue_declare(queue, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise
        return 0, 0
    channel.close()
    return method.message_count, method.consumer_count
