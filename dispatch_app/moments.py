"""Moments as the service writes them down."""

from __future__ import annotations

from datetime import datetime, timezone


def iso(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 text, in UTC with milliseconds, such as 2026-11-20T10:00:00.000Z."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
