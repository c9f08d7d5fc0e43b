"""Log records: one JSON object per line for machines, plain text on a terminal."""

from __future__ import annotations

import logging
import os
import sys

from .moments import iso
from .printable import escaped, to_json

log = logging.getLogger("dispatch")

# Syslog's priorities; journald reads them from "<n>" in front of a line (sd-daemon(3)).
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4}


class Formatter(logging.Formatter):
    """Formats a record and its `fields`; times are UTC with milliseconds."""

    def __init__(self, text: bool, journal: bool) -> None:
        super().__init__()
        self._text, self._journal = text, journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text or as JSON."""
        message, extra = record.getMessage(), getattr(record, "fields", {})
        time = iso(record.created)
        if self._text:
            said = (time, record.levelname, message, *(f"{name}={value}" for name, value in extra.items()))
            return escaped(" ".join(said))
        line = to_json({"time": time, "level": record.levelname.lower(), "message": message, **extra})
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" if self._journal else line


def setup(level: str) -> None:
    """Log to standard error what is at least as grave as `level`.

    pika's own log is off: this service logs its failures, with their causes.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(sys.stderr.isatty(), "JOURNAL_STREAM" in os.environ))
    log.addHandler(handler)
    log.setLevel(level.upper())
    log.propagate = False
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return the `extra=` argument of a log call; fields that are None are left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}
