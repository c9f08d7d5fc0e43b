"""Connections to the ledger's database, and in plain words why there is none.

All that a server or a network can do for a moment ends as an AwayError within a bounded time.
"""

from __future__ import annotations

import socket
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from ..database import Database
from .port import REPLICA, SCHEMA, UNREACHABLE, AwayError

Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_SECONDS = 5  # for one host
STATEMENT_SECONDS = 8  # after which the server gives a statement up; where it can't, `watch` ends the connection
_LOCK_SECONDS = 5
# A host that has gone without a word is noticed by this side and by the server, whose own defaults take two hours.
_KEEPALIVE = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "2"}
_SILENCE = 8000  # milliseconds for which what was sent may stay unacknowledged (tcp(7), TCP_USER_TIMEOUT)

_LOG = "look at the log of PostgreSQL"
_MIGRATE = "run `dispatch ledger migrate`"
# The first row counts of which a part stands in what PostgreSQL or libpq says, or which has the SQLSTATE.
_TROUBLES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("session is read-only", "could not make a writable connection", "25006"),
     "no server of {d} takes writes: what answers is a replica",
     "name the primary in DISPATCH_LEDGER, beside the replicas, or promote one of these"),
    (("password authentication failed", "no password supplied", "28P01"), "{d} refuses the password of {d.user}",
     "correct DISPATCH_LEDGER_PASSWORD or the credential ledger_password, or the user in DISPATCH_LEDGER"),
    (("no pg_hba.conf entry", "pg_hba.conf rejects"), "{d} does not let {d.user} in from this host",
     "add a line to the server's pg_hba.conf"),
    (("certificate verify failed", "root certificate file", "server certificate for", "self-signed certificate"),
     "the certificate of {d} is not trusted ({text})",
     "set DISPATCH_LEDGER_CA to the CA that signed it, and name the host as the certificate does"),
    (("does not support SSL",), "{d} does not speak TLS",
     "turn `ssl` on in the server's configuration"),
    (("failed to resolve host", "could not translate host name"), "a host name of {d} can't be resolved ({text})",
     "correct DISPATCH_LEDGER or this host's DNS"),
    (("3D000",), "there is no database {d.name} at {d}", "create it, or correct DISPATCH_LEDGER"),
    (("42P01", "3F000"), "the database {d} has no ledger", _MIGRATE),
    (("42501",), "{d.user} lacks a right at {d} ({text})", f"{_MIGRATE}, which grants it"),
    (("Connection refused",), "{d} refuses connections", "see that PostgreSQL runs there, and that the port is right"),
    (("timeout expired", "connection timeout"), "{d} doesn't answer",
     "see that PostgreSQL runs there, and that no firewall or security group is in the way"),
    (("starting up", "shutting down", "in recovery mode", "57P"), "{d} is starting, or shutting down ({text})",
     "nothing to do if somebody has just restarted it"),
    (("57014", "55P03"), "{d} takes too long ({text})", "look at its load, and at its locks in pg_stat_activity"),
    (("53100",), "the disk of {d} is full", "free space there"),
    (("53300", "too many connections", "remaining connection slots"), "{d} takes no more connections",
     "raise max_connections, or the user's connection limit"),
)  # fmt: skip
# By the SQLSTATE in such a row.
_KINDS = {REPLICA: ("25006",), SCHEMA: ("3F000", "42501")}


def connect(database: Database, seconds: float = STATEMENT_SECONDS) -> Connection:
    """Return a connection to a server that takes writes; each statement is a transaction. Raises AwayError.

    A statement may take `seconds`; a transaction counts as committed once the server has synced it.
    """
    settings = {
        "statement_timeout": f"{seconds:.0f}s", "lock_timeout": f"{_LOCK_SECONDS}s", "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": "60s", "timezone": "UTC",
        **{f"tcp_{name}": value for name, value in _KEEPALIVE.items()},
    }  # fmt: skip
    try:
        where = make_conninfo(
            **database.parameters(), **_KEEPALIVE, target_session_attrs="read-write",
            connect_timeout=CONNECT_SECONDS, tcp_user_timeout=_SILENCE, client_encoding="utf8",
            application_name=f"dispatch {socket.gethostname()}"[:63],
            options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
        )  # fmt: skip
        return psycopg.connect(where, autocommit=True)
    except psycopg.Error as error:
        raise away(error, database) from error


def away(error: psycopg.Error, database: Database) -> AwayError:
    """Return in plain words why the database can't be used."""
    text = " ".join(str(error).split())
    state = error.sqlstate or ""
    for parts, cause, remedy in _TROUBLES:
        if any(part in text or state.startswith(part) for part in parts):
            kind = next((kind for kind, states in _KINDS.items() if parts[-1] in states), UNREACHABLE)
            return AwayError(cause.format(d=database, text=text), remedy, kind)
    if f'database "{database.name}" does not exist' in text:
        return AwayError(f"there is no database {database.name} at {database}", "create it, or correct DISPATCH_LEDGER")
    return AwayError(f"{database}: {text or type(error).__name__}", _LOG)


def one_row(conn: Connection, query: Any, given: Any = None, prepare: bool | None = None) -> tuple[Any, ...]:
    """Return the row of a query that has one. Raises psycopg.Error."""
    row = conn.execute(query, given, prepare=prepare).fetchone()
    assert row  # noqa: S101 - such is the query
    return row
