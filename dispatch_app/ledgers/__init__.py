"""The ledger: which orders have been dispatched. It is a file of the host's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import settings as configuration
from .port import Filter, Ledger
from .sqlite import SqliteLedger
from .sqlite import read as read_sqlite

NAME = "ledger.db"  # in the state directory


def opened(settings: configuration.Settings, directory: Path) -> Ledger:
    """Return the service's ledger, ready for use. Raises LedgerError."""
    return SqliteLedger(directory / NAME, bool(settings.event_exchange))


def read(env: Mapping[str, str], limit: int, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first. Raises SettingsError and LedgerError."""
    return read_sqlite(configuration.state_directory(env) / NAME, limit, wanted)
