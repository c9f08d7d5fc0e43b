"""What the service knows about itself: why it is not ready, and what it has counted.

Written by the work loop only, once a batch where it can; the HTTP thread just reads.
"""

from __future__ import annotations

import time
from collections import Counter


class Histogram:
    """Cumulative counts by upper bound, as Prometheus exposes them."""

    def __init__(self, *bounds: float) -> None:
        """Count into `bounds`, ascending, and one bucket for all."""
        self.bounds = (*bounds, float("inf"))
        self.counts = [0] * len(self.bounds)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value."""
        self.sum += value
        for index, bound in enumerate(self.bounds):
            if value <= bound:
                self.counts[index] += 1


class State:
    """Counters since start, the beat of the work loop, and the reasons not to be ready."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {"broker": "not connected yet"}
        self.beat = time.monotonic()
        self.received = self.dispatched = self.duplicates = 0
        self.retried: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.connections = self.connection_losses = 0
        self.in_flight = 0
        self.batch_orders = Histogram(1, 2, 5, 10, 20, 50, 100, 200, 500)
        self.ack_seconds = Histogram(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)

    def set(self, part: str, reason: str | None) -> None:
        """Note why `part` keeps the service from being ready, or None that it doesn't."""
        if reason is None:
            self.reasons.pop(part, None)
        else:
            self.reasons[part] = reason

    def committed(self, orders: int, duplicates: int, seconds: float) -> None:
        """Count one batch; `seconds` from its oldest delivery to its acknowledgement."""
        self.dispatched += orders - duplicates
        self.duplicates += duplicates
        self.batch_orders.observe(orders)
        self.ack_seconds.observe(seconds)

    def posted(self, reason: str, dead: bool) -> None:
        """Count an order that is durable in the dead-letter queue or in a retry queue."""
        (self.dead if dead else self.retried)[reason] += 1
