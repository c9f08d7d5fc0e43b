"""The ledger: which orders have been dispatched, in one SQLite file.

WAL with synchronous=FULL syncs the log on every commit, so a committed order survives a
power cut (sqlite.org/pragma.html#pragma_synchronous); readers never wait for the writer.
The order id is the key: recording an order twice changes nothing and is reported.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# id, user, total, items, correlation id, redelivered (0 or 1)
Row = tuple[str, "str | None", "float | None", "int | None", "str | None", int]

# What the data of one row can cause; every other sqlite3.Error is the host's fault.
DATA_ERRORS = (
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError,
    sqlite3.ProgrammingError, OverflowError, UnicodeError,
)  # fmt: skip

_SCHEMA = """CREATE TABLE IF NOT EXISTS orders (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  user TEXT,
  total REAL,
  items INTEGER,
  correlation_id TEXT,
  redelivered INTEGER NOT NULL,
  dispatched_at INTEGER NOT NULL -- UTC, milliseconds since 1970
)"""
_INSERT = """INSERT INTO orders (id, user, total, items, correlation_id, redelivered, dispatched_at)
  VALUES (?, ?, ?, ?, ?, ?, {now}) ON CONFLICT (id) DO NOTHING"""


class LedgerError(Exception):
    """The ledger can't be used; the text says why and what to do."""

    def __init__(self, text: str, damaged: bool = False) -> None:
        super().__init__(text)
        self.damaged = damaged


class Ledger:
    """The one writer of a ledger file, opened in place or created."""

    def __init__(self, path: Path) -> None:
        """Open and check the file. Raises LedgerError."""
        self.path = path
        self._db = _open(path, f"file:{_quote(path)}?mode=rwc")
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # 16 MiB of log between checkpoints: random order ids touch many index pages,
            # most of which a longer log writes back once instead of each time.
            self._db.execute("PRAGMA wal_autocheckpoint=4000")
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            self._db.execute(_SCHEMA)
        except sqlite3.Error as error:
            self._db.close()
            raise _explained(path, error) from error

    def record(self, rows: Sequence[Row]) -> list[int]:
        """Make `rows` durable in one transaction; return the indexes of the duplicates.

        Raises sqlite3.Error, OverflowError or UnicodeError; then nothing was recorded.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            last = db.execute("SELECT max(seq) FROM orders").fetchone()[0] or 0
            insert = _INSERT.format(now=time.time_ns() // 1_000_000)
            fresh: set[str] | None = None
            if db.executemany(insert, rows).rowcount != len(rows):
                found = db.execute("SELECT id FROM orders WHERE seq > ?", (last,))
                fresh = {order_id for (order_id,) in found}
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if fresh is None:
            return []
        duplicates = []
        for index, row in enumerate(rows):
            if row[0] in fresh:
                fresh.remove(row[0])  # a second one in the same batch is a duplicate too
            else:
                duplicates.append(index)
        return duplicates

    def known(self, order_id: str) -> bool:
        """Say whether an order has been dispatched already. Raises sqlite3.Error."""
        found = self._db.execute("SELECT 1 FROM orders WHERE id = ?", (order_id,))
        return found.fetchone() is not None

    def forget(self, days: int, limit: int = 5000) -> int:
        """Delete up to `limit` orders older than `days`; return how many. Raises sqlite3.Error.

        Rows are in order of time, so only the first ones are looked at.
        """
        oldest_kept = (time.time() - days * 86400) * 1000
        return self._db.execute(
            "DELETE FROM orders WHERE dispatched_at < ?1 AND seq IN"
            " (SELECT seq FROM orders ORDER BY seq LIMIT ?2)",
            (oldest_kept, limit),
        ).rowcount

    def size(self) -> int:
        """Return the octets the ledger and its log take on disk."""
        files = (self.path, Path(f"{self.path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the file; SQLite writes the log back."""
        self._db.close()


def read(
    path: Path, limit: int, since_ms: int | None, order_id: str | None, user: str | None
) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first, while a service may be writing.

    Raises LedgerError.
    """
    tests: list[str] = []
    values: list[object] = []
    for test, value in (("dispatched_at >= ?", since_ms), ("id = ?", order_id), ("user = ?", user)):
        if value is not None:
            tests.append(test)
            values.append(value)
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    db = _open(path, f"file:{_quote(path)}?mode=ro")
    try:
        db.row_factory = sqlite3.Row
        rows = db.execute(f"SELECT * FROM orders{where} ORDER BY seq DESC LIMIT ?", (*values, limit))
        yield from (dict(row) for row in rows)
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    finally:
        db.close()


def backup(path: Path, target: Path) -> int:
    """Copy the ledger, consistent while a service writes; return the number of orders.

    Uses SQLite's online backup (sqlite.org/backup.html). Raises LedgerError, also where
    `target` exists.
    """
    source = _open(path, f"file:{_quote(path)}?mode=ro")
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        source.close()
        raise LedgerError(f"{target}: {error.strerror}; name a new file to write to") from error
    copy = sqlite3.connect(target)
    try:
        source.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
        return int(copy.execute("SELECT count(*) FROM orders").fetchone()[0])
    except sqlite3.Error as error:
        target.unlink()
        raise _explained(path, error) from error
    finally:
        copy.close()
        source.close()


def _open(path: Path, uri: str) -> sqlite3.Connection:
    try:
        # The consumer retries by its own timer, so it must not sleep long on a lock here.
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0.2)
    except sqlite3.Error as error:
        raise _explained(path, error) from error


def _quote(path: Path) -> str:
    return path.absolute().as_posix().translate({0x25: "%25", 0x3F: "%3f", 0x23: "%23"})


def _explained(path: Path, error: sqlite3.Error) -> LedgerError:
    text = str(error)
    if isinstance(error, sqlite3.OperationalError):
        advice = "see that the directory exists, is writable by this user and has free space"
        return LedgerError(f"the ledger {path} can't be used: {text}; {advice}")
    advice = "move it aside and restore a copy made with 'dispatch ledger backup'"
    return LedgerError(f"the ledger {path} is damaged: {text}; {advice}", damaged=True)
