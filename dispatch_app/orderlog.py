"""The log of what has become of orders."""

from __future__ import annotations

from .ledgers.port import Row
from .logs import fields, log

LOG_OCTETS = 47_000  # for the orders of a log line, which keeps it below journald's LineMax= of 48 KiB


def log_orders(what: str, rows: list[Row]) -> None:
    """Log orders, many to a line: with a line each, journald's rate limit would drop some."""
    start = octets = 0
    for index, row in enumerate(rows):
        # Their names, quotes and commas take less than 40 octets.
        size = 40 + _octets(row[0]) + (_octets(row[4]) if row[4] else 0)
        if octets + size > LOG_OCTETS:
            _log_line(what, rows[start:index])
            start, octets = index, 0
        octets += size
    if rows:
        _log_line(what, rows[start:])


def _octets(text: str) -> int:
    """Return how many octets a text takes in JSON, at most."""
    return len(text) * (2 if text.isascii() and text.isprintable() else 12)


def _log_line(what: str, rows: list[Row]) -> None:
    orders = [{"id": row[0], "correlation_id": row[4]} if row[4] else {"id": row[0]} for row in rows]
    redelivered = sum(row[5] for row in rows) or None
    log.info(what, extra=fields(count=len(rows), redelivered=redelivered, orders=orders))
