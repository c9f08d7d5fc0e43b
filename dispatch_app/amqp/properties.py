"""AMQP content properties, kept as the bytes they arrived as.

pika loses information when it decodes headers (a double becomes an int), and raises for some that
RabbitMQ lets through (a timestamp after the year 9999). A consumer that passes messages on unchanged,
and that no message may stop, therefore reads the encoding itself (AMQP 0-9-1, 4.2.5 types, 4.2.6
content framing). Functions here raise one of ERRORS for bytes that are malformed, unless their
docstring says that they never raise.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import data, spec

ERRORS = (ValueError, IndexError, struct.error)
Headers = list[tuple[bytes, bytes]]  # the name, and the value with its type tag, both as encoded

# Properties in the order of the wire; flag bit 15 belongs to the first. All are short strings, except the table
# `headers` and those that _OCTETS gives a fixed size.
_NAMES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
_OCTETS = {"delivery_mode": 1, "priority": 1, "timestamp": 8}
# The sizes in octets of field values by type tag, as RabbitMQ reads them; those in _LONG begin with their length.
_FIXED = dict(zip(b"tbBsuUIiflLdTDV", (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 5, 0), strict=True))
_LONG = b"SxAF"


class RawProperties:
    """Message properties that pika passes around without decoding or encoding them."""

    INDEX = spec.BasicProperties.INDEX

    def __init__(self, raw: bytes = b"\0\0") -> None:
        self.raw = raw  # property flags and property list

    def decode(self, encoded: bytes) -> None:
        """Keep the rest of a content header frame as it is."""
        self.raw = encoded

    def encode(self) -> list[bytes]:
        """Return the pieces of the frame for pika to send."""
        return [self.raw]


def install() -> None:
    """Make pika create RawProperties for every content header that it receives, in this whole process."""
    spec.props[RawProperties.INDEX] = RawProperties


def split(raw: bytes) -> dict[str, bytes]:
    """Split a property list into its fields, each still encoded."""
    flags, at, fields = int.from_bytes(raw[:2], "big"), 2, {}
    for bit, name in enumerate(_NAMES):
        if flags & 0x8000 >> bit:
            size = 4 + int.from_bytes(raw[at : at + 4], "big") if name == "headers" else _OCTETS.get(name)
            size = size or 1 + raw[at]
            fields[name] = raw[at : at + size]
            at += size
    if at != len(raw) or flags & 3:
        raise ValueError("not a property list")
    return fields


def join(fields: dict[str, bytes]) -> bytes:
    """Join encoded fields into a property list: the inverse of split."""
    flags = sum(0x8000 >> bit for bit, name in enumerate(_NAMES) if name in fields)
    return struct.pack(">H", flags) + b"".join(fields[name] for name in _NAMES if name in fields)


def split_table(table: bytes) -> Headers:
    """Split an encoded field table into its entries; no bytes at all count as an empty table."""
    entries, at = [], 4
    while at < len(table):
        value = at + 1 + table[at]
        kind = table[value]
        size = 5 + int.from_bytes(table[value + 1 : value + 5], "big") if kind in _LONG else 1 + _FIXED.get(kind, -2)
        if size < 1:
            raise ValueError(f"unknown field type {kind}")
        entries.append((table[at + 1 : value], table[value : value + size]))
        at = value + size
    if table and at != len(table):
        raise ValueError("not a field table")
    return entries


def join_table(entries: Headers) -> bytes:
    """Encode a field table: the inverse of split_table."""
    content = b"".join(bytes((len(name),)) + name + value for name, value in entries)
    return struct.pack(">I", len(content)) + content


def encode(values: dict[str, Any]) -> Headers:
    """Encode str, int and bytes as header entries."""
    entries: Headers = []
    for name, value in values.items():
        pieces: list[bytes] = []
        data.encode_value(pieces, value)
        entries.append((name.encode(), b"".join(pieces)))
    return entries


def decode(value: bytes) -> Any:
    """Decode one encoded header value for people to read; never raises."""
    try:
        return data.decode_value(value, 0)[0]
    except Exception:  # pika raises many kinds; a value that it can't decode is shown as bytes
        return value


def show(raw: bytes) -> dict[str, Any]:
    """Decode a property list for people and tools to read; never raises."""
    try:
        shown: dict[str, Any] = {}
        for name, value in split(raw).items():
            if name == "headers":
                shown[name] = {n.decode("utf-8", "replace"): decode(entry) for n, entry in split_table(value)}
            else:
                octets = name in _OCTETS
                shown[name] = int.from_bytes(value, "big") if octets else value[1:].decode("utf-8", "replace")
        return shown
    except ERRORS:
        return {"octets": raw}


def correlation_id(raw: bytes) -> str | None:
    """Return the correlation id, if any, cheaply where there is none; never raises."""
    if not raw[0] & 0x04:  # flag bit 10
        return None
    try:
        return split(raw)["correlation_id"][1:].decode("utf-8", "replace")
    except ERRORS:
        return None
