"""aio-pika's robust connection, used as its documentation shows: logs and acknowledges each order, stores none."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from typing import Any

import aio_pika

log = logging.getLogger("consumer")
logging.Formatter.converter = time.gmtime
logging.basicConfig(format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.WARNING)
log.setLevel(logging.INFO)


async def on_message(message: Any) -> None:
    async with message.process():
        log.info("Order %s", message.body.decode())
        json.loads(message.body)["orderid"]


async def main() -> None:
    connection = await aio_pika.connect_robust(
        host=os.environ["AMQP_HOST"],
        port=int(os.environ["AMQP_PORT"]),
        login=os.environ["AMQP_USER"],
        password=os.environ["AMQP_PASS"],
        virtualhost=os.environ["AMQP_VHOST"],
    )
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=500)
    queue = await channel.declare_queue("orders", durable=True)
    await queue.consume(on_message)
    log.info("consuming")
    await asyncio.Future()


asyncio.run(main())
