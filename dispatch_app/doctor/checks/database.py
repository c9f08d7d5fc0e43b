"""The ledger of a fleet: can its database be reached and written, and is it as this release needs it?"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from functools import partial

from ...ledgers.port import REPLICA, SCHEMA, UNREACHABLE
from ..case import Case
from ..table import DATABASE, ERROR, HOST, WARNING, Check, Finding
from . import needs
from .fixes import provision

LAG_SECONDS = 30.0


def _in_the_way(kind: str, fix: Callable[[Case, str, str], Finding], case: Case) -> Finding | None:
    """What keeps the service from its ledger, where it is of this kind."""
    error = case.database.trouble if case.database else None
    if error is None or error.kind != kind:
        return None
    return fix(case, str(error), f"Orders can't be recorded, and wait: {error.remedy}.")


def _by_the_play(_: Case, evidence: str, cause: str) -> Finding:
    return provision(evidence, f"{cause} dispatch_ledger in the inventory has to say where the database is.")


def _by_migration(_: Case, evidence: str, cause: str) -> Finding:
    owner = "Where another role owns the database, name it with --owner ROLE --password-file FILE."
    return Finding(evidence, f"{cause} {owner}", "dispatch ledger migrate", HOST)


def database_locked(case: Case) -> Finding | None:
    if case.database is None:
        return None
    before = case.database.blocker()
    if before is None:
        return None
    time.sleep(0.5)  # a lock that comes and goes is none
    if case.database.blocker() != before:
        return None
    pid, who, mode = before
    ended = shlex.quote(f"SELECT pg_terminate_backend({pid})")
    return Finding(f"session {pid} ({who or 'unnamed'}) has locked the table of orders ({mode})",
                   "Orders can't be recorded, and wait, until that session ends its transaction.",
                   f"sudo -u postgres psql -c {ended}", DATABASE)  # fmt: skip


def database_lag(case: Case) -> Finding | None:
    seconds = case.database.lag() if case.database else None
    if seconds is None or seconds < LAG_SECONDS:
        return None
    return Finding(f"a replica is {seconds:.0f} s behind",
                   "What is dispatched now would be unknown to that replica if it had to take over: see to its "
                   "network, its disk and its load.",
                   "sudo -u postgres psql -c 'TABLE pg_stat_replication'", DATABASE)  # fmt: skip


_REACHED = (*needs.SET, "database-unreachable", "database-replica", "database-unready")
CHECKS = (
    Check("database-unreachable", "ledger", ERROR, "the ledger's database lets this host in",
          partial(_in_the_way, UNREACHABLE, _by_the_play), needs.SET),
    Check("database-replica", "ledger", ERROR, "the ledger's database takes writes",
          partial(_in_the_way, REPLICA, _by_the_play), needs.SET),
    Check("database-unready", "ledger", ERROR, "its schema and its rights are those that this release needs",
          partial(_in_the_way, SCHEMA, _by_migration), needs.SET),
    Check("database-locked", "ledger", ERROR, "nobody locks the table of orders", database_locked, _REACHED),
    Check("database-lag", "ledger", WARNING, "its replicas keep up", database_lag, _REACHED),
)  # fmt: skip
