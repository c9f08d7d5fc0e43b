"""What the consumer asks of an effect: to do one thing for one order, or to say why it could not be done."""

from __future__ import annotations

from typing import Protocol

from ..orders import Order


class EffectError(Exception):
    """An effect did not come about."""

    def __init__(self, reason: str, text: str, *, away: bool = False, after: float = 0.0, kind: str = "") -> None:
        """Say why.

        `reason` is the dead letter's reason, such as "hook-failed". `away` says that the other side answers nobody
        for now, so that this order is not at fault: it is held instead of being put aside. `after` is the number of
        seconds to wait, if the other side asked for it. `kind` names the exception that was the cause.
        """
        super().__init__(text)
        self.reason, self.away, self.after = reason, away, after
        self.kind = kind or type(self).__name__


class Breaker(Protocol):
    """Decides when an effect whose other side was away is tried again. Its callers hold a lock."""

    @property
    def state(self) -> str:
        """Return "closed" (orders go on), "open" (all are held) or "half-open" (one of them is the probe)."""

    def allows(self, now: float) -> bool:
        """Return whether one more order may be tried at this time.monotonic()."""

    def succeeded(self) -> None:
        """Note that the other side has answered."""

    def away(self, now: float, after: float) -> None:
        """Note that the other side was away, and asked to be left alone for `after` seconds."""


class Effect(Protocol):
    """One effect. What is asked of it may be asked again for the same order."""

    name: str  # the metrics' label
    reasons: tuple[str, ...]  # the reasons of its EffectErrors, which the metrics show from the start
    threads: int  # how many orders it works on at a time
    breaker: Breaker | None

    def perform(self, order: Order) -> None:
        """Do it; called in a worker thread. Raises EffectError, and must obey a timeout of its own."""

    def close(self) -> None:
        """Give up what it holds: the process ends."""
