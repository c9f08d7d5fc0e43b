"""The fleet's ledger: saved by PostgreSQL's own programs, and put back where it lacks orders."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ansible.module_utils
import pytest

from dispatch_app.database import Database
from dispatch_app.ledgers.postgresql import PostgresqlLedger
from tests.lab.ansible import ROOT
from tests.postgresql import Server

ansible.module_utils.__path__.append(str(ROOT / "roles" / "backup" / "module_utils"))

from ansible.module_utils import backup_database as module  # noqa: E402 - only now can it be found
from ansible.module_utils.backup_archive import DUMP, verified, write  # noqa: E402 - as above
from ansible.module_utils.server_files import RefusedError  # noqa: E402 - as above

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone becomes PostgreSQL's user")


class Fleet:
    """A database that has a ledger, as the module sees it from the server's host."""

    def __init__(self, server: Server, database: Database, root: Path) -> None:
        self.server, self.database, self.root = server, database, root
        self.name = database.uri.rpartition("/")[2].partition("?")[0]
        self.host = module.Server(self.run)
        self.host.cluster = SimpleNamespace(standby=False, data=root / "data")

    def run(self, words: list[str], environ_update: dict[str, str] | None = None, **_: Any) -> tuple[int, str, str]:
        where = {"PGHOST": str(self.server.directory), "PGPORT": str(self.server.port), "PGUSER": "postgres"}
        done = subprocess.run(
            words, cwd="/", env={**os.environ, **(environ_update or {}), **where}, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    def record(self, *ids: str) -> None:
        ledger = PostgresqlLedger(self.database, announcing=True)
        ledger.record([(one, "d'Arc\t\\", 1.5, 1, None, 0) for one in ids])
        ledger.close()

    def ids(self) -> list[str]:
        return [row[0] for row in self.server.sql("SELECT id FROM dispatch.orders ORDER BY seq", self.name)]

    def rows(self) -> list[tuple[Any, ...]]:
        return self.server.sql("SELECT * FROM dispatch.orders ORDER BY seq", self.name)

    def saved(self) -> Path:
        dump, archive = self.root / "dump", self.root / "archive"
        self.host.dump(self.name, dump)
        facts = {"version": self.host.major, "schema": self.host.schema(self.name)}
        write(archive, (0, 0), {"host": "db-1", "moment": 7, "name": "then", "postgresql": facts}, {DUMP: dump})
        return archive

    def restore(self, archive: Path, overwrite: bool = False, check_mode: bool = False, **facts: int) -> list[str]:
        manifest = verified(archive)
        manifest["postgresql"].update(facts)
        made = module.Restoration(self.host, self.name, archive, manifest, overwrite, "db-1")
        done: list[str] = made.settle(check_mode)
        return done

    def lose(self) -> None:
        """Have the ledger be as it is once playbooks/postgresql.yml has made it anew."""
        self.server.sql("TRUNCATE dispatch.orders, dispatch.unannounced RESTART IDENTITY", self.name)


@pytest.fixture
def fleet(postgresql: Server, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(module.Server, "running", True)
    # pytest's own directories are root's alone.
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    os.chown(tmp_path, pwd.getpwnam("postgres").pw_uid, -1)
    return Fleet(postgresql, database, tmp_path)


def test_a_ledger_made_anew_gets_its_orders_back_and_the_second_run_changes_nothing(fleet: Fleet) -> None:
    fleet.record("a", "b", "c")
    archive, before = fleet.saved(), fleet.rows()
    fleet.lose()
    done = [f"put back the ledger of the database {fleet.name} with its 3 orders"]
    assert fleet.restore(archive, check_mode=True) == done
    assert fleet.ids() == []
    assert fleet.restore(archive) == done
    assert fleet.rows() == before
    assert fleet.server.sql("SELECT count(*) FROM dispatch.unannounced", fleet.name) == [(3,)]
    assert fleet.server.sql("SELECT version FROM dispatch.version", fleet.name) == [(1,)]
    assert fleet.restore(archive) == []
    fleet.record("a", "later")
    assert fleet.ids() == ["a", "b", "c", "later"]
    assert fleet.restore(archive, overwrite=True) == []
    assert fleet.ids() == ["a", "b", "c", "later"]


def test_orders_that_the_backup_lacks_are_not_lost_unless_the_host_is_named(fleet: Fleet) -> None:
    fleet.record("a", "b")
    archive = fleet.saved()
    fleet.lose()
    fleet.record("b", "later")
    for check_mode in (True, False):
        with pytest.raises(RefusedError) as refused:
            fleet.restore(archive, check_mode=check_mode)
        for word in (
            "has 1 orders",
            "the backup then lacks",
            "such as later",
            "lacks 1 of its 2",
            "backup_overwrite=db-1",
        ):
            assert word in str(refused.value)
    assert fleet.ids() == ["b", "later"]
    _, kept = fleet.restore(archive, overwrite=True)
    assert fleet.ids() == ["a", "b"]
    copy = kept.removeprefix("kept the ledger that was there as ")
    assert b"later" in subprocess.run(["pg_restore", "--file=-", copy], check=True, capture_output=True).stdout
    assert Path(copy).stat().st_mode & 0o077 == 0


def test_an_order_that_is_dispatched_between_the_look_and_the_change_is_not_lost(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.record("a")
    archive = fleet.saved()
    fleet.lose()
    write_script = module._write

    def late(path: Path, *rest: Any) -> None:
        if path.name == "put.sql":
            fleet.record("late")
        write_script(path, *rest)

    monkeypatch.setattr(module, "_write", late)
    with pytest.raises(RefusedError, match="dispatched meanwhile"):
        fleet.restore(archive)
    assert fleet.ids() == ["late"]


def test_another_version_is_refused(fleet: Fleet) -> None:
    fleet.record("a")
    archive = fleet.saved()
    with pytest.raises(RefusedError, match=r"is of PostgreSQL 99, and this host has [0-9]+, which can't read it"):
        fleet.restore(archive, version=99)
    with pytest.raises(RefusedError, match="has the ledger's schema in version 1, and the backup is of version 2"):
        fleet.restore(archive, schema=2)
    fleet.server.sql("DROP SCHEMA dispatch CASCADE", fleet.name)
    with pytest.raises(RefusedError, match="has no ledger's schema, and"):
        fleet.restore(archive)
    assert fleet.host.schema("no_such_database") == 0


def test_a_replica_is_refused(fleet: Fleet) -> None:
    fleet.record("a")
    archive = fleet.saved()
    fleet.host.cluster.standby = True
    with pytest.raises(RefusedError, match="or is a replica"):
        fleet.restore(archive)
