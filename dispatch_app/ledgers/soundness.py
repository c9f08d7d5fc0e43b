"""Looks through a ledger's file for damage: a small one before it is used, a large one beside the work."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from .port import LedgerError

AT_ONCE = 64 << 20  # octets, which take about a tenth of a second; ten million orders would take some seconds
LATER = 60.0  # seconds after the start, when what has been waiting meanwhile is done


class Look:
    """One look through the whole file; `problem` is what it has found since the work has begun, or ""."""

    def __init__(self, path: Path, reader: Callable[[], sqlite3.Connection]) -> None:
        """Look at a small file now, and at a large one in a thread; `reader` opens it in any thread.

        Raises sqlite3.Error, also for damage, and LedgerError.
        """
        self.problem, self._reader = "", reader
        self._db: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        if path.stat().st_size <= AT_ONCE:
            if found := self._through():
                raise sqlite3.DatabaseError(found)
        else:
            self._thread = threading.Thread(target=self._beside, name="ledger-look", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if db := self._db:
            with suppress(sqlite3.ProgrammingError):  # it has just ended by itself
                db.interrupt()
        if self._thread:
            self._thread.join()

    def _through(self) -> str:
        with closing(self._reader()) as self._db:
            found = str(self._db.execute("PRAGMA quick_check(1)").fetchone()[0])
            self._db = None
        return "" if found == "ok" else found

    def _beside(self) -> None:
        if self._stop.wait(LATER):
            return
        try:
            self.problem = self._through()
        except (sqlite3.OperationalError, LedgerError):  # it was interrupted, or is locked: that is no damage
            pass
        except sqlite3.DatabaseError as error:
            self.problem = str(error)
