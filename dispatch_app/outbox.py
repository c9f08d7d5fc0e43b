"""Publishes what must not get lost: orders for the retry and dead-letter queues, and announcements of orders.

A publisher confirm for a message published as mandatory means that a queue has taken it (RabbitMQ
docs, Consumer Acknowledgements and Publisher Confirms).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pika import exceptions

from . import topology
from .amqp import envelope
from .amqp.properties import RawProperties
from .failures import explain
from .logs import log
from .settings import Settings

# Opens a connection; the arguments are called when it is open and when it is lost. Raises OSError.
Connect = Callable[[Callable[[Any], None], Callable[[Any, Exception], None]], Any]
# What may be in the way of a parcel, besides a broker that is away, or takes nothing for now.
OBSTACLES = BROKER, EXCHANGE, PERMISSION, UNROUTABLE = ("broker", "exchange", "permission", "unroutable")
_IN_FLIGHT = 200  # unconfirmed messages at a time, so that a flood takes little memory, here and in RabbitMQ


@dataclass
class Parcel:
    """One message on its way to `queue`; `done` is called once it is durable there.

    Without an exchange it goes to the queue of that name, else to the queues that are bound with `queue` as their key.
    """

    queue: str
    raw: bytes
    body: bytes
    notes: dict[str, Any]
    done: Callable[[], None]
    way: int = envelope.IN_PLACE
    sent: bytes = b""
    returned: bool = False
    exchange: str = ""

    def pack(self, frame_max: int) -> bytes:
        """Set `sent`, the property list to send; return the body."""
        self.sent, body = envelope.wrap(self.raw, self.body, self.notes, self.way, frame_max)
        return body

    @property
    def aim(self) -> str:
        """What is to become of the order."""
        return f"put in {self.queue}"


class Outbox:
    """Publishes parcels, again and again until each is confirmed.

    It has a connection of its own, opened with the first parcel. When RabbitMQ is short of memory or disk, it stops
    reading from connections that have published, acknowledgements included; one that only consumes goes on
    (rabbitmq.com, "Memory and Disk Alarms").
    """

    def __init__(
        self, connect: Connect, settings: Settings, host: str, ioloop: Any, trouble: Callable[[str | None], None],
        declare: Callable[[Settings], Any] = topology.Declaration, in_flight: int = _IN_FLIGHT,
    ) -> None:  # fmt: skip
        """Publish on the connection that `connect` opens; `trouble` is called with why parcels wait, or None.

        `declare` makes what declares the place that parcels go to; at most `in_flight` of them are unconfirmed.
        """
        self._connect, self._settings, self._host, self._ioloop = connect, settings, host, ioloop
        self._trouble, self._declare, self._in_flight = trouble, declare, in_flight
        self._declaration = declare(settings)
        self._conn: Any = None
        self._channel: Any = None
        self._sequence = 0  # number of the last publish on this channel; confirms count from 1
        self._flying: dict[int, Parcel] = {}
        self._waiting: deque[Parcel] = deque()
        self._delay = 0.0  # seconds of the last pause; 0 while all goes well
        self._pausing = False
        # Set when nothing more shall be sent, and called when the connection is gone.
        self._closed: Callable[[], None] | None = None
        self.obstacle = BROKER  # one of OBSTACLES: what was last in the way

    def __len__(self) -> int:
        """Return the number of parcels that are not durable yet."""
        return len(self._flying) + len(self._waiting)

    def send(self, parcel: Parcel) -> None:
        """Accept a parcel; it is sent as soon as the channel allows."""
        self._waiting.append(parcel)
        if self._conn or self._pausing:
            self._pump()
        else:
            self._open()

    def close(self, done: Callable[[], None]) -> None:
        """Send nothing more, close the connection properly, then call `done`."""
        self._closed = done
        if self._conn is None:
            done()
        elif not (self._conn.is_closing or self._conn.is_closed):
            self._conn.close()

    def abort(self) -> None:
        """Send nothing more, and drop the connection at once."""
        self._flying.clear()
        self._waiting.clear()
        self._closed = lambda: None
        if self._conn:
            self._conn.abort(exceptions.ConnectionClosedByClient(200, "Normal shutdown"))

    def _open(self) -> None:
        self._pausing = False
        if self._closed:
            return
        if self._conn is None:
            try:
                self._conn = self._connect(self._on_connected, self._on_lost)
            except OSError as error:  # a TLS file can't be used
                self._pause(explain(error, self._settings, self._host).cause)
        elif self._conn.is_open:
            self._conn.channel(on_open_callback=self._on_open)

    def _on_connected(self, conn: Any) -> None:
        self._conn = conn
        conn.add_on_connection_blocked_callback(self._on_blocked)
        conn.add_on_connection_unblocked_callback(lambda *_: self._trouble(None))
        conn.channel(on_open_callback=self._on_open)

    def _on_blocked(self, _conn: Any, frame: Any) -> None:
        reason, self.obstacle = f"the broker takes no messages ({frame.method.reason})", BROKER
        log.warning("%s: %d orders wait to be put aside or announced; free its memory or disk", reason, len(self))
        self._trouble(reason)

    def _on_lost(self, _conn: Any, error: Exception) -> None:
        self._conn = self._channel = None
        if self._closed:
            self._closed()
        elif len(self):
            self._pause(explain(error, self._settings, self._host).cause)
        else:
            self._trouble(None)

    def _on_open(self, channel: Any) -> None:
        channel.add_on_return_callback(partial(self._of, self._on_return))
        channel.add_on_close_callback(self._on_close)
        if self._delay or self._declaration.at_first:
            self._declaration.send(channel)
        confirmed = partial(self._of, self._on_confirm, channel)
        channel.confirm_delivery(confirmed, callback=lambda _: self._on_ready(channel))

    def _of(self, callback: Callable[..., None], channel: Any, *arguments: Any) -> None:
        """Call back for the channel in use only: what an earlier one still says is about other sequence numbers."""
        if channel is self._channel:
            callback(*arguments)

    def _on_ready(self, channel: Any) -> None:
        self._channel, self._sequence = channel, 0
        self._pump()

    def _pump(self) -> None:
        while self._channel and self._channel.is_open and self._waiting and len(self._flying) < self._in_flight:
            parcel = self._waiting.popleft()
            body = parcel.pack(self._conn.params.frame_max)
            parcel.returned = False
            self._sequence += 1
            self._flying[self._sequence] = parcel
            props = RawProperties(parcel.sent)
            self._channel.basic_publish(parcel.exchange, parcel.queue, body, props, mandatory=True)

    def _on_return(self, _method: Any, props: RawProperties, _body: bytes) -> None:
        # A return comes before the confirm of the same message, but has no sequence number.
        for parcel in [p for p in self._flying.values() if p.sent == props.raw] or self._flying.values():
            parcel.returned = True

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [t for t in self._flying if t <= method.delivery_tag] if method.multiple else [method.delivery_tag]
        refused = []
        for tag in tags:
            # One at a time, because `done` may close the connection once nothing is left here.
            parcel = self._flying.pop(tag, None)
            if parcel and (method.NAME == "Basic.Nack" or parcel.returned):
                refused.append(parcel)
            elif parcel:
                self._delay = 0.0
                self._trouble(None)
                parcel.done()
        if refused:
            unroutable = all(parcel.returned for parcel in refused)
            self._waiting.extend(refused)
            cause = "the broker takes no message for it (deleted, or full by policy)"
            if unroutable and refused[0].exchange:
                cause = f"no queue is bound there with the key {refused[0].queue}"
            self._pause(cause, UNROUTABLE if unroutable else BROKER)
        self._pump()

    def _pause(self, cause: str, obstacle: str = BROKER) -> None:
        """Try again after a growing delay, on a new channel, where the queues are declared again."""
        if self._pausing:
            return
        self._pausing = True
        self._declaration = self._declare(self._settings)
        channel, self._channel = self._channel, None
        self._waiting.extendleft(reversed(self._flying.values()))
        self._flying.clear()
        self._delay = min(30.0, self._delay * 2 or 1.0)
        self.obstacle = obstacle
        reason = f"{len(self)} orders can't be {self._waiting[0].aim}: {cause}" if self._waiting else cause
        log.error("%s; trying again in %.0f s", reason, self._delay)
        self._trouble(reason)
        if channel and channel.is_open:
            channel.close()
        self._ioloop.call_later(self._delay, self._open)

    def _on_close(self, _channel: Any, error: Exception) -> None:
        if not (self._conn and self._conn.is_open) or isinstance(error, exceptions.ChannelClosedByClient):
            return  # the connection is lost, which _on_lost handles; or _pause closed the channel
        if self._declaration.can_go_on(error):
            self._open()
            return
        suspects = list(self._flying.values())
        if isinstance(error, exceptions.ChannelClosed) and error.reply_code == 406 and suspects:
            # The broker refused one of these for its properties, which the envelope hides without loss, or
            # else for its size.
            in_place = [parcel for parcel in suspects if parcel.way == envelope.IN_PLACE]
            suspects = in_place or [max(suspects, key=lambda parcel: len(parcel.body))]
            # An order that is no larger than it may be is never cut: it waits until the broker takes it whole.
            cut = len(suspects[0].body) > self._settings.max_body
            if suspects[0].way < (envelope.CUT if cut else envelope.BARE):
                for parcel in suspects:
                    parcel.way += 1
                self._waiting.extendleft(reversed(self._flying.values()))
                self._flying.clear()
                self._channel = None
                self._open()
                return
            # What goes out before it is confirmed, though the broker closes the channel again for this one.
            self._flying = dict(sorted(self._flying.items(), key=lambda entry: entry[1] is suspects[0]))
        obstacle = {403: PERMISSION, 404: EXCHANGE}.get(getattr(error, "reply_code", 0), BROKER)
        self._pause(explain(error, self._settings, self._host).cause, obstacle)
