"""The types of the command line's arguments."""

from __future__ import annotations

from datetime import datetime, timezone


def moment(text: str) -> int:
    """Return ISO 8601 text as milliseconds since 1970; it is UTC unless it says otherwise. Raises ValueError."""
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp() * 1000)


def number(text: str) -> int:
    """Return a count. Raises ValueError."""
    value = int(text)
    if not 0 < value < 2**31:
        raise ValueError
    return value


def seconds(text: str) -> float:
    """Return a span of time, at most a day. Raises ValueError."""
    value = float(text)
    if not 0 <= value <= 86400:
        raise ValueError
    return value


# argparse names these types when it refuses a value.
moment.__name__, number.__name__, seconds.__name__ = "time", "number above 0", "number of seconds"
