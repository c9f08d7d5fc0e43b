"""The ledger of a fleet: saved by pg_dump, and put back by pg_restore and psql. For Python 3.9 and later."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ansible.module_utils.backup_archive import DUMP, extract, moment_name
from ansible.module_utils.backup_user import private_directory
from ansible.module_utils.postgresql_host import USER, Host
from ansible.module_utils.server_files import RefusedError, group_of, user_of

_LOSS = "orders would be lost"  # what the transaction says that puts the ledger back and finds orders of later on
_COPY = re.compile(r"COPY dispatch\.orders (\(.*\)) FROM stdin;\n")
_SURPLUS = "FROM dispatch.orders AS one WHERE NOT EXISTS (SELECT FROM saved WHERE saved.id = one.id)"
_COUNTS = f"""SELECT (SELECT count(*) FROM saved),
  (SELECT count(*) FROM saved WHERE NOT EXISTS (SELECT FROM dispatch.orders AS o WHERE o.id = saved.id)),
  (SELECT count(*) {_SURPLUS}),
  (SELECT string_agg(id, ', ') FROM (SELECT id {_SURPLUS} ORDER BY seq DESC LIMIT 3) AS few);
"""  # noqa: S608 - all parts are ours
_REFUSE = f"""DO $$ BEGIN IF EXISTS (SELECT {_SURPLUS}) THEN RAISE EXCEPTION '{_LOSS}'; END IF; END $$;
"""
_LOCK = "LOCK TABLE dispatch.orders, dispatch.unannounced IN ACCESS EXCLUSIVE MODE;\n"
_EMPTY = "TRUNCATE dispatch.orders, dispatch.unannounced, dispatch.version;\n"


class Server(Host):  # type: ignore[misc]  # Ansible's import path hides its type
    """A host's PostgreSQL, one of whose databases has the ledger."""

    @property
    def takes_writes(self) -> bool:
        """Whether it runs and is no replica: a replica has what its primary has."""
        return bool(self.cluster and self.running and not self.cluster.standby)

    @property
    def major(self) -> int:
        """The server's major version. Raises RefusedError."""
        return int(self.sql("SHOW server_version_num")) // 10000

    def schema(self, database: str) -> int:
        """The version of the ledger's schema; 0 where there is none. Raises RefusedError."""
        if database not in self.sql("SELECT datname FROM pg_database").splitlines():
            return 0
        if self.ask(database, "-c", "SELECT to_regclass('dispatch.version') IS NOT NULL") != "t":
            return 0
        return int(self.ask(database, "-c", "SELECT version FROM dispatch.version"))

    def dump(self, database: str, target: Path) -> int:
        """Write the ledger to a file in a directory of the server's own; return the number of orders.

        It is counted beside the dump, and orders go on being dispatched meanwhile. Raises RefusedError.
        """
        self.program("pg_dump", "--format=custom", "--schema=dispatch", f"--file={target}", f"--dbname={database}")
        return int(self.ask(database, "-c", "SELECT count(*) FROM dispatch.orders"))

    def ask(self, database: str, *words: str) -> str:
        """Have psql do what `words` say; return what it printed. Raises RefusedError."""
        return self.program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, *words).strip()

    def program(self, name: str, *words: str) -> str:
        """Run one of PostgreSQL's programs as the server's user; return what it printed. Raises RefusedError."""
        code, output, error = self._as_server([name, *words])
        if code:
            raise RefusedError(f"{name} failed. PostgreSQL says: {error.strip() or output.strip()}")
        return str(output)


class Restoration:
    """A server whose ledger is to be that of a backup."""

    def __init__(
        self, server: Server, database: str, archive: Path, manifest: Mapping[str, Any], overwrite: bool, host: str
    ) -> None:
        """Prepare; `overwrite` says whether orders that the backup lacks may be lost, `host` is the host's name."""
        self._server, self._database, self._archive, self._manifest = server, database, archive, manifest
        self._overwrite, self._host = overwrite, host

    def settle(self, check_mode: bool) -> list[str]:
        """Put the ledger back, where the server's lacks what was saved; return what was done. Raises RefusedError."""
        self._refuse_versions()
        user = user_of(USER), group_of(USER)
        with private_directory(user) as place:
            dump, script = place / DUMP, place / "data.sql"
            extract(self._archive, DUMP, dump, user)
            self._server.program("pg_restore", "--data-only", f"--file={script}", str(dump))
            comparing, putting = place / "compare.sql", place / "put.sql"
            _write(comparing, chain(_saved(script), [_COUNTS]), user)
            told = self._server.ask(self._database, "-f", str(comparing)).split("|")
            count, lacking, surplus = map(int, told[:3])
            if not lacking:
                return []
            if surplus and not self._overwrite:
                raise RefusedError(self._loss(count, lacking, surplus, told[3]))
            done = [f"put back the ledger of the database {self._database} with its {count} orders"]
            if check_mode:
                return done
            if surplus:
                done.append(f"kept the ledger that was there as {self._keep()}")
            unless = () if self._overwrite else chain(_saved(script), [_REFUSE])
            _write(putting, chain([_LOCK], unless, [_EMPTY]), user)
            try:
                self._server.ask(self._database, "-1", "-f", str(putting), "-f", str(script))
            except RefusedError as refused:
                if _LOSS in str(refused):
                    raise RefusedError(
                        f"Orders have been dispatched meanwhile that the backup {self._manifest['name']} lacks. Stop "
                        "Dispatch on its hosts, and run this again; nothing has changed."
                    ) from refused
                raise
        return done

    def _refuse_versions(self) -> None:
        saved, database = self._manifest["postgresql"], self._database
        if not self._server.takes_writes:
            raise RefusedError(
                "PostgreSQL does not run on this host, or is a replica, so no ledger can be put back. Run "
                "playbooks/postgresql.yml, or leave the host out by --limit; nothing has changed."
            )
        if self._server.major < saved["version"]:
            raise RefusedError(
                f"The backup is of PostgreSQL {saved['version']}, and this host has {self._server.major}, which can't "
                f"read it. Install PostgreSQL {saved['version']} or later; nothing has changed."
            )
        found = self._server.schema(database)
        if found != saved["schema"]:
            what = f"has the ledger's schema in version {found}" if found else "has no ledger's schema"
            raise RefusedError(
                f"The database {database} {what}, and the backup is of version {saved['schema']}. Run "
                "playbooks/postgresql.yml with the artifact of that time (postgresql_artifact); nothing has changed."
            )

    def _loss(self, count: int, lacking: int, surplus: int, examples: str) -> str:
        return (
            f"The ledger in the database {self._database} has {surplus} orders that the backup "
            f"{self._manifest['name']} lacks, such as {examples}, and lacks {lacking} of its {count}. If they may be "
            f"lost, name this host: -e backup_overwrite={shlex.quote(self._host)}, which keeps a copy of them; nothing "
            "has changed."
        )

    def _keep(self) -> Path:
        """Keep the ledger as it is in a file of the server's own; return its path."""
        path: Path = self._server.cluster.data.parent / f"dispatch-before-{moment_name(time.time())}.dump"
        path.touch(0o600, exist_ok=False)  # pg_dump itself would have everybody read it
        os.chown(path, user_of(USER), group_of(USER))
        self._server.dump(self._database, path)
        return path


def _saved(script: Path) -> Iterator[str]:
    """The statements that make the table `saved` of the orders in a script of pg_restore."""
    yield "CREATE TEMP TABLE saved (LIKE dispatch.orders);\n"
    with script.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if begun := _COPY.fullmatch(line):
                yield f"COPY saved {begun[1]} FROM stdin;\n"
                for row in lines:
                    yield row
                    if row == "\\.\n":
                        break
    yield "CREATE INDEX ON saved (id);\n"


def _write(path: Path, lines: Iterable[str], user: tuple[int, int]) -> None:
    with path.open("x", encoding="utf-8", newline="\n") as file:
        os.fchown(file.fileno(), *user)
        file.writelines(lines)
