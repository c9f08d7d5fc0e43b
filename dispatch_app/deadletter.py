"""How an order that failed travels on: unchanged, with notes beside it.

Notes are headers named `x-dispatch-…`. Properties that would harm the copy are put aside
in one of them: `expiration` would let a dead letter vanish, `CC`/`BCC` would route copies
elsewhere, a foreign `user_id` and a malformed `CC` make the broker close the channel with
406, and an old `x-death` can make it drop the copy as a cycle (RabbitMQ docs: TTL, Sender-
selected Distribution, Validated User-ID, Dead Letter Exchanges).
"""

from __future__ import annotations

import struct
from typing import Any

from . import properties

PREFIX = "x-dispatch-"
MARK = PREFIX.encode()  # found in the property list of every message that carries notes

# The ways to send a copy, each safer than the one before: properties in place; properties
# moved in front of the body, where no broker looks at them; the body alone, for one so
# long that nothing fits beside it.
IN_PLACE, ENVELOPED, BARE = range(3)

_HARMFUL_FIELDS = ("expiration", "user_id", "reply_to")
_HARMFUL_HEADERS = (b"CC", b"BCC", b"x-death", b"x-first-death-", b"x-last-death-")
_PERSISTENT = b"\2"  # delivery mode (AMQP 0-9-1, 4.10.1): survives a broker's restart
_FRAME_OVERHEAD = 8 + 12  # octets around a property list: frame and content header
_ERRORS = (ValueError, IndexError, struct.error)


def note(text: object, longest: int = 500) -> str:
    """Return text fit for a header: bounded, and encodable whatever it holds."""
    return str(text)[:longest].encode("utf-8", "replace").decode()


def wrap(
    raw: bytes, body: bytes, notes: dict[str, Any], way: int, frame_max: int
) -> tuple[bytes, bytes]:
    """Return the property list and body of a copy of a message, with `notes` as headers.

    `frame_max` (octets) is the connection's; a property list can't be split over frames.
    """
    noted = properties.encode({PREFIX + name: value for name, value in notes.items()})
    if way == IN_PLACE:
        try:
            wrapped = _in_place(raw, noted)
        except _ERRORS:
            way = ENVELOPED
        else:
            if len(wrapped) + _FRAME_OVERHEAD <= frame_max:
                return wrapped, body
            way = ENVELOPED
    if way == ENVELOPED:
        noted += properties.encode({PREFIX + "envelope": len(raw)})
        body = raw + body
    else:
        noted += properties.encode({PREFIX + "properties": "lost"})
    table = properties.join_table(noted)
    return properties.join({"headers": table, "delivery_mode": _PERSISTENT}), body


def _in_place(raw: bytes, noted: properties.Headers) -> bytes:
    fields = properties.split(raw)
    headers = properties.split_table(fields.pop("headers", b""))
    mode = fields.get("delivery_mode")
    aside = {name: fields.pop(name) for name in _HARMFUL_FIELDS if name in fields}
    harmful = [entry for entry in headers if entry[0].startswith(_HARMFUL_HEADERS)]
    if harmful:
        aside["headers"] = properties.join_table(harmful)
        headers = [entry for entry in headers if entry not in harmful]
    if mode and mode != _PERSISTENT:
        aside["delivery_mode"] = mode
    extra: dict[str, Any] = {PREFIX + "aside": properties.join(aside)} if aside else {}
    if not mode:
        extra[PREFIX + "delivery-mode"] = "none"
    table = properties.join_table([*headers, *noted, *properties.encode(extra)])
    return properties.join({**fields, "headers": table, "delivery_mode": _PERSISTENT})


def unwrap(raw: bytes, body: bytes) -> tuple[bytes, bytes, dict[str, Any]]:
    """Return the original property list, the original body, and the notes.

    Never raises: headers that only look like notes are left as they are.
    """
    if MARK not in raw:
        return raw, body, {}
    try:
        fields = properties.split(raw)
        headers = properties.split_table(fields.pop("headers", b""))
        notes = {
            name[len(MARK) :].decode(): properties.decode(value)
            for name, value in headers
            if name.startswith(MARK)
        }
        size, aside = notes.pop("envelope", None), notes.pop("aside", None)
        if isinstance(size, int):
            if not 2 <= size <= len(body):
                raise ValueError("the envelope doesn't fit the body")
            return body[:size], body[size:], notes
        # Death headers on a copy are the retry queue's own; the original's are aside.
        kept = [e for e in headers if not e[0].startswith((MARK, *_HARMFUL_HEADERS))]
        if notes.pop("delivery-mode", None) == "none":
            del fields["delivery_mode"]
        if isinstance(aside, bytes):
            fields.update(restored := properties.split(aside))
            kept += properties.split_table(restored.get("headers", b""))
        if kept or b"headers" in raw or "headers" not in fields:
            fields["headers"] = properties.join_table(kept)
        return properties.join(fields), body, notes
    except (*_ERRORS, KeyError):
        return raw, body, {}
