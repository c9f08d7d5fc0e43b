"""Sends orders to the retry and dead-letter queues; each counts once the broker confirmed it.

Publisher confirms and mandatory together say that a queue has taken the message
(RabbitMQ docs, Consumer Acknowledgements and Publisher Confirms).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pika import exceptions

from . import connection, deadletter, topology
from .logs import log
from .properties import RawProperties
from .settings import Settings

_IN_FLIGHT = 200  # unconfirmed messages at a time; keeps the memory a flood can take small


@dataclass
class Parcel:
    """One message on its way to `queue`; `done` is called when it is durable there."""

    queue: str
    raw: bytes
    body: bytes
    notes: dict[str, Any]
    done: Callable[[], None]
    way: int = deadletter.IN_PLACE
    sent: bytes = b""
    returned: bool = False


class Outbox:
    """Publishes parcels on a channel of its own and keeps at it until each is confirmed."""

    def __init__(
        self, conn: Any, settings: Settings, host: str, trouble: Callable[[str | None], None]
    ) -> None:
        """Open a channel on pika's `conn`; `trouble` is told why parcels wait, or None."""
        self._connection = conn
        self._settings = settings
        self._host = host
        self._trouble = trouble
        self._channel: Any = None
        self._sequence = 0  # of the last publish on this channel; confirms count from 1
        self._flying: dict[int, Parcel] = {}
        self._waiting: deque[Parcel] = deque()
        self._one_by_one = False  # to find the parcel the broker refuses
        self._delay = 0.0
        self._open()

    def __len__(self) -> int:
        """Return how many parcels are not durable yet."""
        return len(self._flying) + len(self._waiting)

    def send(self, parcel: Parcel) -> None:
        """Take a parcel; it is sent as soon as the channel allows."""
        self._waiting.append(parcel)
        self._pump()

    def _open(self) -> None:
        if self._connection.is_open:
            self._connection.channel(on_open_callback=self._on_open)

    def _on_open(self, channel: Any) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.add_on_close_callback(self._on_close)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready(channel))

    def _on_ready(self, channel: Any) -> None:
        self._channel, self._sequence = channel, 0
        if self._delay:
            topology.declare_own(channel, self._settings)
        self._pump()

    def _pump(self) -> None:
        limit = 1 if self._one_by_one else _IN_FLIGHT
        while self._channel and self._waiting and len(self._flying) < limit:
            parcel = self._waiting.popleft()
            frame_max = self._connection.params.frame_max
            parcel.sent, body = deadletter.wrap(
                parcel.raw, parcel.body, parcel.notes, parcel.way, frame_max
            )
            parcel.returned = False
            self._sequence += 1
            self._flying[self._sequence] = parcel
            self._channel.basic_publish("", parcel.queue, body, RawProperties(parcel.sent), True)

    def _on_return(self, _channel: Any, _method: Any, props: RawProperties, _body: bytes) -> None:
        # A return precedes the confirm of the same message and names no sequence number.
        matching = [p for p in self._flying.values() if p.sent == props.raw]
        for parcel in matching or self._flying.values():
            parcel.returned = True

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._flying if tag <= method.delivery_tag]
        refused = False
        for tag in tags:
            parcel = self._flying.pop(tag, None)
            if parcel is None:
                continue
            if method.NAME == "Basic.Nack" or parcel.returned:
                refused = True
                self._waiting.append(parcel)
            else:
                self._delay = 0.0
                self._trouble(None)
                parcel.done()
        if refused:
            self._pause("the broker took no message for it (queue deleted, or full by policy)")
        else:
            self._one_by_one = self._one_by_one and bool(self._waiting)
            self._pump()

    def _pause(self, cause: str) -> None:
        """Try again after a growing delay, on a new channel, with the queues declared anew."""
        self._delay = min(30.0, self._delay * 2 or 1.0)
        queues = ", ".join(sorted({parcel.queue for parcel in (*self._waiting, *self._flying.values())}))
        text = f"{len(self)} orders can't be put in {queues}: {cause}; trying again"
        log.error(text)
        self._trouble(text)
        channel, self._channel = self._channel, None
        self._waiting.extend(self._flying.values())
        self._flying.clear()
        if channel and channel.is_open:
            channel.close()
        self._connection.ioloop.call_later(self._delay, self._open)

    def _on_close(self, channel: Any, error: Exception) -> None:
        if channel is not self._channel or not self._connection.is_open:
            return  # closed by _pause, or the connection went and every order comes again
        self._channel = None
        suspects = list(self._flying.values())
        if isinstance(error, exceptions.ChannelClosed) and error.reply_code == 406 and suspects:
            # The broker refuses one of these for what is in it (RabbitMQ checks CC, user_id,
            # reply_to, size). Alone, a parcel is known to be the one.
            self._waiting.extendleft(reversed(suspects))
            self._flying.clear()
            if len(suspects) > 1 or suspects[0].way < deadletter.BARE:
                suspects[0].way += len(suspects) == 1
                self._one_by_one = True
                self._open()
                return
        self._pause(connection.explain(error, self._settings, self._host).cause)
