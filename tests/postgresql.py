"""A PostgreSQL of the tests' own: a cluster in a directory that goes with it, on a Unix socket and a loopback port.

Where this machine has no server, Debian's is installed, as the lab installs its Docker engine.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from dispatch_app.database import Database, parse
from dispatch_app.ledgers.schema import migrate
from tests.lab import engine

OWNER, ROLE = "ledger_owner", "dispatch"
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
max_connections = 50
shared_buffers = '{buffers}'
max_wal_size = '2GB'
log_line_prefix = '%m %a '
lc_messages = 'C'
{more}
"""


class Server:
    """One cluster and its processes."""

    def __init__(self, copy_of: Server | None = None, buffers: str = "64MB", **settings: str) -> None:
        """Make the cluster, or else a replica of another one, and start it; `settings` are added to its configuration.

        Raises LabError where there is no server and none can be installed.
        """
        self._programs = programs()
        # Nobody runs a server as root; and pytest's own directories are root's alone.
        self._user = "postgres" if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="dispatch-postgresql-"))
        if self._user:
            shutil.chown(self.directory, self._user, self._user)
        self.data, self.log = self.directory / "data", self.directory / "log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        if copy_of:
            self.password = copy_of.password
            source = ("-h", str(copy_of.directory), "-p", str(copy_of.port), "-U", "postgres")
            self._run("pg_basebackup", "-D", str(self.data), "-R", "-X", "stream", "-c", "fast", *source)
        else:
            # By the socket anybody on this machine is whoever they say: that is how a test is the superuser.
            local, host = ("--auth-local", "trust"), ("--auth-host", "scram-sha-256")
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "-E", "UTF8", "--locale=C", *local, *host)
        more = "\n".join(f"{name} = '{value}'" for name, value in settings.items())
        text = _CONFIGURATION.format(port=self.port, sockets=self.directory, buffers=buffers, more=more)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(text)
        self.start()
        if not copy_of:
            for role in (OWNER, ROLE):
                self.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{self.password}'")

    def start(self) -> None:
        """Start the processes, and wait until they answer."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data], cwd=self.directory, stdout=log, stderr=log,
                **self._as_user,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.sql("SELECT 1")
                return
            assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]  # noqa: PT018
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all processes at once, as a power cut does."""
        self._signal(signal.SIGKILL)
        self._ended()

    def stop(self) -> None:
        """Stop: end all connections, and write what is in memory."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._ended()

    def freeze(self) -> None:
        """Have no process do anything, though the kernel still answers for them."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End a freeze."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop, and remove the cluster."""
        if self._process and self._process.poll() is None:
            self.thaw()
        self.stop()
        shutil.rmtree(self.directory)

    def create(self, name: str, migrated: bool = True) -> Database:
        """Create a database, with the ledger's schema if it is to be `migrated`; return it as the service's role."""
        self.sql(f"CREATE DATABASE {name} OWNER {OWNER}")
        database = self.database(name)
        if migrated:
            migrate(database, database.as_role(OWNER, self.password))
        return database

    def url(self, name: str, *others: Server) -> str:
        """Return the URL of a database here, and on `others`."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self, *others))
        return f"postgresql://{ROLE}@{hosts}/{name}?sslmode=disable"

    def database(self, name: str, *others: Server) -> Database:
        return parse(self.url(name, *others)).as_role(ROLE, self.password)

    def sql(self, statement: Any, name: str = "postgres", *values: object) -> list[tuple[Any, ...]]:
        """Have the superuser execute a statement; return the rows."""
        where = {"host": str(self.directory), "port": self.port, "dbname": name, "user": "postgres"}
        with psycopg.connect(autocommit=True, **where) as conn:  # type: ignore[arg-type]
            done = conn.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def processes(self) -> list[int]:
        """Return the ids of the server's processes, the main one first."""
        assert self._process
        main = self._process.pid
        return [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _ended(self) -> None:
        assert self._process
        self._process.wait(60)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [self._programs / program, *words], cwd=self.directory, capture_output=True, text=True, **self._as_user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def _as_user(self) -> dict[str, Any]:
        if not self._user:
            return {}
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}


def programs() -> Path:
    """Return where the newest server's programs are; where there is none, Debian's is installed. Raises LabError."""
    for _ in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
        if found:
            return found[-1].parent
        engine.install("postgresql")
    raise AssertionError("the package postgresql has no server")
