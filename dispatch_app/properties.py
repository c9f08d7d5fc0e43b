"""AMQP content properties, kept as the bytes they arrived as.

pika decodes header values with loss (a double becomes an int, every integer a 64-bit
one) and raises on some that RabbitMQ lets through (a timestamp beyond the year 9999).
A consumer that hands messages on unchanged, and that no message may stop, reads the
encoding itself, and only where it has to (AMQP 0-9-1, 4.2.5 data types, 4.2.6 content
framing).
"""

from __future__ import annotations

import struct
from typing import Any

from pika import data, spec

# Name and encoding of each property in wire order, flag bit 15 first (4.2.6.1): s = short
# string, t = table, else a fixed number of octets.
_FIELDS: tuple[tuple[str, str | int], ...] = (
    ("content_type", "s"), ("content_encoding", "s"), ("headers", "t"), ("delivery_mode", 1),
    ("priority", 1), ("correlation_id", "s"), ("reply_to", "s"), ("expiration", "s"),
    ("message_id", "s"), ("timestamp", 8), ("type", "s"), ("user_id", "s"), ("app_id", "s"),
    ("cluster_id", "s"),
)  # fmt: skip
# Octets of each fixed-size field value, by type tag (4.2.5.1 as RabbitMQ implements it).
_FIXED = dict(zip(b"tbBsuUIiflLdTDV", (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 5, 0)))
_LONG = frozenset(b"SxAF")  # types led by a 4-octet length

Headers = list[tuple[bytes, bytes]]  # name, and the value with its type tag, both as received


class RawProperties(spec.BasicProperties):
    """Message properties as pika passes them around, neither decoded nor encoded."""

    def __init__(self, raw: bytes = b"\0\0") -> None:
        """Hold `raw`: the property flags and the property list of a content header."""
        self.raw = raw

    def decode(self, encoded: bytes, offset: int = 0) -> RawProperties:
        """Take the rest of a content header frame as it is."""
        self.raw = encoded[offset:]
        return self

    def encode(self) -> list[bytes]:
        """Give pika the pieces of the content header frame it sends."""
        return [self.raw]


def install() -> None:
    """Make pika create `RawProperties` for every content header it receives."""
    spec.props[spec.BasicProperties.INDEX] = RawProperties


def split(raw: bytes) -> dict[str, bytes]:
    """Split a property list into its fields, each still encoded.

    Raises ValueError or an IndexError/struct.error where the bytes are not a property list.
    """
    (flags,) = struct.unpack_from(">H", raw)
    if flags & 1:
        raise ValueError("property flags continue; AMQP 0-9-1 defines no such property")
    fields, at = {}, 2
    for bit, (name, kind) in enumerate(_FIELDS):
        if not flags & (0x8000 >> bit):
            continue
        if kind == "s":
            size = 1 + raw[at]
        elif kind == "t":
            size = 4 + int.from_bytes(raw[at : at + 4], "big")
        else:
            size = int(kind)
        fields[name] = raw[at : at + size]
        at += size
    if at != len(raw):
        raise ValueError(f"property list of {len(raw)} octets ends at {at}")
    return fields


def join(fields: dict[str, bytes]) -> bytes:
    """Put encoded fields together again; the inverse of `split`."""
    flags, pieces = 0, []
    for bit, (name, _) in enumerate(_FIELDS):
        if name in fields:
            flags |= 0x8000 >> bit
            pieces.append(fields[name])
    return struct.pack(">H", flags) + b"".join(pieces)


def split_table(table: bytes) -> Headers:
    """Split an encoded field table into names and encoded values; duplicates stay.

    Raises ValueError or IndexError where the bytes are not a table.
    """
    entries, at = [], 4
    while at < len(table):
        end = at + 1 + table[at]
        name, kind = table[at + 1 : end], table[end]
        if kind in _LONG:
            size = 5 + int.from_bytes(table[end + 1 : end + 5], "big")
        elif kind in _FIXED:
            size = 1 + _FIXED[kind]
        else:
            raise ValueError(f"unknown field type {kind}")
        entries.append((name, table[end : end + size]))
        at = end + size
    if at != len(table) and table:
        raise ValueError(f"field table of {len(table)} octets ends at {at}")
    return entries


def join_table(entries: Headers) -> bytes:
    """Encode a field table from names and encoded values."""
    content = b"".join(bytes((len(name),)) + name + value for name, value in entries)
    return struct.pack(">I", len(content)) + content


def encode(values: dict[str, Any]) -> Headers:
    """Encode header values (str, int, bytes) as table entries."""
    entries = []
    for name, value in values.items():
        pieces: list[bytes] = []
        data.encode_value(pieces, value)
        entries.append((name.encode(), b"".join(pieces)))
    return entries


def decode(value: bytes) -> Any:
    """Decode one encoded value for people to read; never raises."""
    try:
        return data.decode_value(value, 0)[0]
    except Exception:  # pika raises many kinds; what it can't decode is shown as bytes
        return value


def text(raw: bytes, name: str) -> str | None:
    """Return a short-string property as text, or None where absent or unreadable."""
    try:
        field = split(raw).get(name)
    except (ValueError, IndexError, struct.error):
        return None
    return field[1:].decode("utf-8", "replace") if field else None


def correlation_id(raw: bytes) -> str | None:
    """Return the correlation id; cheap where there is none (flag bit 10)."""
    return text(raw, "correlation_id") if raw[0] & 0x04 else None


def headers(raw: bytes) -> dict[str, Any]:
    """Return a message's headers decoded for people and tools to read; never raises."""
    try:
        entries = split_table(split(raw).get("headers", b""))
    except (ValueError, IndexError, struct.error):
        return {}
    return {name.decode("utf-8", "replace"): decode(value) for name, value in entries}
