"""The ledger: which orders have been dispatched, in one SQLite file.

In WAL mode with synchronous=FULL every commit syncs the log, so an order once recorded survives a
power cut (sqlite.org/pragma.html), and readers never wait. The order id is the key: recording an
order a second time changes nothing and is reported.

Where orders are to be announced, the table `unannounced` holds those that have not been yet. An order comes into both
tables by one commit. Releases that know nothing of that table leave it alone, and work.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

# id, user, total, items, correlation id, redelivered (0 or 1)
Row = tuple[str, "str | None", "float | None", "int | None", "str | None", int]

_SCHEMA = """CREATE TABLE IF NOT EXISTS orders (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  user TEXT,
  total REAL,
  items INTEGER,
  correlation_id TEXT,
  redelivered INTEGER NOT NULL,
  dispatched_at INTEGER NOT NULL -- milliseconds since 1970, UTC
)"""
_INSERT = """INSERT INTO orders (id, user, total, items, correlation_id, redelivered, dispatched_at)
  VALUES (?, ?, ?, ?, ?, ?, {now}) ON CONFLICT (id) DO NOTHING"""

_UNANNOUNCED = "CREATE TABLE IF NOT EXISTS unannounced (seq INTEGER PRIMARY KEY) -- of `orders`"
# A release that does not know the table may have forgotten such an order, and given its number to another one.
_ORPHANS = "DELETE FROM unannounced WHERE seq NOT IN (SELECT seq FROM orders)"
_TO_ANNOUNCE = "INSERT OR IGNORE INTO unannounced SELECT seq FROM orders WHERE seq > ?"
_HAS_UNANNOUNCED = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'unannounced'"


class Unannounced(NamedTuple):
    """An order that is dispatched and has not been announced yet."""

    seq: int
    id: str
    correlation_id: str | None
    dispatched_at: int  # milliseconds since 1970, UTC


class LedgerError(Exception):
    """The ledger can't be used; the text says why and what to do."""

    def __init__(self, path: Path, error: Exception) -> None:
        # Of SQLite's errors, only an OperationalError says nothing against the file's content.
        self.damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        remedy = "see that its directory exists, can be written by this user and has space"
        if self.damaged:
            remedy = "move it aside and put back a copy made by 'dispatch ledger backup'"
        super().__init__(f"the ledger {path} {'is damaged' if self.damaged else 'is no use'} ({error}); {remedy}")


class ClockError(Exception):
    """By this clock all orders would be past their retention, though it may just be wrong."""


class Backlog(NamedTuple):
    """How many orders wait to be announced, and for how many seconds the first of them has."""

    orders: int
    seconds: float


class Ledger:
    """The one writer of a ledger file."""

    def __init__(self, path: Path, announcing: bool = False) -> None:
        """Open the file or create it, and check it; where `announcing`, each new order is one to be announced.

        Raises LedgerError.
        """
        self._path, self._announcing = path, announcing
        self.directory = path.parent
        self._db = _open(path, "rwc")
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # Random ids touch pages all over the index. Keeping 4 MiB of it in memory, and writing it back to
            # the file every 64 MiB of log instead of every 4, saves a third of the time at a million orders.
            self._db.execute("PRAGMA cache_size=-4096")
            self._db.execute("PRAGMA wal_autocheckpoint=16384")
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            self._db.execute(_SCHEMA)
            if announcing:
                self._db.execute(_UNANNOUNCED)
                self._db.execute(_ORPHANS)
            # Orders that still have to be announced are kept even while nothing announces them.
            self._keeps = bool(self._db.execute(_HAS_UNANNOUNCED).fetchone()[0])
            # A killed process may have written to the log without syncing it, and that is read as if durable: sync it.
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            newest = self._db.execute("SELECT dispatched_at FROM orders ORDER BY seq DESC LIMIT 1").fetchone()
        except sqlite3.Error as error:
            self._db.close()
            raise LedgerError(path, error) from error
        # A time that the clock of today has not told, and the time.monotonic() since which it has gone on.
        self._opened = (newest[0] if newest else time.time() * 1000, time.monotonic())
        self._seen = 0  # the seq up to which `forget` has looked in this turn

    def record(self, rows: Sequence[Row]) -> list[int]:
        """Make `rows` durable in one transaction; return the indexes of duplicates, ascending.

        Raises sqlite3.Error; nothing is recorded then.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            last = db.execute("SELECT max(seq) FROM orders").fetchone()[0] or 0
            fresh: set[str] | None = None
            if db.executemany(_INSERT.format(now=time.time_ns() // 1_000_000), rows).rowcount < len(rows):
                fresh = {row[0] for row in db.execute("SELECT id FROM orders WHERE seq > ?", (last,))}
            if self._announcing:
                db.execute(_TO_ANNOUNCE, (last,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        duplicates = []
        for index, row in enumerate(rows if fresh is not None else ()):
            if fresh and row[0] in fresh:
                fresh.remove(row[0])  # if the same id comes again in this batch, that is a duplicate
            else:
                duplicates.append(index)
        return duplicates

    def known(self, order_id: str) -> bool:
        """Return whether an order has been dispatched. Raises sqlite3.Error."""
        return self._db.execute("SELECT 1 FROM orders WHERE id = ?", (order_id,)).fetchone() is not None

    def unannounced(self, limit: int, after: int = 0) -> list[Unannounced]:
        """Return orders with a number above `after` that have not been announced yet, the first ones first.

        Raises sqlite3.Error.
        """
        columns = "seq, id, correlation_id, dispatched_at"
        query = f"SELECT {columns} FROM unannounced JOIN orders USING (seq) WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - all parts are ours
        return [Unannounced(*row) for row in self._db.execute(query, (after, limit))]

    def announced(self, orders: Sequence[int]) -> None:
        """Note in one transaction that the orders with these numbers have been announced. Raises sqlite3.Error."""
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM unannounced WHERE seq = ?", ((seq,) for seq in orders))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def backlog(self) -> Backlog:
        """Return what waits to be announced; any thread may ask. Raises LedgerError and sqlite3.Error."""
        with closing(_open(self._path, "ro")) as db:
            (waiting,) = db.execute("SELECT count(*) FROM unannounced").fetchone()
            query = "SELECT dispatched_at FROM unannounced JOIN orders USING (seq) ORDER BY seq LIMIT 1"
            oldest = db.execute(query).fetchone()
        return Backlog(waiting, max(0.0, time.time() - oldest[0] / 1000) if oldest else 0.0)

    def forget(self, days: int, limit: int = 5000) -> int:
        """Delete orders older than `days`, at most `limit` of the next 10 * `limit`; return how many.

        Calls go through the ledger in turns. An order that has still to be announced is kept. Raises ClockError if the
        clock can't be right, and sqlite3.Error.
        """
        now = time.time() * 1000
        if now > self._opened[0] + (time.monotonic() - self._opened[1] + days * 86400) * 1000:
            raise ClockError("the clock is further ahead of the last order before the start than orders are kept")
        # Orders recorded while the clock was wrong stand anywhere, so the first ones tell nothing of the rest.
        # No index leads to the old ones: keeping one up to date would make each order slower.
        window = "SELECT seq, dispatched_at FROM orders WHERE seq > ? ORDER BY seq LIMIT ?"
        last = self._db.execute(f"SELECT count(*), max(seq) FROM ({window})", (self._seen, 10 * limit)).fetchone()  # noqa: S608 - both parts are ours
        kept = "AND seq NOT IN (SELECT seq FROM unannounced)" if self._keeps else ""
        query = f"DELETE FROM orders WHERE seq IN (SELECT seq FROM ({window}) WHERE dispatched_at < ? {kept} LIMIT ?)"  # noqa: S608 - all parts are ours
        forgotten = self._db.execute(query, (self._seen, 10 * limit, now - days * 86_400_000, limit)).rowcount
        if forgotten < limit:
            self._seen = last[1] if last[0] == 10 * limit else 0
        return forgotten

    def size(self) -> int:
        """Return how many octets the ledger and its log take on disk."""
        files = (self._path, Path(f"{self._path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the file; SQLite then writes its log back into it."""
        self._db.close()


def read(path: Path, limit: int, filters: dict[str, object]) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first, while a service may be writing. Raises LedgerError.

    `filters` maps conditions such as "id = ?" to their values; those with None are left out.
    """
    # Only the values come from outside, and they are bound.
    asked = {test: value for test, value in filters.items() if value is not None}
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    db = _open(path, "ro")
    db.row_factory = sqlite3.Row
    try:
        query = f"SELECT * FROM orders {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - conditions are ours, values are bound
        yield from (dict(row) for row in db.execute(query, (*asked.values(), limit)))
    except sqlite3.Error as error:
        raise LedgerError(path, error) from error
    finally:
        db.close()


def backup(path: Path, target: Path) -> int:
    """Copy the ledger while a service may be writing; return the number of orders.

    By SQLite's online backup (sqlite.org/backup.html). Raises LedgerError, and FileExistsError
    or another OSError for `target`.
    """
    with closing(_open(path, "ro")) as source:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(_open(target, "rw")) as copy:
            try:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # leaves one file, with nothing beside it
                return int(copy.execute("SELECT count(*) FROM orders").fetchone()[0])
            except sqlite3.Error as error:
                target.unlink()
                raise LedgerError(path, error) from error


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # A lock is not worth a long wait: the work loop must keep turning, and tries again by its own timer.
    try:
        return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, timeout=0.2)
    except sqlite3.Error as error:
        raise LedgerError(path, error) from error
