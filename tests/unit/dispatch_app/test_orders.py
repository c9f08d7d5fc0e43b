"""Bodies: both generations are read, everything else is refused with a reason, nothing else is raised."""

import contextlib
import gzip
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_app import orders
from dispatch_app.ledgers.sqlite import SqliteLedger
from dispatch_app.orders import MAX_ID, MAX_USER, InvalidOrderError, Order, parse
from dispatch_app.publish import sample
from dispatch_app.settings import MAX_BODY

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


def order_like() -> st.SearchStrategy[Any]:
    """Documents with the right names, and values right or wrong."""
    identity = st.uuids().map(str) | JSON
    cart = st.fixed_dictionaries({}, optional={"items": JSON, "total": JSON, "tax": JSON})
    return st.fixed_dictionaries(
        {},
        optional={
            "orderid": identity, "user": JSON, "cart": cart | JSON,
            "transactionId": identity, "userId": JSON, "items": JSON, "total": JSON,
        },
    )  # fmt: skip


def test_the_first_generation() -> None:
    body = {"orderid": "o-1", "user": "u", "cart": {"items": [{"sku": "a"}, {"sku": "b"}], "total": 12.5, "tax": 2}}
    assert parse(json.dumps(body).encode())[:4] == ("o-1", "u", 12.5, 2)


def test_the_generation_of_2026() -> None:
    body = {"transactionId": "t-1", "userId": 7, "userEmail": "a@b", "items": [], "total": 3, "status": "paid"}
    order = parse(json.dumps(body).encode())
    assert order[:4] == ("t-1", "7", 3.0, 0)
    assert order.document["userEmail"] == "a@b"


def test_only_the_order_id_is_required() -> None:
    assert parse(b'{"orderid": "x"}')[:4] == ("x", None, None, None)


def test_what_publish_sends_is_an_order() -> None:
    for body in (sample() for _ in range(50)):
        order = parse(body)
        cart = json.loads(body)["cart"]
        assert order.items == len({item["sku"] for item in cart["items"]}) > 0
        assert [item["subtotal"] for item in cart["items"]] == [item["qty"] * item["price"] for item in cart["items"]]
        assert order.total == cart["total"] == sum(item["subtotal"] for item in cart["items"])
        assert cart["tax"] == round(cart["total"] / 6, 2)


def test_what_publish_sends_differs_from_order_to_order() -> None:
    orders = [parse(sample()) for _ in range(50)]
    assert len({order.id for order in orders}) == 50
    assert len({order.items for order in orders}) > 1
    assert len({order.total for order in orders}) > 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not-json"),
        (b"nonsense", "not-json"),
        (b'{"orderid": "x"} and more', "not-json"),
        (b"\xff\xfe", "not-utf8"),
        ('{"orderid": "x"}'.encode("utf-16"), "not-utf8"),
        (b"[" * 200_000, "too-deep"),
        (b'{"a":' * 200_000, "too-deep"),
        (b"[]", "not-an-object"),
        (b"null", "not-an-object"),
        (b'"orderid"', "not-an-object"),
        (b"{}", "no-order-id"),
        (b'{"orderid": "x", "orderid": "y"}', "duplicate-key"),
        (b'{"orderid": "x", "\\u006frderid": "y"}', "duplicate-key"),
        (b'{"transactionId": "x", "a": 1, "transactionId": "x"}', "duplicate-key"),
        (b'{"orderid": null}', "wrong-type"),
        (b'{"orderid": 5, "transactionId": "t"}', "wrong-type"),
        (b'{"orderid": ""}', "bad-order-id"),
        (b'{"orderid": "  "}', "bad-order-id"),
        (b'{"orderid": "a\\nb"}', "bad-order-id"),
        (b'{"orderid": "\\ud800"}', "bad-order-id"),
        (b'{"orderid": "Jos\xe9"}', "bad-order-id"),  # where octets are replaced, two ids could become one
        (b'{"orderid": "a\nb"}', "bad-order-id"),
        (b'{"orderid": 1' + b"0" * 5000 + b"}", "bad-order-id"),
        (b'{"orderid": "Jos\xe9', "not-utf8"),
        (gzip.compress(b'{"orderid": "x"}', mtime=0), "not-utf8"),
        (b'{"orderid": "a\\u0000b"}', "bad-order-id"),
        (b'{"orderid": 1e999}', "wrong-type"),
        (b'{"orderid": NaN}', "wrong-type"),
        (b'{"orderid": 7.0}', "wrong-type"),
        (b"\xef\xbb\xbf", "not-json"),
    ],
)
def test_what_is_no_order_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidOrderError) as caught:
        parse(body)
    assert caught.value.reason == reason


def test_a_body_that_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(b'{"orderid": "x"}'.ljust(MAX_BODY)).id == "x"
    monkeypatch.setattr(orders, "_decoded", None)
    for longest in (MAX_BODY, 100):
        with pytest.raises(InvalidOrderError) as caught:
            parse(b'{"orderid": "x"}'.ljust(longest + 1), longest)
        assert caught.value.reason == "too-large"


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (b'\xef\xbb\xbf{"orderid": "x"}', ("x", None, None, None)),
        (b'{"orderid": "x", "user": "Jos\xe9"}', ("x", "Jos\\udce9", None, None)),
        (b'{"orderid": "x", "user": "a\tb\x1b"}', ("x", "a\\tb\\x1b", None, None)),
        (b'{"orderid": "x", "user": "a\\u0000b"}', ("x", "a\\x00b", None, None)),
        (b'{"orderid": "x", "n": ' + b"[" * 100 + b"]" * 100 + b"}", ("x", None, None, None)),
        (b'{"orderid": "x", "user": "\\ud800"}', ("x", "\\ud800", None, None)),
        (b'{"orderid": "x", "user": {"id": 7}}', ("x", '{"id": 7}', None, None)),
        (b'{"orderid": "x", "user": true}', ("x", "true", None, None)),
        (b'{"orderid": "x", "user": 7.5}', ("x", "7.5", None, None)),
        (b'{"orderid": "x", "user": 1' + b"0" * 5000 + b"}", ("x", "1" + "0" * (MAX_USER - 1), None, None)),
        (b'{"orderid": "x", "n": 1' + b"0" * 5000 + b"}", ("x", None, None, None)),
        (b'{"orderid": "x", "n": NaN, "m": -Infinity}', ("x", None, None, None)),
        (b'{"orderid": "x", "cart": {"total": NaN, "items": [1]}}', ("x", None, None, 1)),
        (b'{"orderid": "x", "cart": {"total": 1, "total": 2}}', ("x", None, 2.0, None)),
        (b'{"orderid": "x", "user": "a", "user": "b"}', ("x", "b", None, None)),
        (b' {"orderid": "x"}\n', ("x", None, None, None)),
        (b'{"orderid": "x", "n": {"orderid": "y"}}', ("x", None, None, None)),
        (b'{"orderid": "x", "cart": []}', ("x", None, None, None)),
        (b'{"orderid": "x", "cart": {"items": {}, "total": 1}}', ("x", None, 1.0, None)),
        (b'{"orderid": "x", "cart": {"total": "1", "items": []}}', ("x", None, None, 0)),
        (b'{"orderid": "x", "cart": {"total": 1e999}}', ("x", None, None, None)),
        (b'{"orderid": "x", "cart": {"total": true}}', ("x", None, None, None)),
        (b'{"orderid": "x", "cart": {"total": 1' + b"0" * 400 + b"}}", ("x", None, None, None)),
    ],
)
def test_what_does_not_matter_refuses_no_paid_order(body: bytes, stored: tuple[object, ...]) -> None:
    assert parse(body)[:4] == stored


@pytest.mark.parametrize(
    "name",
    ["山田\u3000太郎", "Jean\u00a0Dupont", "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "\U0001f469\u200d\U0001f52c"],
)
def test_a_name_is_stored_as_it_is_written(name: str) -> None:
    assert parse(json.dumps({"orderid": "x", "user": name}).encode()).user == name
    assert parse(json.dumps({"transactionId": "x", "userId": name}, ensure_ascii=False).encode()).user == name


@given(user=JSON | st.text(st.characters(categories=["C", "Z"])), rest=JSON)
def test_whatever_the_user_and_the_cart_are_a_good_id_is_dispatched(user: Any, rest: Any) -> None:
    for document in (
        {"orderid": "x", "user": user, "cart": rest},
        {"transactionId": "x", "userId": user, "items": rest, "total": rest},
    ):
        order = parse(json.dumps(document).encode())
        assert order.id == "x"
        assert order.user is None or len(order.user) <= MAX_USER
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", order.user or "")


def test_the_longest_id_and_one_more() -> None:
    assert parse(json.dumps({"orderid": "x" * MAX_ID}).encode()).id == "x" * MAX_ID
    with pytest.raises(InvalidOrderError):
        parse(json.dumps({"orderid": "x" * (MAX_ID + 1)}).encode())


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    for body in (b'{"orderid": ["SECRET"]}', b'{"SECRET": 1, "SECRET": 2}', b'"SECRET', b"[SECRET]"):
        with pytest.raises(InvalidOrderError) as caught:
            parse(body)
        assert "SECRET" not in str(caught.value)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_order_or_invalid(body: bytes) -> None:
    with contextlib.suppress(InvalidOrderError):
        assert isinstance(parse(body), Order)


@given(document=order_like())
def test_the_ledger_can_store_whatever_is_an_order(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    """So no message can make a commit fail, which would hold every order behind it."""
    try:
        order = parse(json.dumps(document).encode())
    except InvalidOrderError:
        return
    path: Path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    ledger = SqliteLedger(path)
    assert ledger.record([(*order[:4], None, 0)]) == []
    ledger.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT id, user, total, items FROM all_orders").fetchone() == order[:4]
    db.close()
