"""What the doctor reads of a host: the unit and its settings, the release, the process, the ledger, the disk.

Runs on Python 3.9, the platform's own on RHEL 9 and Amazon Linux 2023, and needs no working release. It only reads.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from . import settings as configuration

NAME, USER = "dispatch", "roboshop"
OLDEST_PYTHON = (3, 10)
UNIT = Path(f"/etc/systemd/system/{NAME}.service")
# The first line of what the role app_service renders.
OURS = "# Written by the role app_service"

_PROPERTIES = (
    "LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus", "MainPID",
    "NeedDaemonReload", "FragmentPath", "DropInPaths", "StatusText", "ExecMainStartTimestampMonotonic",
)  # fmt: skip
_QUICK_CHECK_SECONDS = 1.5  # of a large ledger only so much is read
_WRITE_LOCK = 120  # octet of the -shm file that the one writer of a log locks (sqlite.org/walformat.html, 2.3)


class Done(NamedTuple):
    """How a command ended: its exit code (None: it did not start or took too long) and all it printed."""

    code: int | None
    output: str

    @property
    def last_line(self) -> str:
        return self.output.strip().rpartition("\n")[2].strip()


def run(*command: str, user: pwd.struct_passwd | None = None, cwd: Path | None = None, seconds: float = 4) -> Done:
    """Run a command, as another user if one is given; never raises for what it does."""
    become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    try:
        done = subprocess.run(  # noqa: S603 - commands are the doctor's own, no shell
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=seconds, check=False, env={**os.environ, "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"},
            **become,  # type: ignore[call-overload]
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Done(None, str(error))
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"))


def directives(text: str, into: dict[str, list[str]]) -> None:
    """Add the directives of a unit's [Service] section; an empty assignment forgets those before (systemd.unit(5))."""
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and not line.startswith(("#", ";")) and "=" in line:
            name, _, value = (part.strip() for part in line.partition("="))
            if value:
                into.setdefault(name, []).append(value)
            else:
                into.pop(name, None)


def words(text: str) -> list[str]:
    """Split as a shell does; text that it would refuse is one word."""
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _pair(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def assignments(text: str) -> dict[str, str]:
    """Return the variables of an environment file (systemd.exec(5), EnvironmentFile=)."""
    found = {}
    for line in re.sub(r"\\\n", "", text).splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            found[name.strip()] = " ".join(words(value))
    return found


class Lock(NamedTuple):
    """A write lock somebody else holds on the ledger."""

    pid: int
    command: str


class Host:
    """One host; each thing is read when it is first asked for."""

    def __init__(self) -> None:
        self.hostname = socket.gethostname()
        self.counters = self._counters()  # at the start, to see later whether they move
        self.counted_at = time.monotonic()

    # -- the unit ---------------------------------------------------------------------

    @cached_property
    def unit(self) -> Mapping[str, str]:
        """What systemd says of the unit, by property; waits a moment for a start that is under way."""
        deadline = time.monotonic() + 2.5
        while True:
            done = run("systemctl", "show", f"{NAME}.service", f"--property={','.join(_PROPERTIES)}")
            found = dict.fromkeys(_PROPERTIES, "")
            found.update((name, value) for name, equals, value in map(_pair, done.output.splitlines()) if equals)
            starting = found["SubState"] in ("start-pre", "start") and found["NRestarts"] == "0"
            if not starting or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    @cached_property
    def starting(self) -> bool:
        """Whether the service has been started just now, and not by systemd after a crash."""
        return self.unit["NRestarts"] == "0" and self.uptime < (10 if self.unit["ActiveState"] == "activating" else 2)

    @property
    def uptime(self) -> float:
        """Seconds since the service's process was started."""
        started = int(self.unit["ExecMainStartTimestampMonotonic"] or 0) / 1e6
        return time.clock_gettime(time.CLOCK_MONOTONIC) - started if started else 0.0

    @cached_property
    def fragment(self) -> Path:
        """The unit's file."""
        return Path(self.unit["FragmentPath"] or UNIT)

    @cached_property
    def drop_ins(self) -> list[str]:
        """Files that change the unit, none of which the roles write."""
        return self.unit["DropInPaths"].split()

    @cached_property
    def unit_text(self) -> str:
        with contextlib.suppress(OSError):
            return self.fragment.read_text(encoding="utf-8", errors="replace")
        return ""

    @cached_property
    def ours(self) -> bool:
        """Whether the roles have provisioned this host."""
        return self.unit_text.startswith(OURS)

    @cached_property
    def service(self) -> Mapping[str, list[str]]:
        """The directives of [Service], as the files have them now."""
        found: dict[str, list[str]] = {}
        directives(self.unit_text, found)
        for path in self.drop_ins:
            with contextlib.suppress(OSError):
                directives(Path(path).read_text(encoding="utf-8", errors="replace"), found)
        return found

    def directive(self, name: str) -> str:
        """The last value of a directive, or an empty string."""
        return self.service.get(name, [""])[-1]

    @property
    def pid(self) -> int:
        return int(self.unit["MainPID"] or 0)

    @cached_property
    def active(self) -> bool:
        return self.unit["ActiveState"] == "active"

    @cached_property
    def journal(self) -> list[str]:
        """The last lines of the service's journal."""
        return run("journalctl", f"--unit={NAME}", "--lines=200", "--output=cat", "--no-pager").output.splitlines()

    # -- the user and the release -----------------------------------------------------

    @cached_property
    def user(self) -> pwd.struct_passwd | None:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(self.directive("User") or "root")
        return None

    @cached_property
    def executable(self) -> Path:
        """What ExecStart= runs, without the prefixes that systemd.service(5) allows."""
        return Path((words(self.directive("ExecStart").lstrip("@-:+!")) or [""])[0])

    @cached_property
    def venv(self) -> Path | None:
        """The venv ExecStart= runs Python from, whether or not it is there."""
        place = self.executable.parent
        if self.executable.name.startswith("python") and place.name == "bin" and not str(place).startswith("/usr"):
            return place.parent
        return None

    @cached_property
    def home(self) -> Path:
        """Where the code stands: the working directory, or the directory of the executable."""
        return Path(self.directive("WorkingDirectory").lstrip("-") or (self.venv or self.executable).parent)

    @cached_property
    def release(self) -> Path:
        """The directory `home` leads to."""
        return Path(os.path.realpath(self.home))

    @cached_property
    def version(self) -> str | None:
        """The release's identifier where the roles have built it."""
        return self.release.name if (self.release / ".complete").exists() else None

    @cached_property
    def interpreter(self) -> Path:
        """The interpreter behind the venv: the end of its chain of links."""
        return Path(os.path.realpath(self.executable))

    @cached_property
    def new_interpreter(self) -> str | None:
        """The oldest of the host's interpreters that are new enough, for a new venv."""
        for minor in range(OLDEST_PYTHON[1], OLDEST_PYTHON[1] + 6):
            path = Path(f"/usr/bin/python3.{minor}")
            if os.access(path, os.X_OK):
                return str(path)
        return None

    @cached_property
    def import_failure(self) -> Done:
        """What becomes of importing, as the service's user, all the service needs."""
        modules = "import sqlite3, ssl, pika, prometheus_client, dispatch_app.service"
        return run(str(self.executable), "-c", modules, user=self.user, cwd=self.release)

    def may(self, test: str, path: Path) -> bool:
        """Whether the service's user passes one of test(1)'s tests: -r, -w or -x."""
        return run("test", test, str(path), user=self.user).code == 0

    def python(self, code: str) -> str:
        """What the program's Python prints, or an empty string where it fails."""
        done = run(str(self.executable), "-c", code)
        return done.output.strip() if done.code == 0 else ""

    # -- the settings -----------------------------------------------------------------

    @cached_property
    def environment_files(self) -> list[Path]:
        return [Path(value.lstrip("-")) for value in self.service.get("EnvironmentFile", [])]

    @cached_property
    def credentials(self) -> Mapping[str, Path]:
        """The files of LoadCredential=, by the credential's name."""
        pairs = (value.partition(":") for value in self.service.get("LoadCredential", []))
        return {name: Path(path) for name, _, path in pairs if path}

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """The variables the unit sets, without the credentials."""
        found: dict[str, str] = {}
        for value in self.service.get("Environment", []):
            found.update((name, text) for name, equals, text in map(_pair, words(value)) if equals)
        for path in self.environment_files:
            with contextlib.suppress(OSError):
                found.update(assignments(path.read_text(encoding="utf-8", errors="replace")))
        return found

    @cached_property
    def settings(self) -> configuration.Settings:
        """The settings the service would start with. Raises SettingsError."""
        found = dict(self.environment)
        for name, path in self.credentials.items():
            variable = "AMQP_PASS" if name == configuration.CREDENTIAL else name.upper()
            with contextlib.suppress(OSError, UnicodeDecodeError):
                secret = path.read_text(encoding="utf-8").removesuffix("\n")
                found.setdefault(variable, secret if variable == "AMQP_PASS" else str(path))
        return configuration.load(found)

    @cached_property
    def stale(self) -> list[str]:
        """What has changed since the running process was started: names of variables, credentials, or the release."""
        process = Path(f"/proc/{self.pid}")
        try:
            raw = (process / "environ").read_bytes().decode("utf-8", "replace")
            cwd = os.path.realpath(process / "cwd")
        except OSError:
            return []
        running = {name: value for name, equals, value in map(_pair, raw.split("\0")) if equals}
        ours = re.compile("AMQP_|DISPATCH_")
        names = {name for name in (*running, *self.environment) if ours.match(name)}
        changed = sorted(name for name in names if running.get(name) != self.environment.get(name))
        copies = Path(running.get("CREDENTIALS_DIRECTORY") or "/nowhere")
        for name, path in sorted(self.credentials.items()):
            with contextlib.suppress(OSError):
                if (copies / name).read_bytes() != path.read_bytes():
                    changed.append(name)
        if self.directive("WorkingDirectory") and cwd != str(self.release):
            changed.append("the release")
        return changed

    # -- the state --------------------------------------------------------------------

    @cached_property
    def state(self) -> Path | None:
        """The service's state directory; None where the unit asks for none."""
        names = words(self.directive("StateDirectory"))
        return Path("/var/lib", names[0]) if names else None

    @cached_property
    def ledger(self) -> Path | None:
        return self.state / "ledger.db" if self.state else None

    @cached_property
    def state_mount(self) -> str:
        """Where the file system of the state directory is mounted."""
        path = self.state or Path("/")
        while not os.path.ismount(path):
            path = path.parent
        return str(path)

    def ledger_problem(self) -> str | None:
        """What SQLite finds wrong with the ledger's file; reads it for at most a moment."""
        if not (self.ledger and self.ledger.exists()):
            return None
        # Without a log nobody writes, and `immutable` keeps SQLite from making files of its own (sqlite.org/uri.html).
        mode = "mode=ro" if Path(f"{self.ledger}-wal").exists() else "mode=ro&immutable=1"
        deadline = time.monotonic() + _QUICK_CHECK_SECONDS
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{quote(str(self.ledger))}?{mode}", uri=True, timeout=1)
            ) as db:
                db.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
                problem = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
                return None if problem == "ok" else problem
        except sqlite3.OperationalError:  # not about the file's content: busy, or the time is up
            return None
        except sqlite3.DatabaseError as error:
            return str(error)

    def ledger_lock(self) -> Lock | None:
        """Another process that holds the ledger's write lock, by /proc/locks (proc(5))."""
        wanted = {}
        for file in (self.ledger, Path(f"{self.ledger}-shm")) if self.ledger else ():
            with contextlib.suppress(OSError):
                wanted[str(file.stat().st_ino)] = file
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            part = line.replace("-> ", "").split()  # 1: POSIX ADVISORY WRITE 4711 08:01:1234 120 120
            path = wanted.get(part[5].rpartition(":")[2])
            if path is None or part[3] != "WRITE" or int(part[4]) in (0, self.pid, os.getpid()):
                continue
            if path == self.ledger or int(part[6]) <= _WRITE_LOCK <= (2**63 if part[7] == "EOF" else int(part[7])):
                command = run("ps", "-o", "args=", "-p", part[4]).last_line
                return Lock(int(part[4]), command or "unknown")
        return None

    @cached_property
    def disk(self) -> tuple[int, int]:
        """Octets and inodes that are left to the service. Raises OSError."""
        found = os.statvfs(self.state_mount)
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else 1 << 30

    # -- the process ------------------------------------------------------------------

    @cached_property
    def http(self) -> str:
        """Base URL of what the service answers about itself."""
        return f"http://{self.environment.get('DISPATCH_HTTP') or '127.0.0.1:9672'}"

    def ask(self, path: str) -> tuple[int, str]:
        """GET a path of the service; status 0 and the error where it does not answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.http + path, timeout=1) as answer:
                return int(answer.status), answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            return 0, str(error)

    def _counters(self) -> Mapping[str, float]:
        """The service's metrics by name, labels included; none where it does not answer."""
        status, text = self.ask("/metrics")
        lines = (line.rpartition(" ") for line in text.splitlines() if status == 200 and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def progress(self, seconds: float) -> bool | None:
        """Whether an order was worked off since the doctor began, `seconds` ago or more; None if it can't be told."""
        if not self.counters:
            return None
        time.sleep(max(0.0, self.counted_at + seconds - time.monotonic()))
        now = self._counters()
        counted = re.compile(r"dispatch_orders_(dispatched|duplicate|retried|dead)_total")
        return any(value != self.counters.get(name, 0) for name, value in now.items() if counted.match(name))

    @cached_property
    def package_manager(self) -> str:
        return "dnf" if shutil.which("dnf") else "apt-get"
