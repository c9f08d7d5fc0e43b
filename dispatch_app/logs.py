"""Log records: one JSON object a line for machines, plain text on a terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

log = logging.getLogger("dispatch")

# Priorities of syslog(3), which journald reads from "<n>" before a line (sd-daemon(3)).
_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "message", …fields}`; times are UTC with milliseconds."""

    def __init__(self, prefix: bool) -> None:
        """Put the syslog priority before each line if `prefix`."""
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=repr)
        return f"<{_PRIORITY.get(record.levelname, 6)}>{text}" if self._prefix else text


class TextFormatter(logging.Formatter):
    """`12:30:00 INFO    message name=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        text = f"{clock} {record.levelname:<8}{record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def setup() -> None:
    """Log to stderr. pika stays silent: each of its failures is logged here with its cause."""
    handler = logging.StreamHandler(sys.stderr)
    journal = bool(os.environ.get("JOURNAL_STREAM"))
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter(journal))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return `extra=` for a log call; None values are left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}
