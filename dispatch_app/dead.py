"""`dispatch dead`: look at dead letters, put them back into the order queue, or drop them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pika

from . import deadletter, properties, topology
from .properties import RawProperties
from .settings import Settings


class Letter(NamedTuple):
    """One dead letter: the original message, and the notes on why it failed."""

    tag: int
    raw: bytes
    body: bytes
    notes: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return what a list shows: no body."""
        correlation = properties.correlation_id(self.raw)
        return {**self.notes, "octets": len(self.body), "correlation-id": correlation}

    def details(self) -> dict[str, Any]:
        """Return everything there is to show, the body as text where it is text."""
        body = self.body.decode("utf-8", "backslashreplace")
        return {**self.summary(), "properties": properties.show(self.raw), "body": body}


class DeadLetters:
    """The dead-letter queue, open on one connection; letters not settled stay in it."""

    def __init__(self, settings: Settings, parameters: pika.ConnectionParameters) -> None:
        """Connect. Raises pika's exceptions."""
        properties.install()
        self._settings = settings
        self._conn: Any = pika.BlockingConnection(parameters)
        self._channel: Any = self._conn.channel()
        self._channel.confirm_delivery()

    def close(self) -> None:
        """Disconnect; what was not settled goes back to its place."""
        if self._conn.is_open:
            self._conn.close()

    def letters(self, key: str | None, reason: str | None) -> Iterator[Letter]:
        """Yield the letters waiting now that have the id (the letter's or the order's) and the reason."""
        queue = topology.dead_queue(self._settings)
        for _ in range(self._channel.queue_declare(queue, passive=True).method.message_count):
            method, props, body = self._channel.basic_get(queue)
            if method is None:
                return
            letter = Letter(method.delivery_tag, *deadletter.unwrap(props.raw, body))
            notes = letter.notes
            if key in (None, notes.get("id"), notes.get("order-id")) and reason in (None, notes.get("reason")):
                yield letter

    def replay(self, letter: Letter) -> None:
        """Put a letter into the order queue and, once confirmed, take it out of this one.

        Into the queue, not the exchange: others bound there have had it. What would harm the copy
        stays aside (see deadletter), and so does where and when it was first seen. Raises pika's
        UnroutableError or NackError.
        """
        notes = {name: note for name, note in letter.notes.items() if name in ("first-seen", "exchange", "routing-key")}
        frame_max = self._conn._impl.params.frame_max  # as negotiated; pika has no public name for it
        raw, body = deadletter.wrap(letter.raw, letter.body, notes, deadletter.IN_PLACE, frame_max)
        self._channel.basic_publish("", self._settings.queue, body, RawProperties(raw), mandatory=True)
        self.drop(letter)

    def drop(self, letter: Letter) -> None:
        """Take a letter out for good."""
        self._channel.basic_ack(letter.tag)
