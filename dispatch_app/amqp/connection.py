"""Connections to RabbitMQ: their parameters, and pika's connection with a shortcut for deliveries.

For each message pika builds three frame objects and looks up the callbacks of each, which takes 9 µs.
It also decodes names, which may hold any octets, and by itself rejects what is delivered while a
consumer is being cancelled. `Connection` reads the deliveries of one channel straight from the
receive buffer, in 2 µs where a delivery has arrived whole, and leaves every other frame to pika (AMQP
0-9-1, 4.2.3 general frame format, 4.2.6 content framing).
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pika
from pika import frame, spec

from .. import tls
from ..settings import Settings

# Seconds. RabbitMQ's guide on heartbeats recommends 5 to 20; shorter ones mistake a busy peer for a
# dead one. With 10, pika gives up on a silent broker after 15 to 30 s, and RabbitMQ on a silent client after 20.
HEARTBEAT = 10

# Seconds for a host to take a connection, and for that to be open; one that does not answer is given less time where
# there are others.
ALONE, ONE_OF_SEVERAL = (5, 10), (2, 4)

RECEIVED = 64 << 10  # octets read from the socket at a time; with pika's 4096 each order costs 1.5 µs more

# Delivery tag, redelivered (0 or 1), exchange and routing key as encoded, property list, body.
Delivery = tuple[int, int, bytes, bytes, bytes]

_frame = struct.Struct(">BHI").unpack_from  # type, channel, octets of payload; then payload, 0xCE
_octets = struct.Struct(">Q").unpack_from
_tag = struct.Struct(">QB").unpack_from
_DELIVER = struct.pack(">I", spec.Basic.Deliver.INDEX)
_METHOD, _HEADER, _BODY = spec.FRAME_METHOD, spec.FRAME_HEADER, spec.FRAME_BODY


def parameters(settings: Settings, host: str, name: str = "dispatch") -> pika.ConnectionParameters:
    """Return pika's parameters for one host; `name` is the name RabbitMQ shows for the connection.

    Raises OSError (ssl.SSLError is one) for TLS files that can't be used.
    """
    options = None
    if settings.tls:
        options = pika.SSLOptions(tls.context(settings.tls), settings.tls.server_name or host)
    taken, opened = ALONE if len(settings.hosts) == 1 else ONE_OF_SEVERAL
    return pika.ConnectionParameters(
        host=host, port=settings.port, virtual_host=settings.vhost, ssl_options=options,
        credentials=pika.PlainCredentials(settings.user, settings.password),
        heartbeat=HEARTBEAT, socket_timeout=taken, stack_timeout=opened,
        client_properties={"connection_name": f"{name}@{socket.gethostname()}"},
    )  # fmt: skip


def frame_max(conn: pika.BlockingConnection) -> int:
    """Return the size in octets of the largest frame both sides agreed on; pika has no public name for it."""
    size: int = conn._impl.params.frame_max
    return size


class Connection(pika.SelectConnection):  # type: ignore[misc]  # pika ships no types
    """A SelectConnection that passes the deliveries on channel `sink_channel` to `sink`, once that is set."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take the arguments of SelectConnection."""
        # Of a delivery in several frames: its method, its header, and the parts of its body so far.
        self._pieces: list[bytes] = []
        super().__init__(*arguments, **options)

    sink: Callable[[Delivery], None] | None = None
    sink_channel = 0
    _frame_buffer: bytes

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = RECEIVED
        super()._proto_connection_made(transport)

    @property
    def certificate_end(self) -> float | None:
        """When the broker's certificate ends, in seconds since 1970; None without TLS. The connection is open."""
        certificate: dict[str, str] = getattr(self._transport._sock, "getpeercert", dict)()
        return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else None

    def abort(self, error: Exception) -> None:
        """End the connection without waiting for the broker; its close callback is given `error`."""
        self._terminate_stream(error)

    def _on_data_available(self, data_in: bytes) -> None:
        sink, number = self.sink, self.sink_channel
        if sink is None:
            super()._on_data_available(data_in)
            return
        data: bytes = self._frame_buffer + data_in if self._frame_buffer else data_in
        at, end = 0, len(data)
        while end - at >= 8:
            kind, channel, size = _frame(data, at)
            header = at + 8 + size
            if header > end:
                break
            if self._pieces and channel == number and kind in (_HEADER, _BODY):
                self._pieces.append(data[at + 7 : header - 1])
                self._pass_on_if_whole(self._pieces, sink)
                at = header
                continue
            if kind == _METHOD and channel == number and data.startswith(_DELIVER, at + 7):
                if end - header < 20:
                    break
                kind, channel, size = _frame(data, header)
                content = header + 8 + size
                if content > end:
                    break
                (length,) = _octets(data, header + 11)
                whole = kind == _HEADER and channel == number
                stop = content
                if length and whole:
                    if end - content < 8:
                        break
                    kind, channel, size = _frame(data, content)
                    stop = content + 8 + size
                    # Not in one piece if the body takes several frames, or frames of another channel stand between.
                    whole = kind == _BODY and channel == number and size == length
                    if whole and stop > end:
                        break
                if whole:
                    start = at + 12 + data[at + 11]  # after the consumer tag
                    tag, redelivered = _tag(data, start)
                    body = data[content + 7 : stop - 1]
                    sink((tag, redelivered, data[start + 9 : header - 1], data[header + 19 : content - 1], body))
                    at = stop
                    continue
                self._pieces = [data[at + 7 : header - 1]]
                at = header
                continue
            value: Any = frame.decode_frame(data[at:header])[1]
            at = header
            self._process_frame(value)
        self.bytes_received += at  # pika's heartbeat checker watches this
        self._frame_buffer = data[at:]

    def _pass_on_if_whole(self, pieces: list[bytes], sink: Callable[[Delivery], None]) -> None:
        method, header, *body = pieces
        if sum(map(len, body)) < _octets(header, 4)[0]:
            return
        self._pieces = []
        start = 5 + method[4]  # after the method's number and the consumer tag
        tag, redelivered = _tag(method, start)
        sink((tag, redelivered, method[start + 9 :], header[12:], b"".join(body)))
