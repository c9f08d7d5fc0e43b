"""The orders that payment publishes: bodies of both generations are checked and reduced.

The first generation is `{"orderid", "user", "cart": {"items", "total", "tax"}}`, the one
of 2026 `{"transactionId", "userId", "items", "total", …}`. An order has been paid for, so it is
refused only where it can't be read or has no id to know it by. Nothing else in it decides anything:
what is absent, or of a type that the ledger has no column for, is stored as absent.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NamedTuple

from .printable import escaped
from .settings import MAX_BODY

MAX_ID = 255  # characters: the length of an AMQP short string, and far more than the 36 of a UUID
MAX_USER = 255  # characters that are stored of a user


class Order(NamedTuple):
    """One order: what the ledger keeps, and the whole document for a hook."""

    id: str
    user: str | None
    total: float | None
    items: int | None
    document: dict[str, Any]


# Why a body is no order.
REASONS = (
    "too-large", "too-deep", "not-utf8", "not-json", "not-an-object", "duplicate-key", "no-order-id", "wrong-type",
    "bad-order-id",
)  # fmt: skip


class InvalidOrderError(ValueError):
    """A body is no order; `reason` is a stable slug, and the text never quotes the body."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def parse(body: bytes, longest: int = MAX_BODY) -> Order:
    """Return the order in a message body of at most `longest` octets. Raises InvalidOrderError."""
    if len(body) > longest:
        raise InvalidOrderError("too-large", f"the body has {len(body)} octets, more than {longest}")
    try:
        document = _decoded(body)
    except ValueError as error:
        document = _leniently(body, error)
    except RecursionError:
        raise InvalidOrderError("too-deep", "nested too deeply to be read") from None
    if type(document) is not dict:
        _check_object(document)
    if "orderid" in document:
        order_id, user, cart = document["orderid"], document.get("user"), document.get("cart")
    elif "transactionId" in document:
        order_id, user, cart = document["transactionId"], document.get("userId"), document
    else:
        raise InvalidOrderError("no-order-id", "neither orderid nor transactionId is present")
    if type(order_id) is not str:
        raise InvalidOrderError("wrong-type", f"the order id, of type {type(order_id).__name__}, is not a string")
    if not 0 < len(order_id) <= MAX_ID or not order_id.isprintable() or order_id.isspace():
        raise InvalidOrderError("bad-order-id", f"the order id is not 1 to {MAX_ID} printable characters")
    if not isinstance(cart, dict):
        return Order(order_id, _user(user), None, None, document)
    items = cart.get("items")
    return Order(
        order_id, _user(user), _total(cart.get("total")), len(items) if type(items) is list else None, document
    )


def _decoded(body: bytes) -> Any:
    """Read a body as JSON. Raises ValueError and RecursionError."""
    text = body.decode()
    # Telling which keys are repeated takes a call for each object. An id that is given twice, and has no escapes in its
    # key, stands in the body twice.
    if body.count(b'"orderid"') + body.count(b'"transactionId"') <= 1 and b"\\" not in body:
        try:
            document, end = _PLAIN.raw_decode(text)
        except ValueError:
            end = -1  # the text begins with white space, or is not JSON
        if end == len(text):
            return document
    return _DECODER.decode(text)


def _check_object(document: Any) -> None:
    if not isinstance(document, _Repeated):
        raise InvalidOrderError("not-an-object", f"the body is a JSON {type(document).__name__}")
    if not document.repeated.isdisjoint(("orderid", "transactionId")):
        raise InvalidOrderError("duplicate-key", "the order id is given more than once")


def _leniently(body: bytes, error: ValueError) -> Any:
    """Read a body that is not quite JSON, as some publishers write it.

    That is one with a byte order mark, with control characters or octets of another encoding within strings, or with
    a number of thousands of digits. Such octets become surrogates, which no order id may hold. Raises
    InvalidOrderError, with what `error` says is wrong.
    """
    try:
        return _LENIENT.decode(body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise InvalidOrderError("too-deep", "nested too deeply to be read") from None
    except ValueError:
        if isinstance(error, UnicodeDecodeError):
            raise InvalidOrderError("not-utf8", f"invalid UTF-8 at octet {error.start}") from None
        at = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else "not JSON"
        raise InvalidOrderError("not-json", at) from None


def _user(value: object) -> str | None:
    """Return what is stored of a user: a name, a customer number, or else the JSON of whatever it is."""
    if value is None:
        return None
    if type(value) is not str:
        try:
            value = json.dumps(value, ensure_ascii=False)
        except RecursionError:
            return None
    return escaped(value[:MAX_USER])[:MAX_USER]


def _total(value: object) -> float | None:
    if type(value) is float or type(value) is int:
        try:
            total = float(value)
        except OverflowError:
            return None
        if math.isfinite(total):
            return total
    return None


class _Repeated(dict[str, Any]):
    """An object in which keys are `repeated`; the last value of each counts, as most readers have it (RFC 8259, 4)."""

    repeated: set[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) == len(pairs):
        return document
    names = Counter(name for name, _ in pairs)
    repeating = _Repeated(document)
    repeating.repeated = {name for name, count in names.items() if count > 1}
    return repeating


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # it has more digits than Python converts
        return digits


def _constant(_: str) -> None:
    """Read NaN and the infinities, which Python's json writes for a total that is none, as absent."""


_PLAIN = json.JSONDecoder(parse_constant=_constant)
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_LENIENT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, strict=False)
