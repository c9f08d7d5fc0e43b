"""pika's asynchronous consumer, used as its documentation shows: logs and acknowledges each order, stores none."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

import pika

log = logging.getLogger("consumer")
logging.Formatter.converter = time.gmtime
logging.basicConfig(format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.WARNING)
log.setLevel(logging.INFO)


def on_message(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
    log.info("Order %s", body.decode())
    json.loads(body)["orderid"]
    channel.basic_ack(method.delivery_tag)


def on_channel(channel: Any) -> None:
    channel.queue_declare("orders", durable=True)
    channel.basic_qos(prefetch_count=500)
    channel.basic_consume("orders", on_message, callback=lambda _: log.info("consuming"))


connection = pika.SelectConnection(
    pika.ConnectionParameters(
        os.environ["AMQP_HOST"],
        int(os.environ["AMQP_PORT"]),
        os.environ["AMQP_VHOST"],
        pika.PlainCredentials(os.environ["AMQP_USER"], os.environ["AMQP_PASS"]),
    ),
    on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
)
connection.ioloop.start()
