"""Which ids the ledger of a host has, and what keeps most new ones from being looked for in its tables."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from ..logs import log
from . import tables
from .bloom import BloomFilter
from .port import LedgerError

LATEST = 8192  # ids that stand in memory, and not yet in the table, until they are added to it
PART = 1 << 16  # orders; in larger parts each id changes a page of its own, and more small ones take longer to look in
_ROOM = 1 << 22  # ids that the filter has room for at least
_AT_ONCE = 10_000  # ids that are put into the filter before the ledger is open
_STEP = 1000  # ids that are put into the filter at a time, which takes about two milliseconds
_PAUSE = 0.003  # seconds in between, for the orders that come meanwhile

Reader = Callable[[], sqlite3.Connection]


class Index:
    """The ids of a ledger, as its one writer knows them."""

    def __init__(self, db: sqlite3.Connection, path: Path, reader: Reader) -> None:
        """Read the tables; `path` is the filter's, and `reader` opens the ledger in any thread.

        Raises sqlite3.Error.
        """
        self._db, self._path, self._reader = db, path, reader
        self._filter: Filling | None = None
        self._latest: set[str] = set()
        self._version = -1
        self.refresh()

    def refresh(self) -> None:
        """Read the tables again, if another process has written to them. Raises sqlite3.Error."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self._indexed = self._db.execute(tables.INDEXED).fetchone()[0] or tables.FIRST
        latest = self._db.execute(tables.NOT_INDEXED).fetchall()
        self._latest = {order_id for _, order_id in latest}
        # Numbers are never given twice, whatever has been forgotten.
        self.last = max([self._indexed, *(seq for seq, _ in latest)])
        saved = self._db.execute("SELECT name, room, added, last FROM filter").fetchone()
        if saved:  # a crash may leave the file without some of the ids that it gets from now on
            self._db.execute("DELETE FROM filter")
        if not (saved and self._take(*saved)):
            self._fill()
        self._version = version

    def claim(self, ids: Collection[str]) -> set[str]:
        """Return those of `ids` that the ledger has; the others are about to be recorded. Raises sqlite3.Error."""
        return self._look(ids, Filling.add)

    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of `ids` that the ledger has. Raises sqlite3.Error."""
        return self._look(ids, Filling.possible)

    def recorded(self, ids: Collection[str]) -> None:
        """Note that orders with these ids have been recorded with the numbers that follow `last`. Never raises."""
        self._latest.update(ids)
        self.last += len(ids)
        if self._filter and self._filter.crowded:
            self._fill()

    @property
    def due(self) -> bool:
        """Whether it is time to settle."""
        return len(self._latest) >= LATEST

    def settle(self) -> None:
        """Add the latest ids to the table; `settled` has to be called after the commit. Raises sqlite3.Error."""
        if self._latest:
            part = (self._indexed - tables.FIRST) // PART
            self._db.execute(tables.INDEX, (part, self._indexed))
            self._db.execute(tables.BEGIN_PART, (part, self.last))

    def settled(self) -> None:
        """Note that all ids are in the table. Never raises."""
        self._latest, self._indexed = set(), self.last
        if not self._filter or self._filter.failed:
            self._fill()

    def save(self) -> None:
        """Keep the filter for the next process; what is to be settled has been. Raises sqlite3.Error."""
        if not self._filter or sum(self._ends()) - tables.FIRST <= _AT_ONCE:
            return  # there is none, or it is made as quickly
        name = os.urandom(16)
        with suppress(OSError):
            if (sizes := self._filter.save(name)) is not None:
                self._db.execute("INSERT INTO filter VALUES (?, ?, ?, ?)", (name, *sizes, self.last))

    def close(self) -> None:
        """Give up the filter."""
        if self._filter:
            self._filter.close()
            self._filter = None

    def _look(self, ids: Collection[str], ask: Callable[[Filling, Iterable[str]], Iterable[str]]) -> set[str]:
        possible: Iterable[str] = ids
        if self._filter:
            try:
                possible = ask(self._filter, ids)
            except OSError as error:  # it lacks some of the ids now
                _warn(error)
                self.close()
        latest, db = self._latest, self._db
        return {
            one
            for one in possible
            if one in latest or any(db.execute(query, (one,)).fetchone() for query in tables.FIND)
        }

    def _take(self, name: bytes, room: int, added: int, last: int) -> bool:
        """Take the filter that the process before has saved; return whether it can be had, and has all ids."""
        self.close()
        if last != self.last:
            return False
        try:
            bloom = BloomFilter(self._path, room, name)
        except OSError:
            return False
        bloom.added = added
        self._filter = Filling(bloom, (0, 0))
        self._filter.fill(self._db)
        return True

    def _ends(self) -> tuple[int, int]:
        """Return the last numbers of the tables. Raises sqlite3.Error."""
        (earlier,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM orders").fetchone()
        return earlier, self.last

    def _fill(self) -> None:
        """Begin a filter of all ids, where one can be had. Never raises."""
        self.close()
        try:
            ends = self._ends()
            count = sum(ends) - tables.FIRST
            self._filter = Filling(BloomFilter(self._path, max(_ROOM, 2 * count)), ends)
            if count <= _AT_ONCE:
                self._filter.fill(self._db)
            else:
                self._filter.start(self._reader)
        except (OSError, sqlite3.Error) as error:
            _warn(error)
            self.close()


class Filling:
    """A filter that is being filled, in a thread of its own where that takes long; until it is, any id is possible."""

    def __init__(self, bloom: BloomFilter, ends: Sequence[int]) -> None:
        """Prepare to add the orders of each table up to these numbers."""
        self._filter, self._ends = bloom, ends
        self._lock = threading.Lock()
        self._full = self.failed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def crowded(self) -> bool:
        """Whether it has more ids than there is room for."""
        return self._full and self._filter.crowded

    def add(self, ids: Iterable[str]) -> Iterable[str]:
        """Add ids, and return those that may be in the ledger. Raises OSError."""
        with self._lock:
            found = self._filter.add(ids)
            return found if self._full else ids

    def possible(self, ids: Iterable[str]) -> Iterable[str]:
        """Return those of `ids` that may be in the ledger. Raises OSError."""
        with self._lock:
            return self._filter.possible(ids) if self._full else ids

    def save(self, name: bytes) -> tuple[int, int] | None:
        """Save the filter under a name; return its room and how many ids it has, None where it lacks some.

        Raises OSError.
        """
        with self._lock:
            if not self._full:
                return None
            self._filter.save(name)
            return self._filter.room, self._filter.added

    def fill(self, db: sqlite3.Connection) -> None:
        """Add all orders now. Raises sqlite3.Error and OSError."""
        for _ in self._steps(db):
            pass

    def start(self, reader: Reader) -> None:
        """Add all orders in a thread."""
        self._thread = threading.Thread(target=self._run, args=(reader,), name="ledger-filter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and give up the filter."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        self._filter.close()

    def _run(self, reader: Reader) -> None:
        try:
            with closing(reader()) as db:
                for _ in self._steps(db):
                    if self._stop.wait(_PAUSE):
                        return
        except (OSError, LedgerError, sqlite3.Error) as error:
            _warn(error)
            self.failed = True

    def _steps(self, db: sqlite3.Connection) -> Iterator[None]:
        for (table, _), end in zip(tables.TABLES, self._ends, strict=True):
            query = f"SELECT seq, id FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"  # noqa: S608 - the names are ours
            last = 0
            while rows := db.execute(query, (last, end, _STEP)).fetchall():
                last = rows[-1][0]
                with self._lock:
                    self._filter.add(order_id for _, order_id in rows)
                yield
        self._full = True


def _warn(error: Exception) -> None:
    log.warning("each order is looked for in the whole ledger, which takes longer: its filter can't be had (%s)", error)
