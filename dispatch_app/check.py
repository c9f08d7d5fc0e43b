"""`dispatch check`: can this host reach the broker, log in and consume? Changes nothing.

Permissions are tried with requests the broker checks for permission first and must refuse
afterwards, with 406 PRECONDITION_FAILED for an argument it can't accept: nothing is
created, and no message is delivered from a live queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
from pika import exceptions

from . import topology
from .connection import Failure, explain, parameters
from .settings import Settings

_REFUSED = {"alternate-exchange": 1}  # must be a string
_REFUSED_QUEUE = {"x-message-ttl": -1}  # must not be negative
_REFUSED_CONSUMER = {"x-priority": "none"}  # must be a number


def check(settings: Settings, host: str) -> tuple[Failure | None, list[str]]:
    """Check one host; return what failed first, if anything, and remarks."""
    remarks: list[str] = []
    conn = None
    try:
        conn = pika.BlockingConnection(parameters(settings, host))
        _topology(conn, settings, remarks)
        _permissions(conn, settings)
    except (exceptions.AMQPError, OSError, RuntimeError) as error:
        return explain(error, settings, host), remarks
    finally:
        if conn is not None and conn.is_open:
            conn.close()
    return None, remarks


def _topology(conn: Any, settings: Settings, remarks: list[str]) -> None:
    """Declare what exists just as `run` does, which fails where it was declared otherwise."""
    queue = settings.queue
    own = {topology.dead_queue(settings): topology.OWN}
    for attempt, delay in enumerate(topology.RETRY_DELAYS, 1):
        own[topology.retry_queue(settings, attempt)] = topology.retry_arguments(settings, delay)
    if _try(conn, lambda ch: ch.exchange_declare(settings.exchange, passive=True), 404):
        _try(conn, lambda ch: topology.declare_exchange(ch, settings))
    else:
        remarks.append(f"the exchange {settings.exchange} doesn't exist yet; run declares it")
        _try(conn, lambda ch: ch.exchange_declare(settings.exchange, arguments=_REFUSED), 406)
    for name, arguments in {queue: None, **own}.items():
        if _try(conn, lambda ch, name=name: ch.queue_declare(name, passive=True), 404):
            _try(conn, lambda ch, name=name, arguments=arguments: ch.queue_declare(
                name, durable=True, arguments=arguments))  # fmt: skip
        else:
            if name == queue:
                remarks.append(f"the queue {queue} doesn't exist yet; run declares it")
            _try(conn, lambda ch, name=name: ch.queue_declare(
                name, durable=True, arguments=_REFUSED_QUEUE), 406)  # fmt: skip


def _permissions(conn: Any, settings: Settings) -> None:
    """Try to bind and consume the queue, and to publish to the default exchange."""
    missing = f"{settings.queue}.check.missing"
    _try(conn, lambda ch: ch.queue_bind(missing, settings.exchange, "check"), 404)

    def consumer(channel: Any) -> None:
        channel.basic_consume(settings.queue, lambda *_: None, arguments=_REFUSED_CONSUMER)

    _try(conn, consumer, 406, 404)

    def publish(channel: Any) -> None:
        channel.confirm_delivery()
        try:
            channel.basic_publish("", missing, b"", mandatory=True)
        except exceptions.UnroutableError:
            pass  # as it should be: permitted, and nobody has such a queue

    _try(conn, publish)


def _try(conn: Any, request: Callable[[Any], object], *expected: int) -> bool:
    """Make a request on a channel of its own; False if refused with an `expected` code.

    Raises pika's ChannelClosedByBroker for any other refusal.
    """
    channel = conn.channel()
    try:
        request(channel)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code in expected:
            return False
        raise
    channel.close()
    return True
