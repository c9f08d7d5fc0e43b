"""How many orders are dispatched per second at most, where that is limited."""

from __future__ import annotations

from ..orders import Order
from .port import Breaker

BURST = 0.1  # of a second's orders may go at once after a pause


class Rate:
    """A token bucket. Its callers hold a lock."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * BURST)
        self._tokens, self._at = self._most, 0.0

    def wait(self, now: float) -> float:
        """Return for how many seconds from this time.monotonic() on no order may go."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return max(0.0, (1 - self._tokens) / self._per_second)

    def take(self) -> None:
        """Let one order go."""
        self._tokens -= 1


class Nothing:
    """The effect of orders that have none, where their rate is limited all the same."""

    name = "none"
    reasons: tuple[str, ...] = ()
    threads = 1
    breaker: Breaker | None = None

    def perform(self, order: Order) -> None:
        """Do nothing."""

    def close(self) -> None:
        """There is nothing to give up."""
