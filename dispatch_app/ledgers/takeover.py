"""`dispatch ledger import`: the orders of a host's own ledger become orders of the fleet's.

It can be repeated, and run while either ledger is in use: an order that the fleet's ledger has stays as it is there.
"""

from __future__ import annotations

import contextlib
import json
import socket
from operator import itemgetter
from pathlib import Path

import psycopg

from ..database import Database
from . import statements
from .postgresql import storable
from .session import away, connect, one_row
from .sqlite import batches

_SECONDS = 60


def take_over(database: Database, path: Path, host: str | None = None) -> tuple[int, int]:
    """Add the orders of the ledger file at `path` as those of `host`, this one unless another is named.

    Return how many were added, and how many were known. Raises LedgerError and AwayError.
    """
    added = known = 0
    with contextlib.closing(connect(database, _SECONDS)) as conn:
        for batch in batches(path):
            for row in batch:
                row["correlation_id"] = storable(row["correlation_id"])
            rows = json.dumps(sorted(batch, key=itemgetter("id")))
            given = {"host": host or socket.gethostname(), "rows": rows, "process": statements.NOBODY}
            try:
                (count,) = one_row(conn, statements.TAKE_OVER, given)
            except psycopg.Error as error:
                raise away(error, database) from error
            added += count
            known += len(batch) - count
    return added, known
