"""The orders that payment publishes: bodies of both generations are checked and reduced.

The first generation is `{"orderid", "user", "cart": {"items", "total", "tax"}}`, the one
of 2026 `{"transactionId", "userId", "items", "total", …}`. Only the order id is required,
as it always was. An absent value is stored as absent; one of a wrong type is refused.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple, NoReturn

MAX_ID = 255  # characters: the length of an AMQP short string, and far more than the 36 of a UUID


class Order(NamedTuple):
    """One valid order: what the ledger keeps, and the whole document for a hook."""

    id: str
    user: str | None
    total: float | None
    items: int | None
    document: dict[str, Any]


class InvalidOrderError(ValueError):
    """A body is no order; `reason` is a stable slug, and the text never quotes the body."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def parse(body: bytes) -> Order:
    """Return the order in a message body. Raises InvalidOrderError."""
    try:
        document = _DECODER.decode(body.decode())
    except InvalidOrderError:
        raise
    except UnicodeDecodeError as error:
        raise InvalidOrderError("not-utf8", f"invalid UTF-8 at octet {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidOrderError("not-json", f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidOrderError("too-deep", "nested too deeply to be read") from None
    except ValueError:  # the integer has more digits than Python converts
        raise InvalidOrderError("not-json", "a number is too long to be read") from None
    if type(document) is not dict:
        raise InvalidOrderError("not-an-object", f"the body is a JSON {type(document).__name__}")
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
    if cart is None:
        return Order(order_id, _user(user), None, None, document)
    if type(cart) is not dict:
        raise InvalidOrderError("wrong-type", f"the cart, of type {type(cart).__name__}, is not an object")
    items = cart.get("items")
    if items is not None and type(items) is not list:
        raise InvalidOrderError("wrong-type", f"the items, of type {type(items).__name__}, are not a list")
    count = None if items is None else len(items)
    return Order(order_id, _user(user), _total(cart.get("total")), count, document)


def _user(value: object) -> str | None:
    if value is None or (type(value) is str and value.isprintable()):
        return value
    if type(value) is int:  # a customer number
        return str(value)
    raise InvalidOrderError("wrong-type", f"the user, of type {type(value).__name__}, is not a printable string")


def _total(value: object) -> float | None:
    if value is None:
        return None
    if type(value) is float or type(value) is int:
        try:
            total = float(value)
        except OverflowError:
            total = math.inf
        if math.isfinite(total):
            return total
    raise InvalidOrderError("wrong-type", f"the total, of type {type(value).__name__}, is not a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # With repeated names, each reader may see a different order (RFC 8259, 4).
    document = dict(pairs)
    if len(document) != len(pairs):
        raise InvalidOrderError("duplicate-key", "an object repeats a key")
    return document


def _constant(name: str) -> NoReturn:
    raise InvalidOrderError("not-json", f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
