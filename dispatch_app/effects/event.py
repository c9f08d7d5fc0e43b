"""The message that announces a dispatched order: `order.dispatched`, a CloudEvent (CloudEvents 1.0, JSON format).

The same order always gives the same message id, so whoever gets it twice can tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pika

from ..amqp import envelope
from ..ledgers.port import Unannounced
from ..moments import iso
from ..outbox import Parcel
from ..printable import to_json
from ..topology import EVENT

_LONGEST = 255  # octets of a property (AMQP 0-9-1, 4.2.5.3 short strings)


@dataclass
class Announcement(Parcel):
    """A message that announces one order; it is sent as it was made."""

    way: int = envelope.CUT  # nothing about it can be sent in another way

    def pack(self, frame_max: int) -> bytes:  # noqa: ARG002 - the property list is small
        """Set `sent`, the property list to send; return the body."""
        self.sent = self.raw
        return self.body

    @property
    def aim(self) -> str:
        """What is to become of the order."""
        return f"announced to the exchange {self.exchange}"


def announcement(order: Unannounced, exchange: str, host: str, done: Callable[[], None]) -> Announcement:
    """Return the message for one order; `done` is called once a queue has it."""
    dispatched_at, message_id = iso(order.dispatched_at / 1000), _message_id(order.id)
    data = {"order_id": order.id, "dispatched_at": dispatched_at, "host": host, "correlation_id": order.correlation_id}
    event = {
        "specversion": "1.0", "type": EVENT, "source": f"/dispatch/{host}", "id": message_id, "time": dispatched_at,
        "data": data,
    }  # fmt: skip
    correlation_id = order.correlation_id
    props = pika.BasicProperties(
        content_type="application/cloudevents+json",
        delivery_mode=2,
        correlation_id=correlation_id if correlation_id and len(correlation_id.encode()) <= _LONGEST else None,
        message_id=message_id,
        timestamp=order.dispatched_at // 1000,
        type=EVENT,
        app_id="dispatch",
    )
    return Announcement(EVENT, b"".join(props.encode()), to_json(event).encode(), {}, done, exchange=exchange)


def _message_id(order_id: str) -> str:
    """The order's id, or a digest of one that is too long for a property."""
    octets = order_id.encode()
    return order_id if len(octets) <= _LONGEST else f"sha256:{hashlib.sha256(octets).hexdigest()}"
