"""The ledger of a whole fleet: which orders its hosts have dispatched, in a database of PostgreSQL's.

A batch is one statement and so one transaction, which counts once the server has synced it. Ids go in sorted, because
hosts that insert the same ids in different orders wait for each other until PostgreSQL breaks the deadlock. An order
that any host has recorded before changes nothing and is reported.

Where orders are to be announced, each stands on the list `unannounced` with the process that has recorded it. A process
holds a lock of its number for as long as it is connected, so the others see when its orders have become theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, cast

import psycopg
from psycopg.rows import dict_row

from ..database import Database
from . import statements
from .port import AwayError, Backlog, ClockError, Filter, Row, Unannounced, duplicates
from .schema import check_version
from .session import Connection, away, connect, one_row

ADOPT_SECONDS = 10.0  # between two looks for orders of processes that are gone, and after a new connection
_UNSURE = 10_000  # orders remembered of batches whose outcome is unknown


class PostgresqlLedger:
    """One process's part in the ledger. One thread at a time uses it, but for `interrupt`, `backlog` and `size`."""

    most_held = 5.0
    damage = None  # the server looks after its files

    def __init__(self, database: Database, announcing: bool = False) -> None:
        """Prepare to connect, which happens when there is something to ask; each order is one to be announced."""
        self._database, self._announcing = database, announcing
        self._host = socket.gethostname()
        self._process = random.randrange(1, 1 << 31)  # noqa: S311 - no secret
        self._conn: Connection | None = None
        self._lock = threading.Lock()  # held to change the connection, and to interrupt it
        # Orders of this process are from the commit after this time of the database's, and it remembers which of them
        # it can't be sure of because the connection was lost.
        self._settled = ""
        self._unsure: set[str] = set()
        self._adopt_at = 0.0  # time.monotonic()
        # The newest order at the start, in seconds since 1970, and the time.monotonic() since which time has gone on.
        self._opened: tuple[float, float] | None = None
        self._seen = 0  # the seq up to which `forget` has looked in this turn
        self._size, self._backlog = 0, Backlog(0, 0.0)

    def record(self, rows: Sequence[Row]) -> list[int]:
        """Make `rows` durable in one transaction; return the indexes of duplicates, ascending. Raises AwayError.

        Where that was tried before and the connection was lost, what this process has recorded then is no duplicate.
        """
        statement = statements.RECORD_AND_LIST if self._announcing else statements.RECORD
        try:
            with self._connected() as conn:
                given = {"host": self._host, "rows": _json(rows), "process": self._process, "count": len(rows)}
                now, count, ids, _ = one_row(conn, statement, given, prepare=True)
                fresh = set(ids or ()) if count < len(rows) else None
                if fresh is not None and self._unsure:
                    unsure = [row[0] for row in rows if row[0] in self._unsure]
                    ours = conn.execute(statements.OURS, (unsure, self._process, self._settled))
                    fresh |= {order_id for (order_id,) in ours}
        except AwayError:
            if len(self._unsure) > _UNSURE:  # they went to other hosts, and this one need not know any more
                self._unsure.clear()
            self._unsure.update(row[0] for row in rows)
            raise
        self._settled = now
        if self._unsure:
            self._unsure.difference_update(row[0] for row in rows)
        return [] if fresh is None else duplicates(rows, fresh)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that have been dispatched. Raises AwayError."""
        with self._connected() as conn:
            return {order_id for (order_id,) in conn.execute(statements.KNOWN, (json.dumps(ids),), prepare=True)}

    def unannounced(self, limit: int, after: int = 0) -> list[Unannounced]:
        """Return orders with a number above `after` that are for this process to announce, the first ones first.

        Those of processes that are gone become this one's, and are returned whatever their number. Raises AwayError.
        """
        with self._connected() as conn:
            given = {"process": self._process, "after": after, "limit": limit, "adopted": list[int]()}
            if time.monotonic() >= self._adopt_at:
                self._adopt_at = time.monotonic() + ADOPT_SECONDS
                given["adopted"] = [seq for (seq,) in conn.execute(statements.ADOPT, given)]
            return [Unannounced(*row) for row in conn.execute(statements.UNANNOUNCED, given)]

    def announced(self, orders: Sequence[int]) -> None:
        """Note in one transaction that the orders with these numbers have been announced. Raises AwayError."""
        with self._connected() as conn:
            conn.execute(statements.ANNOUNCED, (list(orders),))

    def forget(self, days: int, limit: int = 5000) -> int:
        """Delete orders older than `days`, at most `limit` of the next 10 * `limit`; return how many.

        One process of the fleet does it at a time, by the database's clock. Calls go through the ledger in turns. An
        order that has still to be announced is kept. Raises ClockError if that clock can't be right, and AwayError.
        """
        with self._connected() as conn, conn.transaction():
            ours, now = one_row(conn, statements.MAY_FORGET)
            if not ours:
                return 0
            assert self._opened  # noqa: S101 - by whoever connected
            if now > self._opened[0] + (time.monotonic() - self._opened[1]) + days * 86400:
                cause = "the database's clock is further ahead of the last order before the start than orders are kept"
                raise ClockError(cause, "correct it, or restart Dispatch after the next order if it is right")
            # No index leads to the old ones: keeping one up to date would make each order slower.
            given = {"seen": self._seen, "limit": limit, "days": days}
            forgotten, looked_at, last = one_row(conn, statements.FORGET, given)
        if forgotten < limit:
            self._seen = last if looked_at == 10 * limit else 0
        return int(forgotten)

    def look(self) -> None:
        """See that the ledger can be used, and note its figures. Raises AwayError."""
        with self._connected() as conn:
            (self._size,) = one_row(conn, statements.SIZE)
            if self._announcing:
                orders, seconds = one_row(conn, statements.BACKLOG)
                self._backlog = Backlog(orders, max(0.0, seconds or 0.0))

    def backlog(self) -> Backlog:
        """Return what waited to be announced at the last look, over the whole fleet; any thread may ask."""
        return self._backlog

    def size(self) -> int:
        """Return how many octets the ledger took at the last look; any thread may ask."""
        return self._size

    def interrupt(self) -> None:
        """End a connection whose server does not answer; another thread waits for it, and gets an AwayError."""
        with self._lock, contextlib.suppress(OSError, psycopg.Error):
            if self._conn:
                with socket.socket(fileno=os.dup(self._conn.fileno())) as copy:
                    copy.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            conn, self._conn = self._conn, None
        if conn:
            conn.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Give a connection, and leave it after any error: the next one may find another server. Raises AwayError."""
        try:
            yield self._conn or self._connect()
        except ClockError:
            raise
        except psycopg.Error as error:
            self.close()
            raise away(error, self._database) from error
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Connection:
        conn = connect(self._database)
        with self._lock:
            self._conn = conn
        version, now, newest, _ = one_row(conn, statements.BEGIN, (self._process,))
        check_version(self._database, version)
        self._settled = self._settled or now
        self._opened = self._opened or (newest, time.monotonic())
        self._adopt_at = time.monotonic() + ADOPT_SECONDS
        return conn


def read(database: Database, limit: int, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first. Raises AwayError."""
    query, values = statements.listing(wanted)
    with contextlib.closing(connect(database, seconds=300)) as conn:
        try:
            yield from conn.cursor(row_factory=dict_row).execute(cast("Any", query), (*values, limit))
        except psycopg.Error as error:
            raise away(error, database) from error


def storable(correlation_id: str | None) -> str | None:
    """Return it without NUL, which PostgreSQL does not store, and nothing else of an order may have."""
    return correlation_id and correlation_id.replace("\0", "\\x00")


def _json(rows: Sequence[Row]) -> str:
    """Return rows as one JSON parameter, sorted by the order's id."""
    documents = [
        {"id": row[0], "user": row[1], "total": row[2], "items": row[3], "redelivered": row[5],
         "correlation_id": storable(row[4])}
        for row in sorted(rows, key=itemgetter(0))
    ]  # fmt: skip
    return json.dumps(documents)
