"""Copies of failed orders: harmless on the way, and the original again at the end."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec

from dispatch_app.amqp import properties
from dispatch_app.amqp.envelope import BARE, ENVELOPED, IN_PLACE, sendable, text, unwrap, wrap

FRAME_MAX = 131072
NOTES: dict[str, Any] = {"reason": "not-json", "attempt": 2, "order-id": "o-1"}
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=40) | st.binary(max_size=40)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["CC", "BCC", "x-death", "x-first-death-queue", "traceparent", "a", "b"])
SHORT = st.text(max_size=60)


def original(**values: Any) -> bytes:
    """Encode properties as a publisher's pika does."""
    return b"".join(spec.BasicProperties(**values).encode())


def pika_reads(raw: bytes) -> spec.BasicProperties:
    props = spec.BasicProperties()
    props.decode(raw)
    return props


@st.composite
def publishers(draw: st.DrawFn) -> bytes:
    values = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "headers": st.dictionaries(NAMES, VALUES, max_size=5),
                "content_type": SHORT, "correlation_id": SHORT, "reply_to": SHORT, "expiration": SHORT,
                "user_id": SHORT, "message_id": SHORT, "delivery_mode": st.integers(1, 2),
                "priority": st.integers(0, 255), "timestamp": st.integers(0, 2**64 - 1),
            },
        )
    )  # fmt: skip
    return original(**values)


def canonical(raw: bytes) -> dict[str, Any]:
    """Fields of a property list; the order of headers means nothing."""
    fields: dict[str, Any] = dict(properties.split(raw))
    if "headers" in fields:
        fields["headers"] = sorted(properties.split_table(fields["headers"]))
    return fields


@given(publishers(), st.binary(max_size=50), st.sampled_from([IN_PLACE, ENVELOPED]))
def test_the_original_comes_back(raw: bytes, body: bytes, way: int) -> None:
    copy, copied_body = wrap(raw, body, NOTES, way, FRAME_MAX)
    back, back_body, notes = unwrap(copy, copied_body)
    assert canonical(back) == canonical(raw)
    assert back_body == body
    assert notes == NOTES


@given(publishers())
def test_a_copy_carries_nothing_harmful_and_outlives_a_restart(raw: bytes) -> None:
    copy, body = wrap(raw, b"body", NOTES, IN_PLACE, FRAME_MAX)
    props = pika_reads(copy)
    assert body == b"body"
    assert props.delivery_mode == 2
    assert props.expiration is None
    assert props.user_id is None
    assert not {"CC", "BCC", "x-death", "x-first-death-queue"} & props.headers.keys()
    assert props.headers["x-dispatch-reason"] == "not-json"
    was = pika_reads(raw)
    assert (props.content_type, props.correlation_id, props.priority) == (
        was.content_type,
        was.correlation_id,
        was.priority,
    )


def test_a_copy_of_a_copy_keeps_the_first_original() -> None:
    raw = original(headers={"CC": ["x"], "keep": 1}, expiration="60000", delivery_mode=1)
    once = wrap(raw, b"b", {"attempt": 1}, IN_PLACE, FRAME_MAX)
    twice = wrap(*unwrap(*once)[:2], {"attempt": 2}, IN_PLACE, FRAME_MAX)
    back, body, notes = unwrap(*twice)
    assert canonical(back) == canonical(raw)
    assert (body, notes) == (b"b", {"attempt": 2})


def test_death_headers_a_retry_queue_added_are_not_the_originals() -> None:
    copy, body = wrap(original(headers={"keep": 1}), b"b", {"attempt": 1}, IN_PLACE, FRAME_MAX)
    fields = properties.split(copy)
    deaths = properties.encode({"x-death": "by ttl"})
    fields["headers"] = properties.join_table(properties.split_table(fields["headers"]) + deaths)
    assert properties.show(unwrap(properties.join(fields), body)[0]) == {"headers": {"keep": 1}}


def test_values_pika_would_change_or_refuse_stay_as_they_are() -> None:
    entries = [(b"double", b"d" + struct.pack(">d", 1.75)), (b"far", b"T" + struct.pack(">Q", 2**62))]
    entries += [(b"twice", b"t\1"), (b"twice", b"t\0"), (b"\xff", b"V")]
    raw = properties.join({"headers": properties.join_table(entries)})
    copy, body = wrap(raw, b"", NOTES, IN_PLACE, FRAME_MAX)
    assert canonical(unwrap(copy, body)[0]) == canonical(raw)


@pytest.mark.parametrize(("size", "in_place"), [(1000, True), (130_000, True), (131_000, False)])
def test_headers_that_fill_a_frame_go_into_the_envelope(size: int, in_place: bool) -> None:
    raw = original(headers={"big": "h" * size})
    copy, body = wrap(raw, b"body", NOTES, IN_PLACE, FRAME_MAX)
    assert len(copy) + 20 <= FRAME_MAX
    assert (body == b"body") == in_place
    assert unwrap(copy, body) == (raw, b"body", NOTES)


def test_bytes_that_are_no_table_go_into_the_envelope() -> None:
    raw = properties.join({"headers": properties.join_table([(b"odd", b"?")])})
    copy, body = wrap(raw, b"body", NOTES, IN_PLACE, FRAME_MAX)
    assert unwrap(copy, body) == (raw, b"body", NOTES)


def test_the_last_resort_keeps_the_body_and_says_what_is_lost() -> None:
    copy, body = wrap(original(headers={"a": 1}), b"body", NOTES, BARE, FRAME_MAX)
    assert body == b"body"
    assert unwrap(copy, body)[2] == {**NOTES, "properties": "lost"}


def test_a_forged_envelope_leaves_the_message_as_it_is() -> None:
    raw = original(headers={"x-dispatch-envelope": 5})
    assert unwrap(raw, b"an order")[1] == b"an order"


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_unwrap_never_raises(noise: bytes, body: bytes) -> None:
    unwrap(noise + b"x-dispatch-" + noise, body)
    for name in ("aside", "envelope", "attempt"):
        for value in (noise, 5, "text", None, [1], -1):
            raw = original(headers={f"x-dispatch-{name}": value})
            assert isinstance(unwrap(raw, body)[1], bytes)


@given(st.text())
def test_note_text_always_fits_a_header(value: str) -> None:
    assert len(text(value, 50)) <= 50
    properties.encode({"note": text(value)})


def test_a_lone_surrogate_fits_too() -> None:
    assert properties.encode({"note": text("a \ud800 b")})


def test_correlation_id() -> None:
    assert properties.correlation_id(original(headers={})) is None
    assert properties.correlation_id(original(headers={"a": 1}, correlation_id="c-1", type="t")) == "c-1"
    assert properties.correlation_id(b"\x04\x00\x09short") is None
    assert properties.correlation_id(b"\x04") is None


@given(publishers(), st.sampled_from([IN_PLACE, ENVELOPED]))
def test_what_was_sent_once_is_sent_again_as_it_is(raw: bytes, way: int) -> None:
    sent = wrap(raw, b"body", NOTES, way, FRAME_MAX)
    assert sendable(*sent, FRAME_MAX) == sent


@given(publishers())
def test_what_others_put_into_the_queue_is_made_harmless_and_can_be_read_as_it_was(raw: bytes) -> None:
    sent, body = sendable(raw, b"body", FRAME_MAX)
    fields = properties.split(sent)
    names = [name for name, _ in properties.split_table(fields.get("headers", b""))]
    assert not {"expiration", "user_id"} & fields.keys()
    assert not {b"CC", b"BCC", b"x-death"} & set(names)
    assert canonical(unwrap(sent, body)[0]) == canonical(raw)


def test_a_value_that_looks_like_a_note_loses_nothing() -> None:
    raw = original(headers={"CC": "x-dispatch-aside"}, delivery_mode=2)
    sent, body = sendable(raw, b"body", FRAME_MAX)
    assert canonical(unwrap(sent, body)[0]) == canonical(raw)


def test_notes_of_a_letter_that_others_have_changed_are_kept() -> None:
    raw, body = wrap(original(delivery_mode=2), b"body", NOTES, IN_PLACE, FRAME_MAX)
    changed = properties.join({**properties.split(raw), "user_id": b"\x07payment"})
    sent = sendable(changed, body, FRAME_MAX)
    assert "user_id" not in properties.split(sent[0])
    assert unwrap(*sent)[2] == NOTES
