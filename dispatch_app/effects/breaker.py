"""When an endpoint that was away is tried again: a circuit breaker, without threads or a clock of its own."""

from __future__ import annotations

IN_A_ROW = 5  # answers "away" before all orders are held
DELAYS = (1.0, 30.0)  # seconds before the first probe, and at most between two of them
LONGEST = 300.0  # seconds that an endpoint may ask to be left alone


class CircuitBreaker:
    """Closed while the endpoint answers. Once it is open, one order at a time is the probe that may close it again.

    Its callers hold a lock.
    """

    def __init__(self) -> None:
        self.state = "closed"
        self._failures = 0  # in a row
        self._delay = 0.0
        self._until = 0.0  # the time.monotonic() of the next probe

    def allows(self, now: float) -> bool:
        """Return whether one more order may be tried at this time.monotonic(); it is the probe if not all may."""
        if self.state == "open" and now >= self._until:
            self.state = "half-open"
            return True
        return self.state == "closed"

    def succeeded(self) -> None:
        """Note that the endpoint has answered."""
        self.state, self._failures, self._delay, self._until = "closed", 0, 0.0, 0.0

    def away(self, now: float, after: float) -> None:
        """Note that the endpoint was away, and asked to be left alone for `after` seconds (0 if it didn't)."""
        self._failures += 1
        if self.state == "closed" and self._failures < IN_A_ROW and not after:
            return
        if self.state != "open":  # orders that were under way tell nothing new
            self._delay = min(DELAYS[1], self._delay * 2 or DELAYS[0])
        self.state = "open"
        self._until = max(self._until, now + max(self._delay, min(after, LONGEST)))
