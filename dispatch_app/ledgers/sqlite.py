"""The ledger of one host: which orders it has dispatched, in one SQLite file.

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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .port import AwayError, Backlog, ClockError, Filter, LedgerError, Row, Unannounced, duplicates

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

_COLUMNS = "id, user, total, items, correlation_id, redelivered, dispatched_at"
_TESTS = ("dispatched_at >= ?", "id = ?", "user = ?", "correlation_id = ?")  # of a Filter's fields

_UNANNOUNCED = "CREATE TABLE IF NOT EXISTS unannounced (seq INTEGER PRIMARY KEY) -- of `orders`"
# A release that does not know the table may have forgotten such an order, and given its number to another one.
_ORPHANS = "DELETE FROM unannounced WHERE seq NOT IN (SELECT seq FROM orders)"
_TO_ANNOUNCE = "INSERT OR IGNORE INTO unannounced SELECT seq FROM orders WHERE seq > ?"
_HAS_UNANNOUNCED = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'unannounced'"


class SqliteLedger:
    """The one writer of a ledger file."""

    most_held = 30.0

    def __init__(self, path: Path, announcing: bool = False) -> None:
        """Open the file or create it, and check it; where `announcing`, each new order is one to be announced.

        Raises LedgerError.
        """
        self._path, self._announcing = path, announcing
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
            raise _no_use(path, error) from error
        # A time that the clock of today has not told, and the time.monotonic() since which it has gone on.
        self._opened = (newest[0] if newest else time.time() * 1000, time.monotonic())
        self._seen = 0  # the seq up to which `forget` has looked in this turn

    def record(self, rows: Sequence[Row]) -> list[int]:
        """Make `rows` durable in one transaction; return the indexes of duplicates, ascending. Raises AwayError."""
        with self._transaction() as db:
            last = db.execute("SELECT max(seq) FROM orders").fetchone()[0] or 0
            fresh: set[str] | None = None
            if db.executemany(_INSERT.format(now=time.time_ns() // 1_000_000), rows).rowcount < len(rows):
                fresh = {row[0] for row in db.execute("SELECT id FROM orders WHERE seq > ?", (last,))}
            if self._announcing:
                db.execute(_TO_ANNOUNCE, (last,))
        return [] if fresh is None else duplicates(rows, fresh)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that have been dispatched. Raises AwayError."""
        with _away():
            one = "SELECT 1 FROM orders WHERE id = ?"
            return {order_id for order_id in ids if self._db.execute(one, (order_id,)).fetchone()}

    def unannounced(self, limit: int, after: int = 0) -> list[Unannounced]:
        """Return orders with a number above `after` that have not been announced yet, the first ones first.

        Raises AwayError.
        """
        columns = "seq, id, correlation_id, dispatched_at"
        query = f"SELECT {columns} FROM unannounced JOIN orders USING (seq) WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - all parts are ours
        with _away():
            return [Unannounced(*row) for row in self._db.execute(query, (after, limit))]

    def announced(self, orders: Sequence[int]) -> None:
        """Note in one transaction that the orders with these numbers have been announced. Raises AwayError."""
        with self._transaction() as db:
            db.executemany("DELETE FROM unannounced WHERE seq = ?", ((seq,) for seq in orders))

    def backlog(self) -> Backlog:
        """Return what waits to be announced; any thread may ask. Raises LedgerError and AwayError."""
        with _away(), closing(_open(self._path, "ro")) as db:
            (waiting,) = db.execute("SELECT count(*) FROM unannounced").fetchone()
            query = "SELECT dispatched_at FROM unannounced JOIN orders USING (seq) ORDER BY seq LIMIT 1"
            oldest = db.execute(query).fetchone()
        return Backlog(waiting, max(0.0, time.time() - oldest[0] / 1000) if oldest else 0.0)

    def forget(self, days: int, limit: int = 5000) -> int:
        """Delete orders older than `days`, at most `limit` of the next 10 * `limit`; return how many.

        Calls go through the ledger in turns. An order that has still to be announced is kept. Raises ClockError if the
        clock can't be right, and AwayError.
        """
        now = time.time() * 1000
        if now > self._opened[0] + (time.monotonic() - self._opened[1] + days * 86400) * 1000:
            cause = "the clock is further ahead of the last order before the start than orders are kept"
            raise ClockError(cause, "correct it, or restart Dispatch after the next order if it is right")
        # Orders recorded while the clock was wrong stand anywhere, so the first ones tell nothing of the rest.
        # No index leads to the old ones: keeping one up to date would make each order slower.
        window = "SELECT seq, dispatched_at FROM orders WHERE seq > ? ORDER BY seq LIMIT ?"
        kept = "AND seq NOT IN (SELECT seq FROM unannounced)" if self._keeps else ""
        query = f"DELETE FROM orders WHERE seq IN (SELECT seq FROM ({window}) WHERE dispatched_at < ? {kept} LIMIT ?)"  # noqa: S608 - all parts are ours
        with _away():
            last = self._db.execute(f"SELECT count(*), max(seq) FROM ({window})", (self._seen, 10 * limit)).fetchone()  # noqa: S608 - both parts are ours
            forgotten = self._db.execute(query, (self._seen, 10 * limit, now - days * 86_400_000, limit)).rowcount
        if forgotten < limit:
            self._seen = last[1] if last[0] == 10 * limit else 0
        return forgotten

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done in the block, or undo all of it. Raises AwayError."""
        db = self._db
        with _away():
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def size(self) -> int:
        """Return how many octets the ledger and its log take on disk."""
        files = (self._path, Path(f"{self._path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the file; SQLite then writes its log back into it."""
        self._db.close()


def read(path: Path, limit: int, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first, while a service may be writing. Raises LedgerError."""
    # Only the values come from outside, and they are bound.
    asked = {test: value for test, value in zip(_TESTS, wanted, strict=True) if value is not None}
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    db = _open(path, "ro")
    db.row_factory = sqlite3.Row
    try:
        query = f"SELECT {_COLUMNS} FROM orders {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - conditions are ours, values are bound
        yield from (dict(row) for row in db.execute(query, (*asked.values(), limit)))
    except sqlite3.Error as error:
        raise _no_use(path, error) from error
    finally:
        db.close()


def batches(path: Path, size: int = 1000) -> Iterator[list[dict[str, Any]]]:
    """Yield all orders, the oldest first, and with `listed` whether they are to be announced. Raises LedgerError."""
    with closing(_open(path, "ro")) as db:
        db.row_factory = sqlite3.Row
        try:
            has = bool(db.execute(_HAS_UNANNOUNCED).fetchone()[0])
            listed = "seq IN (SELECT seq FROM unannounced)" if has else "0"
            query = f"SELECT seq, {_COLUMNS}, {listed} AS listed FROM orders WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - all parts are ours
            last = 0
            while rows := [dict(row) for row in db.execute(query, (last, size))]:
                last = rows[-1].pop("seq")
                yield rows
        except sqlite3.Error as error:
            raise _no_use(path, error) from error


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
                raise _no_use(path, error) from error


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # A lock is not worth a long wait: the work loop must keep turning, and tries again by its own timer.
    try:
        return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, timeout=0.2)
    except sqlite3.Error as error:
        raise _no_use(path, error) from error


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise AwayError(str(error), "see to its disk or its lock") from error


def _no_use(path: Path, error: Exception) -> LedgerError:
    # Of SQLite's errors, only an OperationalError says nothing against the file's content.
    damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
    remedy = "see that its directory exists, can be written by this user and has space"
    if damaged:
        remedy = "move it aside and put back a copy made by 'dispatch ledger backup'"
    text = f"the ledger {path} {'is damaged' if damaged else 'is no use'} ({error}); {remedy}"
    return LedgerError(text, damaged)
