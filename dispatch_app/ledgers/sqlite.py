"""The ledger of one host: which orders it has dispatched, in one SQLite file.

In WAL mode with synchronous=FULL every commit syncs the log, so an order once recorded survives a
power cut (sqlite.org/pragma.html), and readers never wait. An order whose id is known changes nothing and is reported.

Where orders are to be announced, a table lists those that have not been yet. An order comes into both tables by one
commit.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import tables
from .index import Index
from .port import AwayError, Backlog, ClockError, Filter, LedgerError, Row, Unannounced, duplicates
from .soundness import Look

_COLUMNS = "id, user, total, items, correlation_id, redelivered, dispatched_at"
_TESTS = ("dispatched_at >= ?", "id = ?", "user = ?", "correlation_id = ?")  # of a Filter's fields


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
            # Ids that are settled touch pages all over their part. Writing those back to the file every 64 MiB of log,
            # instead of every 4, has most of them written once for several times that they are changed.
            self._db.execute("PRAGMA cache_size=-2048")
            self._db.execute("PRAGMA wal_autocheckpoint=16384")
            self._look = Look(path, lambda: _open(path, "ro"))
            self._db.execute("BEGIN IMMEDIATE")
            for statement in tables.SCHEMA:
                self._db.execute(statement)
            if announcing:
                self._db.execute(tables.ORPHANS)
            self._db.execute("COMMIT")
            # A killed process may have written to the log without syncing it, and that is read as if durable: sync it.
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._index = Index(self._db, Path(f"{path}-filter"), lambda: _open(path, "ro"))
            newest = "SELECT dispatched_at FROM {} ORDER BY seq DESC LIMIT 1"
            found = [self._db.execute(newest.format(table)).fetchone() for table, _ in tables.TABLES]
        except sqlite3.Error as error:
            self._db.close()
            raise _no_use(path, error) from error
        # A time that the clock of today has not told, and the time.monotonic() since which it has gone on.
        self._opened = (max((row[0] for row in found if row), default=time.time() * 1000), time.monotonic())
        # Of tables.TABLES the one that `forget` looks through, and the number up to which it has in this turn.
        self._turn = (0, 0)

    @property
    def damage(self) -> LedgerError | None:
        """Return what a look through the whole file has found; it goes on beside the work where the file is large."""
        return _no_use(self._path, sqlite3.DatabaseError(self._look.problem)) if self._look.problem else None

    def record(self, rows: Sequence[Row]) -> list[int]:
        """Make `rows` durable in one transaction; return the indexes of duplicates, ascending. Raises AwayError."""
        with self._transaction() as db:
            index = self._index
            index.refresh()
            settles = index.due
            if settles:
                index.settle()
            ids = [row[0] for row in rows]
            fresh = set(ids).difference(index.claim(ids))
            again = duplicates(rows, set(fresh)) if len(fresh) < len(ids) else []
            if again:
                left_out = set(again)
                rows = [row for at, row in enumerate(rows) if at not in left_out]
            if rows:
                now = time.time_ns() // 1_000_000
                # The first one has its number given, because the table may be empty; the others follow it.
                db.execute(tables.RECORD.format(seq=index.last + 1, now=now), rows[0])
                db.executemany(tables.RECORD.format(seq="NULL", now=now), rows[1:])
                if self._announcing:
                    db.execute("INSERT INTO listed SELECT seq FROM dispatched WHERE seq > ?", (index.last,))
        if settles:
            index.settled()
        index.recorded(fresh)
        return again

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that have been dispatched. Raises AwayError."""
        with _away():
            self._index.refresh()
            return self._index.known(ids)

    def unannounced(self, limit: int, after: int = 0) -> list[Unannounced]:
        """Return orders with a number above `after` that have not been announced yet, the first ones first.

        Raises AwayError.
        """
        with _away():
            return [Unannounced(*row) for row in self._db.execute(tables.UNANNOUNCED, (after, limit))]

    def announced(self, orders: Sequence[int]) -> None:
        """Note in one transaction that the orders with these numbers have been announced. Raises AwayError."""
        with self._transaction() as db:
            for _, listed in tables.TABLES:
                db.executemany(f"DELETE FROM {listed} WHERE seq = ?", ((seq,) for seq in orders))  # noqa: S608 - the name is ours

    def backlog(self) -> Backlog:
        """Return what waits to be announced; any thread may ask. Raises LedgerError and AwayError."""
        with _away(), closing(_open(self._path, "ro")) as db:
            counts = [db.execute(f"SELECT count(*) FROM {listed}").fetchone()[0] for _, listed in tables.TABLES]  # noqa: S608 - the name is ours
            oldest = db.execute(tables.UNANNOUNCED, (0, 1)).fetchone()
        return Backlog(sum(counts), max(0.0, time.time() - oldest[3] / 1000) if oldest else 0.0)

    def forget(self, days: int, limit: int = 5000) -> int:
        """Delete orders older than `days`, at most `limit` of the next 10 * `limit`; return how many.

        Calls go through the ledger in turns. An order that has still to be announced is kept. Raises ClockError if the
        clock can't be right, and AwayError.
        """
        now = time.time() * 1000
        if now > self._opened[0] + (time.monotonic() - self._opened[1] + days * 86400) * 1000:
            cause = "the clock is further ahead of the last order before the start than orders are kept"
            raise ClockError(cause, "correct it, or restart Dispatch after the next order if it is right")
        turn, forgotten = self._turn, 0
        with self._transaction() as db:
            self._index.refresh()
            self._index.settle()
            for _ in tables.TABLES:
                number, seen = turn
                forgotten, looked_at, last = self._forget(db, number, seen, now - days * 86_400_000, limit)
                if forgotten == limit:
                    break
                whole = looked_at < 10 * limit
                turn = ((number + 1) % len(tables.TABLES), 0) if whole else (number, last)
                if forgotten or not whole:
                    break
        self._index.settled()
        self._turn = turn
        return forgotten

    def _forget(
        self, db: sqlite3.Connection, number: int, seen: int, before: float, limit: int
    ) -> tuple[int, int, int]:
        """Delete at most `limit` orders of a table that are older than `before` (milliseconds since 1970).

        Return how many, how many have been looked at, and the number of the last of these.
        """
        # Orders recorded while the clock was wrong stand anywhere, so the first ones tell nothing of the rest.
        # No index leads to the old ones: keeping one up to date would make each order slower.
        table, listed = tables.TABLES[number]
        window = f"SELECT seq, dispatched_at FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - the name is ours
        looked_at, last = db.execute(f"SELECT count(*), max(seq) FROM ({window})", (seen, 10 * limit)).fetchone()  # noqa: S608 - all parts are ours
        query = f"SELECT seq FROM ({window}) WHERE dispatched_at < ? AND seq NOT IN (SELECT seq FROM {listed}) LIMIT ?"  # noqa: S608 - all parts are ours
        old = db.execute(query, (seen, 10 * limit, before, limit)).fetchall()
        if table == "dispatched":
            db.executemany(tables.FORGET_ID, old)
        db.executemany(f"DELETE FROM {table} WHERE seq = ?", old)  # noqa: S608 - the name is ours
        db.execute(tables.FORGET_PARTS)
        return len(old), looked_at, last

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
        self._look.close()
        # An earlier release, if it is next, then finds all ids by the index. What is not settled is at the next start.
        with suppress(AwayError), self._transaction():
            self._index.refresh()
            self._index.settle()
            self._index.save()
        self._index.close()
        self._db.close()


def read(path: Path, limit: int, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first, while a service may be writing. Raises LedgerError."""
    db = _open(path, "ro")
    db.row_factory = sqlite3.Row
    try:
        query, values = listing(wanted, _source(db))
        for row in db.execute(query, (*values, limit)):
            order = dict(row)
            del order["seq"]
            yield order
    except sqlite3.Error as error:
        raise _no_use(path, error) from error
    finally:
        db.close()


def listing(wanted: Filter, source: str) -> tuple[str, list[object]]:
    """Return the query for orders, the newest first, and its values but for the last one, their number."""
    # Only the values come from outside, and they are bound.
    asked: dict[str, list[object]] = {
        test: [value] for test, value in zip(_TESTS, wanted, strict=True) if value is not None
    }
    if wanted.id is not None and source == "all_orders":
        # Only the index leads to an id quickly, and only where `seq` is asked for are the tables read from their ends.
        asked[f"seq IN ({tables.FIND_ANY})"] = [wanted.id] * 3
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    query = f"SELECT seq, {_COLUMNS} FROM {source} {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - conditions are ours, values are bound
    return query, [value for values in asked.values() for value in values]


def batches(path: Path, size: int = 1000) -> Iterator[list[dict[str, Any]]]:
    """Yield all orders, the oldest first, and with `listed` whether they are to be announced. Raises LedgerError."""
    with closing(_open(path, "ro")) as db:
        db.row_factory = sqlite3.Row
        try:
            there = {row["name"] for row in db.execute("SELECT name FROM sqlite_master")}
            for table, listed in tables.TABLES:
                if table not in there:  # an earlier release has made the file
                    continue
                announced = f"seq IN (SELECT seq FROM {listed})" if listed in there else "0"  # noqa: S608 - the name is ours
                query = f"SELECT seq, {_COLUMNS}, {announced} AS listed FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - all parts are ours
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
                return int(copy.execute(f"SELECT count(*) FROM {_source(copy)}").fetchone()[0])  # noqa: S608 - the name is ours
            except sqlite3.Error as error:
                target.unlink()
                raise _no_use(path, error) from error


def _source(db: sqlite3.Connection) -> str:
    """Return what has all orders: the view, or the one table where an earlier release has made the file."""
    (views,) = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'all_orders'").fetchone()
    return "all_orders" if views else "orders"


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
