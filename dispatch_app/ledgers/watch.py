"""Watches a ledger on the network: whether it can be used while no order comes, and whether it answers in time."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..health import State
from ..logs import log
from .desk import Desk
from .port import AwayError, Remote
from .session import STATEMENT_SECONDS

PERIOD = 5.0  # seconds between two looks
PATIENCE = 2.0  # seconds until a question counts as not answered, and /readyz says so
DEADLINE = STATEMENT_SECONDS + 2.0  # until its connection is ended: the server itself has not ended the statement
_PART = "database"
_SILENT = "the ledger's database does not answer; orders are held"


class Watch:
    """Looks at the ledger now and then, for as long as the service runs."""

    def __init__(self, ledger: Remote, desk: Desk, state: State, seen: Callable[[], None]) -> None:
        """Take the ledger for away until it has been seen; `seen` is called at each look that has gone well."""
        self._ledger, self._desk, self._state, self._seen = ledger, desk, state, seen
        self._looking = False
        self._look_at = 0.0  # time.monotonic()
        state.set(_PART, "not connected to the ledger's database yet")

    def tick(self, now: float) -> None:
        """Look if it is time; the event loop calls this every second."""
        waiting = self._desk.waiting()
        if waiting > PATIENCE:
            self._tell(_SILENT, "look at its server and at the network")
            self._look_at = now
        if waiting > DEADLINE:
            self._ledger.interrupt()
        if not self._looking and now >= self._look_at:
            self._looking = True
            self._desk.ask(self._ledger.look, self._on_seen, self._on_away)

    def _on_seen(self, _: None) -> None:
        if self._state.reasons.get(_PART):
            log.info("the ledger's database can be used")
        self._state.set(_PART, None)
        self._go_on(PERIOD)
        self._seen()

    def _on_away(self, error: AwayError) -> None:
        self._tell(f"the ledger can't be used ({error}); orders are held", error.remedy)
        self._go_on(1.0)

    def _go_on(self, seconds: float) -> None:
        self._looking = False
        self._look_at = time.monotonic() + seconds

    def _tell(self, reason: str, remedy: str) -> None:
        if reason != self._state.reasons.get(_PART):
            log.error("%s: %s", reason, remedy)
        self._state.set(_PART, reason)
