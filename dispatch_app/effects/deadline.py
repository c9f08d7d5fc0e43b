"""How long an effect may still wait for its other side."""

from __future__ import annotations

import time


def left(until: float) -> float:
    """Return the seconds until a time.monotonic(), and never 0, by which a socket would not wait at all."""
    return max(0.001, until - time.monotonic())
