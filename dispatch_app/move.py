"""`dispatch move`: put what waits in another queue into the order queue, as it is."""

from __future__ import annotations

from typing import Any

import pika
from pika import exceptions

from . import topology
from .amqp import connection, envelope, properties
from .amqp.properties import RawProperties
from .settings import Settings


def move(settings: Settings, parameters: pika.ConnectionParameters, queue: str) -> int:
    """Move all messages; return how many. Each leaves `queue` once it is confirmed in the order queue.

    After an interruption a message may be in both; the ledger knows such an order. A queue that is not there is empty.
    Raises pika's exceptions.
    """
    properties.install()
    conn: Any = pika.BlockingConnection(parameters)
    count = 0
    try:
        channel = conn.channel()
        channel.confirm_delivery()
        while True:
            try:
                method, props, body = channel.basic_get(queue)
            except exceptions.ChannelClosedByBroker as error:
                if not topology.is_missing(error):
                    raise
                return count
            if method is None:
                return count
            raw, body = envelope.sendable(props.raw, body, connection.frame_max(conn))
            channel.basic_publish("", settings.queue, body, RawProperties(raw), mandatory=True)
            channel.basic_ack(method.delivery_tag)
            count += 1
    finally:
        if conn.is_open:
            conn.close()
