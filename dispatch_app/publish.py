"""`dispatch publish`: send orders exactly as payment does, for tests and trials."""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections.abc import Iterator

import pika
from pika import exceptions

from . import topology
from .settings import Settings

_CATALOGUE = (("HAL-1", "HAL 9000", 2001.0), ("C3P0", "Protocol Droid", 700.0), ("R2D2", "Astromech", 650.0))


def sample() -> bytes:
    """Return one order as payment's first generation writes it."""
    items = [
        {"sku": sku, "qty": qty, "name": name, "price": price, "subtotal": qty * price}
        for sku, name, price in random.sample(_CATALOGUE, random.randint(1, 3))
        for qty in (random.randint(1, 3),)
    ]
    total = sum(float(str(item["subtotal"])) for item in items)
    cart = {"items": items, "total": total, "tax": round(total / 6, 2)}
    return json.dumps({"orderid": str(uuid.uuid4()), "user": "sample", "cart": cart}).encode()


def bodies(count: int, file: str | None) -> Iterator[bytes]:
    """Yield `count` sample orders, or each line of `file` ("-" is standard input) as it is."""
    if file is None:
        yield from (sample() for _ in range(count))
    elif file == "-":
        yield from (line.rstrip(b"\n") for line in sys.stdin.buffer)
    else:
        with open(file, "rb") as lines:
            yield from (line.rstrip(b"\n") for line in lines)


def publish(
    settings: Settings, parameters: pika.ConnectionParameters, messages: Iterator[bytes], interval: float
) -> tuple[int, int]:
    """Publish `messages`, `interval` seconds apart; return how many were taken and returned.

    Raises pika's exceptions, and OSError.
    """
    taken = returned = 0
    # Payment sends nothing but headers: transient, no content type, no message id.
    props = pika.BasicProperties(headers={})
    conn = pika.BlockingConnection(parameters)
    try:
        channel = conn.channel()
        topology.declare_exchange(channel, settings)
        channel.confirm_delivery()
        for body in messages:
            if taken + returned and interval:
                conn.sleep(interval)
            try:
                channel.basic_publish(
                    settings.exchange, settings.routing_key, body, props, mandatory=True
                )
                taken += 1
            except exceptions.UnroutableError:
                returned += 1
    finally:
        if conn.is_open:
            conn.close()
    return taken, returned
