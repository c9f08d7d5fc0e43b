"""`dispatch check`: can this host reach the broker, log in and consume? It changes nothing.

Permissions are tried with requests that the broker first checks for permission, and must then refuse
with 406 PRECONDITION_FAILED because of an impossible argument. So nothing is created, and no queue
delivers a message.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pika
from pika import exceptions

from . import topology
from .amqp.connection import parameters
from .database import Database
from .failures import ERRORS, LEDGER, Failure, explain
from .ledgers import needing_libpq
from .ledgers.port import AwayError, LedgerError
from .settings import Settings

# While RabbitMQ is short of memory or disk space, it reads nothing from a connection that has published (rabbitmq.com,
# "Memory and Disk Alarms"); the check waits this long for it.
BLOCKED_SECONDS = 5
CONNECT_SECONDS = 5.0  # for a look whether anybody is at a URL
_PORTS = {"http": http.client.HTTP_PORT, "https": http.client.HTTPS_PORT}
# No broker accepts these: a number as an exchange's name, a negative time to live, a priority that is no number.
_NO_EXCHANGE, _NO_QUEUE, _NO_CONSUMER = {"alternate-exchange": 1}, {"x-message-ttl": -1}, {"x-priority": "none"}


class Outcome(NamedTuple):
    """What came of checking one host: what failed, if anything, and what is to be noted."""

    failure: Failure | None
    missing: list[str]  # names that `run` has yet to declare
    away: list[str]  # queues that `run` does without for now, because the node that they live on is down


def check(settings: Settings, host: str) -> Outcome:
    """Check one host."""
    missing: list[str] = []
    away: list[str] = []
    conn = None
    try:
        how = parameters(settings, host)
        how.blocked_connection_timeout = BLOCKED_SECONDS
        conn = pika.BlockingConnection(how)
        _topology(partial(_refused, conn), settings, missing, away)
        _permissions(partial(_refused, conn), settings)
        if settings.event_exchange:
            _events(partial(_refused, conn), settings, settings.event_exchange, missing)
    except ERRORS as error:
        return Outcome(explain(error, settings, host), missing, away)
    finally:
        if conn is not None and conn.is_open:
            with contextlib.suppress(*ERRORS):  # because of an alarm the broker may not answer
                conn.close()
    return Outcome(None, missing, away)


def check_ledger(database: Database) -> Failure | None:
    """See that the ledger of the fleet can be used; return what is in the way, if anything."""
    try:
        needing_libpq("schema").examine(database)
    except LedgerError as error:
        cause, _, remedy = str(error).partition("; ")
    except AwayError as error:
        cause, remedy = str(error), error.remedy
    else:
        return None
    return Failure(LEDGER, cause, remedy)


def _topology(refused: Callable[..., bool], settings: Settings, missing: list[str], away: list[str]) -> None:
    """Declare what exists exactly as `run` will, and find out whether `run` may declare the rest."""
    exchange = settings.exchange
    if refused(404, "exchange_declare", exchange, passive=True):
        missing.append(exchange)
        refused(406, "exchange_declare", exchange, arguments=_NO_EXCHANGE)
    else:
        refused(0, "exchange_declare", exchange, "direct", durable=True)
    for name, ways in topology.ways(settings).items():
        if not refused(404, "queue_declare", name, passive=True):
            _declare(refused, name, *ways)
            continue
        # A retry queue's arguments say where its messages go next; declaring that takes more permissions.
        arguments = {**(ways[0].arguments or {}), **_NO_QUEUE}
        try:
            refused(406, "queue_declare", name, durable=True, arguments=arguments)
        except exceptions.ChannelClosedByBroker as error:
            if not topology.is_away(error) or name == settings.queue:
                raise
            away.append(name)
        else:
            missing.append(name)


def _declare(refused: Callable[..., bool], name: str, way: topology.Way, *others: topology.Way) -> None:
    """Declare a queue in the first way that the broker takes, as `run` does."""
    try:
        refused(0, "queue_declare", name, way.passive, durable=True, arguments=way.arguments)
    except exceptions.ChannelClosedByBroker as error:
        if not (others and topology.is_of_other_type(error)):
            raise
        _declare(refused, name, *others)


def _permissions(refused: Callable[..., bool], settings: Settings) -> None:
    """Find out whether this user may bind the queue, consume it, and publish to the default exchange."""
    nowhere = f"{settings.queue}.nowhere"
    # Unbinding takes the same permissions as binding, and this binding doesn't exist.
    refused(404, "queue_unbind", settings.queue, settings.exchange, nowhere)
    refused((404, 406), "basic_consume", settings.queue, lambda *_: None, arguments=_NO_CONSUMER)
    # Both are fine: the message is permitted but no queue takes it, or an alarm delays it, which stops no consumer.
    with contextlib.suppress(exceptions.UnroutableError, exceptions.ConnectionBlockedTimeout):
        refused(0, "basic_publish", "", nowhere, b"", mandatory=True)


def _events(refused: Callable[..., bool], settings: Settings, exchange: str, missing: list[str]) -> None:
    """Find out whether `run` may declare the exchange that orders are announced to, if it must, and publish there."""
    if refused(404, "exchange_declare", exchange, passive=True):
        missing.append(exchange)
        refused(406, "exchange_declare", exchange, "topic", arguments=_NO_EXCHANGE)
    else:
        # Unbinding takes the permission to write to the exchange; a message might find a queue.
        refused(404, "exchange_unbind", exchange, settings.exchange, f"{settings.queue}.nowhere")


def _refused(conn: Any, codes: int | tuple[int, ...], request: str, *args: Any, **options: Any) -> bool:
    """Make a request on a channel of its own; return whether it was refused with one of `codes`.

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


def unreachable(url: str) -> str:
    """Return why no connection to where an http or https URL leads can be opened now; "" if one can."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or _PORTS[parts.scheme]), CONNECT_SECONDS).close()
    except OSError as error:
        return str(error)
    return ""
