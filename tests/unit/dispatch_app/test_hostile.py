"""Whatever a message brings, it ends in the ledger or is put aside, and the next order goes on."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dispatch_app.amqp import properties

from .test_consumer import Bench

ORIGIN = b"\x0arobot-shop\x06orders"
NESTED = b""
for _ in range(2000):  # tables within tables, deeper than Python may recurse
    NESTED = b"\x01a" + b"F" + struct.pack(">I", len(NESTED)) + NESTED


def headers(entries: bytes) -> bytes:
    return b"\x20\x00" + struct.pack(">I", len(entries)) + entries


ODD = {
    "deep x-death": headers(b"\x07x-death" + b"F" + struct.pack(">I", len(NESTED)) + NESTED),
    "many headers": headers(b"\x01aV" * 40_000),
    "unknown type": headers(b"\x01a?"),
    "table that is cut": headers(b"\x01aS\xff\xff\xff\xff"),
    "forged notes": headers(b"\x12x-dispatch-attemptS\x00\x00\x00\x03\xff\xfe\xfd"),
    "forged envelope": headers(b"\x13x-dispatch-envelopeI\x7f\xff\xff\xff"),
    "forged aside": headers(b"\x10x-dispatch-asidex\x00\x00\x00\x02\xff\xff"),
    "correlation id of other octets": b"\x04\x00\x03\xff\x00\xfe",
    "content type of other octets": b"\x80\x00\x02\xff\xfe",
    "gzip that is none": b"\x40\x00\x04gzip",
    "delivery mode 200": b"\x10\x00\xc8",
    "timestamp after all time": b"\x00\x40" + b"\xff" * 8,
    "flags without properties": b"\xff\xff",
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD.keys())
def test_odd_properties_cost_no_order(tmp_path: Path, raw: bytes) -> None:
    properties.install()
    bench = Bench(tmp_path / "ledger.db")
    bench.consumer._on_delivery((1, 0, ORIGIN, raw, b'{"orderid": "a"}'))
    bench.consumer._on_delivery((2, 0, ORIGIN, raw, b"no order"))
    bench.deliver(3, "b")
    bench.broker.fire()
    assert bench.recorded() == ["a", "b"]
    assert bench.aside.published == ["orders.dead"]
    bench.confirm(1)
    assert +bench.state.dead == {"not-json": 1}
    assert bench.broker.acks[-1] == 3
    assert bench.lost == []
    bench.ledger.close()
