"""`dispatch publish`: send orders exactly as payment does, for tests and demonstrations."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pika
from pika import exceptions

from . import topology
from .settings import Settings

_CATALOGUE = (("HAL-1", "HAL 9000", 2001.0), ("C3P0", "Protocol Droid", 700.0), ("R2D2", "Astromech", 650.0))


def sample() -> bytes:
    """Return one order as the first generation of payment writes it."""
    items, total = [], 0.0
    chosen = random.sample(_CATALOGUE, random.randint(1, len(_CATALOGUE)))  # noqa: S311 - no secret
    for sku, name, price in chosen:
        qty = random.randint(1, 3)  # noqa: S311
        items.append({"sku": sku, "qty": qty, "name": name, "price": price, "subtotal": qty * price})
        total += qty * price
    cart = {"items": items, "total": total, "tax": round(total / 6, 2)}
    return json.dumps({"orderid": str(uuid.uuid4()), "user": "sample", "cart": cart}).encode()


def bodies(count: int, file: str | None) -> Iterator[bytes]:
    """Yield `count` samples, or every line of `file` unchanged ("-" is standard input)."""
    if file is None:
        yield from (sample() for _ in range(count))
        return
    # Not /dev/stdin: a pipe that belongs to another user can be read, but not opened again.
    with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as lines:
        yield from (line.rstrip(b"\n") for line in lines)


def publish(
    settings: Settings, parameters: pika.ConnectionParameters, messages: Iterable[bytes], interval: float
) -> tuple[int, int]:
    """Publish `messages`, `interval` seconds apart; return how many a queue has taken and how many came back.

    Raises pika's exceptions.
    """
    taken = returned = 0
    props = pika.BasicProperties(headers={})  # as payment does: transient, without a content type
    conn = pika.BlockingConnection(parameters)
    try:
        channel = conn.channel()
        topology.declare_exchange(channel, settings)
        channel.confirm_delivery()
        for body in messages:
            if interval and (taken or returned):
                conn.sleep(interval)
            try:
                channel.basic_publish(settings.exchange, settings.routing_key, body, props, mandatory=True)
                taken += 1
            except exceptions.UnroutableError:
                returned += 1
    finally:
        if conn.is_open:
            conn.close()
    return taken, returned
