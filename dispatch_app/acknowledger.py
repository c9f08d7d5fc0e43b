"""Which deliveries of a channel have been acknowledged, and how long that took.

Usually one frame acknowledges everything up to the first delivery that isn't done. Where such a
delivery would hold back all those after it, they are acknowledged one by one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from .health import State


class Prefix:
    """The highest delivery tag up to which all deliveries are done."""

    def __init__(self) -> None:
        self.tag = 0
        self.ahead: set[int] = set()  # tags of deliveries that are done, behind one that isn't

    def extend(self, tags: Iterable[int]) -> bool:
        """Mark deliveries as done; return whether the prefix grew."""
        ahead, tag = self.ahead, self.tag
        ahead.update(tags)
        while tag + 1 in ahead:
            tag += 1
            ahead.remove(tag)
        grew, self.tag = tag > self.tag, tag
        return grew


class Acknowledger:
    """Acknowledges the deliveries of one channel. It is called once a batch: a call per order would cost too much."""

    def __init__(self, channel: Any, state: State) -> None:
        self._channel, self._state = channel, state
        self._prefix = Prefix()
        self._singly = False  # one by one, including those ahead of the prefix
        # For each batch, the tag it began with and the time.monotonic() at which it began to arrive.
        self._arrivals: deque[tuple[int, float]] = deque()

    @property
    def ahead(self) -> int:
        """How many tags are remembered because a delivery before them isn't done."""
        return len(self._prefix.ahead)

    def unacknowledged(self, last: int) -> int:
        """Return how many deliveries up to the tag `last` the broker still awaits an acknowledgement for."""
        return last - self._prefix.tag - (self.ahead if self._singly else 0)

    def oldest(self, last: int) -> float | None:
        """Return the time.monotonic() at which the oldest delivery that isn't done arrived; None without one."""
        if not self.unacknowledged(last):
            return None
        self._forget_arrivals(self._prefix.tag + 1)
        return self._arrivals[0][1]

    def arrived(self, tag: int) -> None:
        """Note that a batch of deliveries begins to arrive now, `tag` being its first."""
        self._arrivals.append((tag, time.monotonic()))

    def acknowledge(self, tags: Sequence[int]) -> None:
        """Acknowledge deliveries that are done, or remember them until all before them are done, too."""
        if not self._channel.is_open:
            return
        first = self._prefix.tag + 1
        grew = self._prefix.extend(tags)
        if self._singly:
            for tag in tags:
                self._channel.basic_ack(tag)
            self._singly = "outbox" in self._state.reasons or bool(self._prefix.ahead)
        elif grew:
            self._channel.basic_ack(self._prefix.tag, multiple=True)
        if grew:
            self._forget_arrivals(first)
            self._state.ack.observe(time.monotonic() - self._arrivals[0][1])

    def _forget_arrivals(self, tag: int) -> None:
        """Forget the batches before the one that `tag` came with."""
        arrivals = self._arrivals
        while len(arrivals) > 1 and arrivals[1][0] <= tag:
            arrivals.popleft()

    def overtake(self) -> None:
        """Acknowledge one by one from now on, starting with those that wait behind a delivery that isn't done.

        That ends by itself once the outbox is out of trouble and no such delivery is left.
        """
        if not self._singly and self._channel.is_open:
            self._singly = True
            for tag in self._prefix.ahead:
                self._channel.basic_ack(tag)
