"""Whatever a message is made of, the process lives on, and the message ends dispatched or dead, unchanged.

DISPATCH_TEST_ROUNDS sets the number of seeds.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import string
import struct
from collections import Counter
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from pika import exceptions

from dispatch_app import orders
from dispatch_app.amqp import envelope, properties
from dispatch_app.amqp.properties import RawProperties
from tests.integration.consumer.harness import USER, Broker, Service, until

ROUNDS = int(os.environ.get("DISPATCH_TEST_ROUNDS", "1"))
MESSAGES, FEWER = 5000, 1500
MEGABYTE = 1_000_000

# -- bodies -------------------------------------------------------------------------------

_texts = st.text(max_size=40)
_numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(10**309), 2**63, math.nan, math.inf, -0.0])
)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)
_ids = st.one_of(st.uuids().map(str), _texts, _json, st.sampled_from([255, 256, 70_000]).map(lambda size: "i" * size))
_first = st.fixed_dictionaries(
    {},
    optional={
        "orderid": _ids,
        "user": _json,
        "cart": _json | st.fixed_dictionaries({}, optional={"items": _json, "total": _json, "tax": _json}),
    },
)
_newer = st.fixed_dictionaries({}, optional={"transactionId": _ids, "userId": _json, "items": _json, "total": _json})
_good = st.builds(
    lambda uid, more: {"orderid": str(uid), "user": "dave", **more},
    st.uuids(),
    st.sampled_from([{}, {"cart": {"items": [1], "total": 2}}]),
)


def _dump(document: object) -> bytes:
    # Lone surrogates become octets that are not UTF-8.
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


_documents = st.one_of(_good, _first, _newer, _json).map(_dump)


def _nested(opening: str, depth: int, closed: bool) -> bytes:
    closing = {"[": "]", '{"a":': "}"}[opening]
    return (opening * depth + ("1" + closing * depth if closed else "")).encode()


def _raw(form: str, **values: object) -> bytes:
    """JSON that json.dumps can't write."""
    return string.Template('{"orderid":"$uid",' + form + "}").substitute(values).encode()


_bodies = st.one_of(
    _documents,
    st.binary(max_size=200),
    _documents.flatmap(lambda body: st.integers(0, len(body)).map(lambda cut: body[:cut])),
    st.builds(
        lambda body, at, octets: body[:at] + octets + body[at:], _documents, st.integers(0, 300), st.binary(max_size=3)
    ),
    st.builds(_nested, st.sampled_from(["[", '{"a":']), st.sampled_from([10, 900, 1100, 100_000]), st.booleans()),
    st.builds(_raw, st.just('"$key":1,"$key":2'), uid=st.uuids(), key=st.sampled_from(["orderid", "a", ""])),
    st.builds(_raw, st.just('"n":$digits'), uid=st.uuids(), digits=st.integers(1, 10_000).map("9".__mul__)),
    st.builds(
        _raw,
        st.just('"cart":{"total":$constant}'),
        uid=st.uuids(),
        constant=st.sampled_from(["NaN", "-Infinity", "1e999"]),
    ),
    st.builds(
        lambda uid, codec: json.dumps({"orderid": str(uid)}).encode(codec),
        st.uuids(),
        st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]),
    ),
)
# About 25 in a thousand bodies get a megabyte of white space before or after, which keeps a valid order valid.
_sized = st.builds(
    lambda body, size, front: body + b" " * size if front else b" " * size + body,
    _bodies,
    st.integers(0, 39).map(lambda n: MEGABYTE if n == 39 else n * 10 if n > 30 else 0),
    st.booleans(),
)

# -- properties, as octets, because pika can't encode or decode all of them -----------------

_short = st.binary(max_size=255).map(lambda data: bytes((len(data),)) + data)
_words = (
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")).map(lambda data: bytes((len(data),)) + data)
)
_names = st.one_of(
    st.binary(min_size=1, max_size=30),
    st.sampled_from([b"CC", b"BCC", b"x-death", b"x-first-death-queue", b"traceparent"]),
    st.sampled_from(["id", "attempt", "aside", "envelope", "first-seen", "queue", "headers"]).map(
        lambda name: envelope.MARK + name.encode()
    ),
)


def _long(tag: bytes, data: bytes) -> bytes:
    return tag + struct.pack(">I", len(data)) + data


def _scalar(tag: bytes, size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).map(lambda data: tag + data)


_SIZES = {b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"f": 4, b"d": 8, b"T": 8, b"D": 5, b"V": 0}
_value = st.recursive(
    st.one_of(
        *(_scalar(tag, size) for tag, size in _SIZES.items()),
        st.sampled_from([b"t\0", b"t\1"]),
        st.binary(max_size=60).map(lambda data: _long(b"S", data)),
        st.binary(max_size=60).map(lambda data: _long(b"x", data)),
        st.sampled_from([5_000, 60_000, 125_000]).map(lambda size: _long(b"S", b"h" * size)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: _long(b"A", b"".join(values))),
        st.lists(st.tuples(_names, inner), max_size=3).map(lambda entries: b"F" + properties.join_table(entries)),
    ),
    max_leaves=6,
)
# Any other CC would send copies elsewhere or close the channel, so it lists queues that don't exist.
_cc = st.lists(st.just(_long(b"S", b"no.such.queue")), max_size=3).map(lambda values: _long(b"A", b"".join(values)))
_entry = st.tuples(_names, _value).flatmap(
    lambda entry: st.tuples(st.just(entry[0]), _cc) if entry[0] in (b"CC", b"BCC") else st.just(entry)
)
_octet = st.binary(min_size=1, max_size=1)
_properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": _short,
        "content_encoding": _words,
        "headers": st.lists(_entry, max_size=5, unique_by=lambda entry: entry[0]).map(properties.join_table),
        "delivery_mode": st.sampled_from([b"\1", b"\2"]),
        "priority": _octet,
        "correlation_id": _short,
        "reply_to": _short,
        "expiration": st.just(b"\x073600000"),
        "message_id": _short,
        "timestamp": st.binary(min_size=8, max_size=8),
        "type": _short,
        "user_id": st.just(bytes((len(USER),)) + USER.encode()),
        "app_id": _words,
    },
).map(properties.join)


def expected_id(body: bytes) -> str | None:
    """The id under which a body must be in the ledger; None if it must become a dead letter."""
    try:
        return orders.parse(body).id
    except Exception:
        return None


def original(raw: bytes, body: bytes) -> tuple[bytes, bytes]:
    """What a dead letter must still have: all but BCC, which RabbitMQ removes, and forged headers of Dispatch's own."""
    raw, body, _ = envelope.unwrap(raw, body)
    fields = properties.split(raw)
    if "headers" in fields:
        entries = properties.split_table(fields["headers"])
        entries = [entry for entry in entries if entry[0] != b"BCC" and not entry[0].startswith(envelope.MARK)]
        fields["headers"] = properties.join_table(sorted(entries))  # a table has no order
    return properties.join(fields), body


@pytest.mark.parametrize(
    ("number", "messages"),
    [(1, FEWER), *(pytest.param(n, MESSAGES, marks=pytest.mark.long) for n in range(1, 1 + ROUNDS))],
)
def test_every_message_ends_dispatched_or_dead(
    number: int, messages: int, broker: Broker, service: Service, remarks: list[str]
) -> None:
    properties.install()
    service.start()
    service.await_ready()
    accepted: list[tuple[bytes, bytes]] = []
    refused: Counter[str] = Counter()
    connection: Any = broker.connect()
    channel: Any = None

    @seed(number)
    @settings(max_examples=messages, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(_properties, _sized)
    def publish(raw: bytes, body: bytes) -> None:
        nonlocal connection, channel
        assume(len(raw) < 131_000)  # what one frame takes
        if not connection.is_open:
            connection = broker.connect()
        if channel is None or not channel.is_open:
            channel = connection.channel()
            channel.confirm_delivery()
        try:
            channel.basic_publish("robot-shop", "orders", body, RawProperties(raw), mandatory=True)
        except exceptions.AMQPError as error:  # RabbitMQ itself refuses the message
            refused[repr(error)] += 1
        else:
            accepted.append(original(raw, body))
        assert service.alive()

    publish()
    with suppress(exceptions.AMQPError):
        connection.close()
    assert len(accepted) >= 0.9 * messages, refused
    until(broker.drained, 120, "queues drained")
    assert service.alive()
    assert service.metric("dispatch_connections_total") == 1
    assert service.stop() == 0

    dispatched = {order_id for order_id, _ in service.dispatched()}
    letters = Counter(original(*letter) for letter in broker.take_dead())
    ends: Counter[str] = Counter()
    for message in accepted:
        order_id = expected_id(message[1])
        if order_id is None:
            assert letters[message] > 0, message
            letters[message] -= 1
        else:
            assert order_id in dispatched, message
        ends["dead" if order_id is None else "dispatched"] += 1
    assert not +letters
    assert dispatched == {expected_id(body) for _, body in accepted} - {None}
    with closing(sqlite3.connect(service.ledger)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    sizes = sum(len(body) >= MEGABYTE for _, body in accepted)
    remarks.append(
        f"fuzz, seed {number}: {len(accepted)} messages, {sizes} of a megabyte: {ends['dispatched']} dispatched, "
        f"{ends['dead']} dead, refused by RabbitMQ: {dict(refused) or 0}"
    )
    assert min(ends["dead"], ends["dispatched"]) > 100
    assert sizes > 5
