"""Each fault of a shared ledger that the doctor knows, on a real PostgreSQL."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from dispatch_app.database import Database
from dispatch_app.doctor import database as module
from dispatch_app.doctor.case import Case
from dispatch_app.doctor.checks import CHECKS
from dispatch_app.doctor.commands import Done
from dispatch_app.doctor.table import CONTROLLER, DATABASE, HOST, Finding, LookError
from dispatch_app.ledgers.schema import migrate
from tests.postgresql import OWNER, ROLE, Server

OURS = ("libpq-missing", "database-unreachable", "database-replica", "database-unready", "database-locked",
        "database-lag")  # fmt: skip


def case(database: Database | None, imported: str = "") -> Any:
    """A host whose ledger is in this database, and which has no other fault."""
    made = Case.__new__(Case)
    host: Any = SimpleNamespace(
        settings=SimpleNamespace(ledger=database), shares_ledger=bool(database), import_failure=Done(0, imported)
    )
    made.host = host
    return made


def look(database: Database | None) -> dict[str, Finding]:
    """Make the checks of a shared ledger as the doctor does: what a cause would hide is not looked at."""
    examined = case(database)
    found: dict[str, Finding] = {}
    for check in CHECKS:
        if check.id in OURS and not set(check.needs) & set(found) and (finding := check.look(examined)):
            found[check.id] = finding
    return found


def test_a_ledger_that_works_and_one_in_a_file_have_no_such_fault(database: Database) -> None:
    assert look(database) == {}
    assert look(None) == {}


def test_a_database_that_does_not_let_this_host_in(database: Database) -> None:
    for wrong in (database.as_role(ROLE, "x"), replace(database, name="elsewhere"), replace(database, ports=(1,))):
        (finding,) = look(wrong).values()
        assert (finding.where, finding.command) == (CONTROLLER, "ansible-playbook playbooks/dispatch.yml")
        assert database.password not in finding.evidence
        assert list(look(wrong)) == ["database-unreachable"]


def test_a_replica_that_is_given_as_the_primary(postgresql: Server, database: Database) -> None:
    replica = Server(copy_of=postgresql)
    try:
        found = look(replica.database(database.name))
        assert list(found) == ["database-replica"]
        assert "name the primary in DISPATCH_LEDGER" in found["database-replica"].cause
        assert look(replica.database(database.name, postgresql)) == {}
    finally:
        replica.remove()


@pytest.mark.parametrize("change", ["DROP SCHEMA dispatch CASCADE", f"REVOKE INSERT ON dispatch.orders FROM {ROLE}"])
def test_a_schema_that_does_not_fit_is_mended_by_a_migration(
    change: str, postgresql: Server, database: Database
) -> None:
    postgresql.sql(change, database.name)
    found = look(database)
    assert list(found) == ["database-unready"]
    assert (found["database-unready"].command, found["database-unready"].where) == ("dispatch ledger migrate", HOST)
    migrate(database, database.as_role(OWNER, database.password))
    assert look(database) == {}


def test_a_table_that_somebody_locks(postgresql: Server, database: Database) -> None:
    where = {"host": str(postgresql.directory), "port": postgresql.port, "dbname": database.name, "user": "postgres"}
    with psycopg.connect(**where, application_name="a report") as other:  # type: ignore[arg-type]
        other.execute("LOCK TABLE dispatch.orders IN SHARE MODE")
        finding = look(database)["database-locked"]
        assert "(a report) has locked the table of orders (ShareLock)" in finding.evidence
        words = shlex.split(finding.command)
        assert (words[:-1], finding.where) == (["sudo", "-u", "postgres", "psql", "-c"], DATABASE)
        postgresql.sql(words[-1])
        assert look(database) == {}
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


def test_a_replica_that_falls_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAG", "SELECT 3600.0::float8")
    finding = look(database)["database-lag"]
    assert (finding.evidence, finding.where) == ("a replica is 3600 s behind", DATABASE)


def test_a_host_without_libpq(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import ctypes.util; ctypes.util.find_library = lambda _: None; import psycopg"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr
    (check,) = [check for check in CHECKS if check.id == "libpq-missing"]
    finding = check.look(case(database, said))
    assert finding
    assert "apt-get install -y libpq5" in finding.command
    assert check.look(case(None, said)) is None
    # The doctor's own Python may lack it though the service's does not.
    monkeypatch.setitem(sys.modules, "dispatch_app.ledgers.schema", None)
    with pytest.raises(LookError, match="install the distribution's libpq"):
        look(database)
