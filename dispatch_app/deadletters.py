"""Orders that failed: the notes on why, which travel with them, and the work on those in the dead-letter queue."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pika

from . import topology
from .amqp import connection, envelope, properties
from .amqp.properties import RawProperties
from .moments import iso
from .settings import Settings


def attempts(notes: dict[str, Any]) -> int:
    """Return how many times an order has failed according to its notes, which anyone may have forged."""
    count = notes.get("attempt")
    return count if isinstance(count, int) and 0 <= count < 1000 else 0


def annotate(
    before: dict[str, Any], origin: bytes, queue: str, reason: str, error: BaseException, order_id: str | None
) -> dict[str, Any]:
    """Return the notes on an order from `queue` that failed with `error`.

    `before` are its notes from earlier failures: when it was first seen and where it came from stay as
    they are. `origin` is the exchange and the routing key as encoded in the delivery.
    """
    key_at = 1 + origin[0]
    notes = {
        "id": uuid.uuid4().hex,
        "reason": reason,
        "exception-type": getattr(error, "kind", type(error).__name__),
        "exception-message": str(error),
        "first-seen": before.get("first-seen", iso(time.time())),
        "exchange": before.get("exchange", origin[1:key_at].decode("utf-8", "replace")),
        "routing-key": before.get("routing-key", origin[key_at + 1 :].decode("utf-8", "replace")),
        "queue": queue,
        **({"order-id": order_id} if order_id else {}),
    }
    # Some come from the message, where they may be anything; as bounded text they fit into a header.
    return {**{name: envelope.text(note) for name, note in notes.items()}, "attempt": attempts(before) + 1}


class Message(NamedTuple):
    """A message as the broker keeps it: its encoded property list, and its body."""

    raw: bytes
    body: bytes


class Letter(NamedTuple):
    """One dead letter: the original message, and the notes on why it failed."""

    tag: int
    stored: Message  # as it lies in the queue, with the notes among its properties
    raw: bytes
    body: bytes
    notes: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return what a list shows: everything except the properties and the body."""
        correlation = properties.correlation_id(self.raw)
        return {**self.notes, "octets": len(self.body), "correlation-id": correlation}

    def details(self) -> dict[str, Any]:
        """Return everything there is to show; octets of the body that are not text are escaped."""
        body = self.body.decode("utf-8", "backslashreplace")
        return {**self.summary(), "properties": properties.show(self.raw), "body": body}


class DeadLetters:
    """The dead-letter queue, open on one connection. A letter that is neither replayed nor dropped stays in it."""

    def __init__(self, settings: Settings, parameters: pika.ConnectionParameters) -> None:
        """Connect. Raises pika's exceptions."""
        properties.install()
        self._settings = settings
        self._conn: Any = pika.BlockingConnection(parameters)
        self._channel: Any = self._conn.channel()
        self._channel.confirm_delivery()

    def close(self) -> None:
        """Disconnect; RabbitMQ then puts the letters that stay back in their places."""
        if self._conn.is_open:
            self._conn.close()

    def letters(self, key: str | None, reason: str | None) -> Iterator[Letter]:
        """Yield the letters that wait now and have the id `key` (the letter's own or its order's) and `reason`."""
        queue = topology.dead_queue(self._settings)
        for _ in range(self._channel.queue_declare(queue, passive=True).method.message_count):
            method, props, body = self._channel.basic_get(queue)
            if method is None:
                return
            letter = Letter(method.delivery_tag, Message(props.raw, body), *envelope.unwrap(props.raw, body))
            notes = letter.notes
            if key in (None, notes.get("id"), notes.get("order-id")) and reason in (None, notes.get("reason")):
                yield letter

    def replay(self, letter: Letter) -> None:
        """Put a letter back into the order queue and, once that is confirmed, take it out of the dead-letter queue.

        It goes to the queue, not to the exchange, whose other queues have already had it. Properties that
        would harm the copy stay aside (see amqp/envelope.py), and so do the notes on where and when the
        order was first seen. Raises pika's UnroutableError or NackError.
        """
        notes = {name: note for name, note in letter.notes.items() if name in ("first-seen", "exchange", "routing-key")}
        frame_max = connection.frame_max(self._conn)
        raw, body = envelope.wrap(letter.raw, letter.body, notes, envelope.IN_PLACE, frame_max)
        self._channel.basic_publish("", self._settings.queue, body, RawProperties(raw), mandatory=True)
        self.drop(letter)

    def put(self, message: Message) -> None:
        """Put a message into the dead-letter queue; return once that is confirmed.

        Raises pika's UnroutableError where there is no such queue, or NackError.
        """
        raw, body = envelope.sendable(*message, connection.frame_max(self._conn))
        queue = topology.dead_queue(self._settings)
        self._channel.basic_publish("", queue, body, RawProperties(raw), mandatory=True)

    def drop(self, letter: Letter) -> None:
        """Remove a letter for good."""
        self._channel.basic_ack(letter.tag)
