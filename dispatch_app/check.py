"""`dispatch check`: can this host reach the broker, log in and consume? Changes nothing.

Permissions are tried with requests that the broker checks for permission first and must refuse
next, with 406 PRECONDITION_FAILED for an argument that can't be: nothing is created, and no
message is delivered from a live queue.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika import exceptions

from . import topology
from .connection import ERRORS, Failure, explain, parameters
from .settings import Settings

# How long to wait for RabbitMQ, which reads nothing more from whoever publishes while it is short of memory or disk
# space (rabbitmq.com, "Memory and Disk Alarms").
BLOCKED_SECONDS = 5
# What no broker accepts: an exchange's name, a queue's time to live, a consumer's priority.
_NO_EXCHANGE, _NO_QUEUE, _NO_CONSUMER = {"alternate-exchange": 1}, {"x-message-ttl": -1}, {"x-priority": "none"}


def check(settings: Settings, host: str) -> tuple[Failure | None, list[str]]:
    """Check one host; return what failed, if anything, and the names `run` has still to declare."""
    missing: list[str] = []
    conn = None
    try:
        wanted = parameters(settings, host)
        wanted.blocked_connection_timeout = BLOCKED_SECONDS
        conn = pika.BlockingConnection(wanted)
        _topology(partial(_refused, conn), settings, missing)
        _permissions(partial(_refused, conn), settings)
    except ERRORS as error:
        return explain(error, settings, host), missing
    finally:
        if conn is not None and conn.is_open:
            with contextlib.suppress(*ERRORS):  # an alarm keeps it from answering
                conn.close()
    return None, missing


def _topology(refused: Callable[..., bool], settings: Settings, missing: list[str]) -> None:
    """Declare what exists just as `run` will, and try whether `run` may declare the rest."""
    exchange = settings.exchange
    if refused(404, "exchange_declare", exchange, passive=True):
        missing.append(exchange)
        refused(406, "exchange_declare", exchange, arguments=_NO_EXCHANGE)
    else:
        refused(0, "exchange_declare", exchange, "direct", durable=True)
    for name, arguments in topology.queues(settings).items():
        if refused(404, "queue_declare", name, passive=True):
            missing.append(name)
            # With where its dead letters go: whoever declares that needs more permissions.
            arguments, code = {**(arguments or {}), **_NO_QUEUE}, 406
        else:
            code = 0
        refused(code, "queue_declare", name, durable=True, arguments=arguments)


def _permissions(refused: Callable[..., bool], settings: Settings) -> None:
    """Try to bind the queue, to consume it, and to publish to the default exchange."""
    nowhere = f"{settings.queue}.nowhere"
    # Takes what binding it takes, and there is no such binding.
    refused(404, "queue_unbind", settings.queue, settings.exchange, nowhere)
    refused((404, 406), "basic_consume", settings.queue, lambda *_: None, arguments=_NO_CONSUMER)
    # As it should be: permitted, and taken by no queue; or put off by an alarm, which keeps nobody from consuming.
    with contextlib.suppress(exceptions.UnroutableError, exceptions.ConnectionBlockedTimeout):
        refused(0, "basic_publish", "", nowhere, b"", mandatory=True)


def _refused(conn: Any, codes: int | tuple[int, ...], request: str, *args: Any, **options: Any) -> bool:
    """Make a request on a channel of its own; say whether it was refused with one of `codes`.

    Raises pika's ChannelClosedByBroker for any other refusal.
    """
    channel = conn.channel()
    channel.confirm_delivery()
    try:
        getattr(channel, request)(*args, **options)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code in (codes if isinstance(codes, tuple) else (codes,)):
            return True
        raise
    channel.close()
    return False
