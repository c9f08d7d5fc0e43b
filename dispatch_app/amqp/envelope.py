"""How a failed order travels on: unchanged, with notes beside it.

Notes are headers named `x-dispatch-…`. Properties that would harm the copy are put aside in one of
them: `expiration` would make it vanish; `CC` and `BCC` would route more copies; a foreign `user_id` or
a malformed `CC` makes the broker close the channel with 406; and an old `x-death` can make the broker
drop the copy as a cycle (RabbitMQ docs: TTL, Sender-Selected Distribution, Validated User-ID, Dead
Letter Exchanges).
"""

from __future__ import annotations

import hashlib
from typing import Any

from .properties import ERRORS, Headers, decode, encode, join, join_table, split, split_table

MARK = b"x-dispatch-"  # stands in the property list of every message that carries notes

# There are four ways to send a copy: with its properties in place; with its properties in front of the body,
# where no broker looks at them; the body alone, when it is so long that nothing fits beside it; and the head of a
# body that the broker does not take whole.
IN_PLACE, ENVELOPED, BARE, CUT = range(4)
HEAD = 64 << 10  # octets of a body that are kept when it is cut

_FIELDS = ("expiration", "user_id", "reply_to")
_HEADERS = (b"CC", b"BCC", b"x-death", b"x-first-death-", b"x-last-death-")
_PERSISTENT = b"\2"  # a delivery mode: a durable queue keeps such a message over a restart
_OVERHEAD = 8 + 12  # octets of the frame and of the content header around a property list


def text(value: object, longest: int = 500) -> str:
    """Return `value` as text that fits into a header: at most `longest` characters, all encodable."""
    return str(value)[:longest].encode("utf-8", "replace").decode()


def wrap(raw: bytes, body: bytes, notes: dict[str, Any], way: int, frame_max: int) -> tuple[bytes, bytes]:
    """Return the property list and the body of a copy of a message, with `notes` as headers.

    `frame_max` is the size in octets of the connection's largest frame: a property list must fit into one.
    """
    noted = _noted(notes)
    if way == IN_PLACE:
        try:
            wrapped = _in_place(raw, noted)
            if len(wrapped) + _OVERHEAD <= frame_max:
                return wrapped, body
        except ERRORS:
            pass  # RabbitMQ knows a type that this module doesn't; the envelope takes any bytes
        way = ENVELOPED
    if way == CUT:
        noted += _noted({"whole-octets": str(len(body)), "whole-sha256": hashlib.sha256(body).hexdigest()})
        body = body[:HEAD]
    noted += _noted({"envelope": len(raw)} if way == ENVELOPED else {"properties": "lost"})
    fields = {"headers": join_table(noted), "delivery_mode": _PERSISTENT}
    return join(fields), raw + body if way == ENVELOPED else body


def sendable(raw: bytes, body: bytes, frame_max: int) -> tuple[bytes, bytes]:
    """Return a message as it can be sent once more: as it is, unless it has properties that would harm the copy.

    What `wrap` has returned has none. Others come into the queue by a policy of the broker's, or by hand.
    """
    try:
        fields = split(raw)
        headers = split_table(fields.get("headers", b""))
    except ERRORS:  # the envelope takes any bytes
        return wrap(raw, body, {}, ENVELOPED, frame_max)
    if not any(name in fields for name in _FIELDS) and not any(name.startswith(_HEADERS) for name, _ in headers):
        return raw, body
    raw, body, notes = unwrap(raw, body)
    plain = {name: note for name, note in notes.items() if isinstance(note, (str, int))}
    return wrap(raw, body, plain, IN_PLACE, frame_max)


def _noted(notes: dict[str, Any]) -> Headers:
    return [(MARK + name, value) for name, value in encode(notes)]


def _in_place(raw: bytes, noted: Headers) -> bytes:
    fields = split(raw)
    if "headers" not in fields:
        noted = noted + _noted({"headers": "none"})  # which is not the same as an empty table
    headers = split_table(fields.pop("headers", b""))
    aside = {name: fields.pop(name) for name in _FIELDS if name in fields}
    if harmful := [entry for entry in headers if entry[0].startswith(_HEADERS)]:
        aside["headers"] = join_table(harmful)
    kept = [entry for entry in headers if not entry[0].startswith((MARK, *_HEADERS))]
    mode = fields.get("delivery_mode")
    if mode != _PERSISTENT:
        aside["delivery_mode"] = mode or b"\0"  # no publisher sends 0, so it stands for none
    kept += noted + (_noted({"aside": join(aside)}) if aside else [])
    return join({**fields, "headers": join_table(kept), "delivery_mode": _PERSISTENT})


def unwrap(raw: bytes, body: bytes) -> tuple[bytes, bytes, dict[str, Any]]:
    """Return the original property list, the original body, and the notes.

    Never raises; headers that only look like notes yield no notes.
    """
    if MARK not in raw:
        return raw, body, {}
    try:
        fields = split(raw)
        headers = split_table(fields.pop("headers", b""))
        notes = {n[len(MARK) :].decode(): decode(value) for n, value in headers if n.startswith(MARK)}
        if not notes:  # the mark stands in somebody's value
            return raw, body, {}
        size, aside = notes.pop("envelope", None), notes.pop("aside", None)
        if isinstance(size, int) and 2 <= size <= len(body):
            split(body[:size])  # raises if there is no property list: anyone can send such a header
            return body[:size], body[size:], notes
        # The retry queue added the copy's death headers; those of the original are aside.
        kept = [entry for entry in headers if not entry[0].startswith((MARK, *_HEADERS))]
        if isinstance(aside, bytes):
            fields.update(split(aside))
            kept += split_table(fields.pop("headers", b""))
            if fields.get("delivery_mode") == b"\0":
                del fields["delivery_mode"]
        if not notes.pop("headers", None):
            fields["headers"] = join_table(kept)
        return join(fields), body, notes
    except ERRORS:
        return raw, body, {}
