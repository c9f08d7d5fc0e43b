"""The ledger: which orders have been dispatched. It is a file of the host's own, or a database of the whole fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import settings as configuration
from .port import Filter, Ledger, LedgerError

NAME = "ledger.db"  # in the state directory


def opened(settings: configuration.Settings, directory: Path) -> Ledger:
    """Return the service's ledger; a file is ready for use then, and a database may be away. Raises LedgerError."""
    announcing = bool(settings.event_exchange)
    if settings.ledger:
        made: Ledger = needing_libpq("postgresql").PostgresqlLedger(settings.ledger, announcing)
        return made
    from .sqlite import SqliteLedger

    return SqliteLedger(directory / NAME, announcing)


def read(env: Mapping[str, str], limit: int, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Yield dispatched orders, the newest first. Raises SettingsError, LedgerError and AwayError."""
    if database := configuration.ledger(env):
        yield from needing_libpq("postgresql").read(database, limit, wanted)
    else:
        from .sqlite import read as read_file

        yield from read_file(configuration.state_directory(env) / NAME, limit, wanted)


def needing_libpq(module: str) -> ModuleType:
    """Import one of the modules that need psycopg and libpq, which a host without a database has no use for.

    Raises LedgerError where they are missing.
    """
    from importlib import import_module

    try:
        return import_module(f".{module}", __name__)
    except ImportError as error:
        remedy = "install the distribution's libpq: libpq5 on Debian and Ubuntu, libpq on Red Hat"
        raise LedgerError(f"PostgreSQL can't be used ({' '.join(str(error).split())}); {remedy}") from error
