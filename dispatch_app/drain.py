"""`dispatch drain`: wait until no order is left on a broker, before Dispatch moves to another.

AMQP tells how many messages of a queue are ready, but not how many have been delivered and not yet acknowledged. The
service on this host knows how many of those it has, and whoever drains a fleet does so on each of its hosts. An order
on its way from one place to another may be in none of them at a look, so the queues count as empty once they have been
empty for a moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pika
from pika import exceptions

from . import status, topology
from .doctor.commands import run
from .doctor.table import NAME
from .settings import RETRY_DELAYS, Settings

QUIET = 3.0  # seconds without an order
UNANSWERED = 15.0  # seconds after which a service that does not answer is given up
_LOOK = 0.5  # seconds between two looks


class UncountableError(Exception):
    """The orders in the hands of the service on this host can't be counted; the message says why, and what to do."""


def drain(
    settings: Settings, parameters: pika.ConnectionParameters, timeout: float | None, in_hand: Callable[[], int | None]
) -> int:
    """Wait until no order is left, for at most `timeout` seconds, and print progress; return how many are left.

    Those in the order queue count, those in the retry queues, from which orders come back, and those that the service
    on this host has and has not acknowledged: `in_hand` returns their number, or None where it can't be had now.
    Raises UncountableError, and pika's exceptions.
    """
    # Where the delays have been changed, orders may still wait in the queues of the default ones.
    delays = (*settings.retry_delays, *RETRY_DELAYS)
    retry_queues = topology.retry_queues(replace(settings, retry_delays=delays))
    conn: Any = pika.BlockingConnection(parameters)
    try:
        now = empty_since = answered = started = time.monotonic()
        said = ""
        while True:
            # Retry queues come first: an order that one of them gives back meanwhile then counts in the order queue.
            retrying = sum(_ready(conn, name)[0] for name in retry_queues)
            ready, consumers = _ready(conn, settings.queue)
            # Even where nobody consumes: a service that is stopping has orders in hand, and consumes no more.
            held = in_hand()
            left = ready + retrying + (held or 0)
            if held is not None:
                answered = now
            if left or held is None:
                empty_since = now
            line = f"{left} messages left, {retrying} of them to be tried again and {_number(held)} in hand here; "
            if line != said:
                said = line
                print(f"{line}{consumers} consumers", flush=True)
            if now - empty_since >= QUIET or (left and timeout is not None and now - started >= timeout):
                return left
            if now - answered >= UNANSWERED:
                raise UncountableError(
                    f"the orders that Dispatch has on this host can't be counted, because {_url(settings)} does not "
                    f"tell their number ({UNANSWERED:g} s); run `dispatch doctor`, mend what it finds, and drain again"
                )
            conn.sleep(_LOOK)
            now = time.monotonic()
    finally:
        if conn.is_open:
            conn.close()


def in_hand(settings: Settings) -> int | None:
    """How many orders the service on this host has not acknowledged yet; None if it runs and does not tell."""
    held = status.counters(_url(settings)).get("dispatch_orders_in_flight")
    if held is not None:
        return int(held)
    return None if _runs() else 0


def _runs() -> bool:
    """Whether systemd has a process of the service, or can't tell."""
    return run("systemctl", "show", "--property=MainPID", "--value", f"{NAME}.service").last_line != "0"


def _url(settings: Settings) -> str:
    return "http://{}:{}/metrics".format(*settings.http)


def _number(held: int | None) -> str:
    return "an unknown number" if held is None else str(held)


def _ready(conn: Any, queue: str) -> tuple[int, int]:
    """Return how many messages in a queue are ready and how many consumers it has, 0 and 0 without such a queue."""
    channel = conn.channel()
    try:
        method = channel.queue_declare(queue, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        if not topology.is_missing(error):
            raise
        return 0, 0
    channel.close()
    return method.message_count, method.consumer_count
