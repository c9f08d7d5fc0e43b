"""Deliveries are read alike however the bytes arrive, and other frames stay pika's."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from dispatch_app.amqp.connection import Connection, Delivery

FRAME_MAX = 4096 - 8


def message(tag: int, body: bytes, channel: int = 1) -> bytes:
    deliver = spec.Basic.Deliver("dispatch", tag, tag % 2 == 0, "robot-shop", "orders")
    parts = [frame.Method(channel, deliver), frame.Header(channel, len(body), spec.BasicProperties(headers={}))]
    parts += [frame.Body(channel, body[at : at + FRAME_MAX]) for at in range(0, len(body), FRAME_MAX)]
    return b"".join(part.marshal() for part in parts)


class Reader(Connection):
    """A connection without a socket."""

    def __init__(self) -> None:
        self._frame_buffer = b""
        self._pieces = []
        self.bytes_received = 0
        self.got: list[Delivery] = []
        self.left: list[str] = []
        self.sink, self.sink_channel = self.got.append, 1

    def _process_frame(self, value: Any) -> None:
        self.left.append(value.NAME)

    def feed(self, stream: bytes, *cuts: int) -> None:
        at = 0
        for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
            if stream[at:cut]:
                self._on_data_available(stream[at:cut])
            at = cut


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cuts_give_the_same_deliveries(bodies: list[bytes], cuts: list[int]) -> None:
    reader = Reader()
    stream = b"".join(message(tag, body) for tag, body in enumerate(bodies, 1))
    reader.feed(stream, *cuts)
    expected = [
        (tag, int(tag % 2 == 0), b"\x0arobot-shop\x06orders", b"\x20\x00\x00\x00\x00\x00", body)
        for tag, body in enumerate(bodies, 1)
    ]
    assert (reader.got, reader.left, reader.bytes_received) == (expected, [], len(stream))


@given(st.lists(st.integers(0, 20_000), max_size=6))
def test_deliveries_in_several_frames_are_put_together_and_other_frames_left_to_pika(cuts: list[int]) -> None:
    reader = Reader()
    body = b"x" * FRAME_MAX + b"y"
    large, other = message(2, body), message(1, b"not ours", channel=2)
    # Frames of other channels may stand between those of one delivery (AMQP 0-9-1, 4.2.6).
    end_of_method = 8 + int.from_bytes(large[3:7], "big")
    between = large[:end_of_method] + other + large[end_of_method:-9] + frame.Heartbeat().marshal() + large[-9:]
    reader.feed(message(1, b"a") + frame.Heartbeat().marshal() + between + large + message(3, b""), *cuts)
    assert [(delivery[0], delivery[4]) for delivery in reader.got] == [(1, b"a"), (2, body), (2, body), (3, b"")]
    assert reader.got[1] == (2, 1, b"\x0arobot-shop\x06orders", b"\x20\0\0\0\0\0", body)
    assert reader.left == ["Heartbeat", "METHOD", "Header", "Body", "Heartbeat"]
