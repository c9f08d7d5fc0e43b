"""Where the event loop asks the ledger, so that it never waits for one that may take its time.

A file on this host's disk is asked at once: that is fastest, and a sync is over before it matters. A database on the
network may not answer for long, so a thread of its own asks that, one question after the other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from .port import AwayError, Ledger

T = TypeVar("T")
CLOSE_SECONDS = 2.0  # for what has still to be noted when the process stops
Failed = Callable[[AwayError], None]


class Desk(Protocol):
    """Takes a question to the ledger, and calls `done` with the answer or `failed` with why there is none."""

    ledger: Ledger

    def ask(self, work: Callable[[], T], done: Callable[[T], None], failed: Failed) -> None:
        """Have `work` done; where it takes time, the event loop calls back later."""

    def waiting(self) -> float:
        """Return for how many seconds the present question has been waiting for its answer."""

    def close(self) -> None:
        """Take no more questions, and close the ledger."""


class AtOnce:
    """Asks at once, and calls back before `ask` returns."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def ask(self, work: Callable[[], T], done: Callable[[T], None], failed: Failed) -> None:
        """Have `work` done, and call back."""
        try:
            answer = work()
        except AwayError as error:
            failed(error)
        else:
            done(answer)

    def waiting(self) -> float:
        """Return 0: nothing waits here."""
        return 0.0

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()


class InThread:
    """Asks in a thread, in the order in which questions come; the event loop calls back."""

    def __init__(self, ledger: Ledger, wake: Callable[[Callable[[], None]], None]) -> None:
        """Start the thread. `wake` has the event loop call something soon, and may be called in any thread."""
        self.ledger, self._wake = ledger, wake
        self._questions: queue.SimpleQueue[Callable[[], Callable[[], None]] | None] = queue.SimpleQueue()
        self._since: float | None = None  # the time.monotonic() at which the present question was put
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def ask(self, work: Callable[[], T], done: Callable[[T], None], failed: Failed) -> None:
        """Have `work` done once all that was asked before is; the event loop calls back."""
        self._questions.put(partial(_answer, work, done, failed))

    def waiting(self) -> float:
        """Return for how many seconds the present question has been waiting for its answer."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Put the questions that are left, if their answers come soon."""
        self._questions.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while question := self._questions.get():
            self._since = time.monotonic()
            call_back = question()
            self._since = None
            self._wake(call_back)
        self.ledger.close()


def _answer(work: Callable[[], Any], done: Callable[[Any], None], failed: Failed) -> Callable[[], None]:
    """Have `work` done; return what the event loop is to call."""
    try:
        return partial(done, work())
    except AwayError as error:
        return partial(failed, error)
    except BaseException as error:  # a fault of ours belongs where all others end: in the event loop
        return partial(_raise, error)


def _raise(error: BaseException) -> None:
    raise error
