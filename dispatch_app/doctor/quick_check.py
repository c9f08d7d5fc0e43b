"""What SQLite finds wrong with a ledger's file: `python3 -I - LEDGER`.

A program of its own, which runs as the service's user: the service writes the ledger, so root must not parse it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import sys
import time
from pathlib import Path
from urllib.parse import quote

SECONDS = 1.5  # of a large ledger only as much is read as this allows


def problem(ledger: Path) -> str | None:
    """Return what is wrong with the file, or None where nothing is, or where that can't be told."""
    try:
        if not stat.S_ISREG(ledger.stat().st_mode):
            return "this is not a regular file"
    except OSError:
        return None
    # Without a log nobody writes, and `immutable` keeps SQLite from making files of its own (sqlite.org/uri.html).
    mode = "mode=ro" if Path(f"{ledger}-wal").exists() else "mode=ro&immutable=1"
    deadline = time.monotonic() + SECONDS
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(ledger))}?{mode}", uri=True, timeout=1)) as db:
            db.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            return None if found == "ok" else found
    except sqlite3.OperationalError:  # it says nothing of the file's content: the file is busy, or the time is up
        return None
    except sqlite3.DatabaseError as error:
        return str(error)


if __name__ == "__main__":
    print(problem(Path(sys.argv[1])) or "")
