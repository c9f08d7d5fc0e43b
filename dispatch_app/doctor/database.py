"""What the doctor asks the ledger's database, as the service's role; it changes nothing there."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import Any

from ..database import Database
from ..ledgers import needing_libpq
from ..ledgers.port import AwayError, LedgerError
from .table import LookError

# The locks that keep orders from being inserted (PostgreSQL documentation, 13.3.1).
_BLOCKER = """SELECT pid, coalesce(application_name, ''), mode FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
  WHERE relation = 'dispatch.orders'::regclass AND granted AND pid <> pg_backend_pid()
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') ORDER BY pid LIMIT 1"""
# It is empty for a role that may not see it, and on a server without replicas.
_LAG = "SELECT max(extract(epoch FROM replay_lag))::float8 FROM pg_stat_replication"


class SharedLedger:
    """The database of the service's settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @cached_property
    def trouble(self) -> AwayError | None:
        """What keeps the service from using it, if anything. Raises LookError."""
        try:
            self._module("schema").examine(self._database)
        except AwayError as error:
            return error
        return None

    def blocker(self) -> tuple[int, str, str] | None:
        """Return a session that keeps orders from being recorded: its process, its name, its lock. Raises LookError."""
        found = self._one(_BLOCKER)
        return (found[0], found[1], found[2]) if found else None

    def lag(self) -> float | None:
        """Return for how many seconds the slowest replica is behind, where that can be known. Raises LookError."""
        found = self._one(_LAG)
        return found[0] if found else None

    def _one(self, query: str) -> Any:
        try:
            with contextlib.closing(self._module("session").connect(self._database)) as conn:
                return conn.execute(query).fetchone()
        except AwayError as error:
            raise LookError(str(error)) from error

    def _module(self, name: str) -> Any:
        try:
            return needing_libpq(name)
        except LedgerError as error:  # the doctor may run on another Python than the service
            raise LookError(str(error)) from error
