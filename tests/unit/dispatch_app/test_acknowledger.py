"""What is done is acknowledged once, in whatever order it comes and whatever trouble there is meanwhile."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_app.acknowledger import Acknowledger, Prefix
from dispatch_app.health import State


class Channel:
    """A channel that keeps what isn't acknowledged, as RabbitMQ does."""

    is_open = True

    def __init__(self, last: int) -> None:
        self.outstanding = set(range(1, last + 1))

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        tags = {each for each in self.outstanding if each <= tag} if multiple else {tag}
        # RabbitMQ closes the channel with 406 for a tag it doesn't know, or no longer does.
        assert tags
        assert tags <= self.outstanding
        self.outstanding -= tags


@given(st.permutations(range(1, 30)), st.integers(1, 5))
def test_the_prefix_is_always_contiguous(order: list[int], size: int) -> None:
    prefix, done = Prefix(), set()
    for start in range(0, len(order), size):
        part = order[start : start + size]
        done |= set(part)
        before = prefix.tag
        assert prefix.extend(part) == (prefix.tag > before)
        assert set(range(1, prefix.tag + 1)) <= done
        assert prefix.tag + 1 not in done
    assert prefix.tag == 29


@given(st.permutations(range(1, 30)), st.integers(1, 5), st.lists(st.sampled_from(["", "in trouble", "well"])))
def test_the_broker_awaits_what_is_counted_as_unacknowledged(order: list[int], size: int, events: list[str]) -> None:
    channel, state = Channel(len(order)), State()
    acknowledger = Acknowledger(channel, state)
    acknowledger.arrived(1)
    done: set[int] = set()
    for start in range(0, len(order), size):
        event = events.pop() if events else ""
        if event:
            state.set("outbox", "the broker takes no messages" if event == "in trouble" else None)
        if event == "in trouble":
            acknowledger.overtake()
            assert not channel.outstanding & done  # nothing that is done waits any longer
        acknowledger.acknowledge(order[start : start + size])
        done |= set(order[start : start + size])
        assert acknowledger.unacknowledged(len(order)) == len(channel.outstanding)
        assert channel.outstanding >= set(order) - done  # nothing is acknowledged before it is done
        assert (acknowledger.oldest(len(order)) is None) == (not channel.outstanding)
    assert channel.outstanding == set()
    assert acknowledger.ahead == 0


def test_the_oldest_order_at_hand_is_as_old_as_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledger = Acknowledger(Channel(6), State())
    for tag, now in ((1, 10.0), (3, 20.0), (5, 30.0)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        acknowledger.arrived(tag)
    assert acknowledger.oldest(6) == 10.0
    acknowledger.acknowledge([1, 2])
    assert acknowledger.oldest(6) == 20.0
    acknowledger.acknowledge([4, 5, 6])  # the third keeps its place
    assert acknowledger.oldest(6) == 20.0
    acknowledger.acknowledge([3])
    assert acknowledger.oldest(6) is None
