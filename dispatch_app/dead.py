"""`dispatch dead`: look at dead letters, put them back into the order queue, or drop them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pika

from . import deadletter, orders, properties, topology
from .properties import RawProperties
from .settings import Settings


class Letter(NamedTuple):
    """One dead letter: the original message and the notes on why it failed."""

    tag: int
    raw: bytes
    body: bytes
    notes: dict[str, Any]

    def matches(self, key: str | None, reason: str | None) -> bool:
        """Say whether it has this letter or order id, and this reason; None matches all."""
        ids = (self.notes.get("id"), self.notes.get("order-id"))
        return (key is None or key in ids) and (reason is None or reason == self.notes.get("reason"))

    def summary(self) -> dict[str, Any]:
        """Return what a list shows: no body."""
        return {**self.notes, "octets": len(self.body), "correlation-id": properties.correlation_id(self.raw)}

    def details(self) -> dict[str, Any]:
        """Return everything there is to show, the body as text where it is text."""
        shown = {
            name: properties.text(self.raw, name)
            for name in ("content_type", "message_id", "correlation_id", "reply_to", "expiration",
                         "type", "user_id", "app_id")
        }  # fmt: skip
        return {
            **self.summary(),
            "properties": {name: value for name, value in shown.items() if value is not None},
            "headers": properties.headers(self.raw),
            "body": self.body.decode("utf-8", "backslashreplace"),
        }


class DeadLetters:
    """The dead-letter queue, open on one connection; letters not settled stay in it."""

    def __init__(self, settings: Settings, parameters: pika.ConnectionParameters) -> None:
        """Connect. Raises pika's exceptions, and OSError."""
        properties.install()
        self._settings = settings
        self._conn: Any = pika.BlockingConnection(parameters)
        self._channel: Any = self._conn.channel()
        self._channel.confirm_delivery()

    def close(self) -> None:
        """Disconnect; what was not acknowledged goes back to its place in the queue."""
        if self._conn.is_open:
            self._conn.close()

    def letters(self, key: str | None, reason: str | None) -> Iterator[Letter]:
        """Yield the matching letters that wait now; one that arrives later is not looked at."""
        queue = topology.dead_queue(self._settings)
        waiting = self._channel.queue_declare(queue, passive=True).method.message_count
        for _ in range(waiting):
            method, props, body = self._channel.basic_get(queue)
            if method is None:
                return
            letter = Letter(method.delivery_tag, *deadletter.unwrap(props.raw, body))
            if letter.matches(key, reason):
                yield letter

    def replay(self, letter: Letter) -> None:
        """Put a letter back into the order queue, then take it out of this one.

        To the queue, not the exchange: others bound there have had it. Raises pika's
        UnroutableError or NackError where the queue doesn't take it.
        """
        raw, body = deadletter.wrap(
            letter.raw, letter.body, {}, deadletter.IN_PLACE, self._conn._impl.params.frame_max
        )
        self._channel.basic_publish("", self._settings.queue, body, RawProperties(raw), mandatory=True)
        self.purge(letter)

    def purge(self, letter: Letter) -> None:
        """Drop a letter for good."""
        self._channel.basic_ack(letter.tag)
