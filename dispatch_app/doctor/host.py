"""What the doctor reads of a host: the service's unit, its user, the release and the settings. It only reads."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from .. import settings as configuration
from .commands import Done, run
from .table import COMPLETE, NAME, OLDEST_PYTHON, LookError
from .units import assignments, changed, directives, words

UNIT = Path(f"/etc/systemd/system/{NAME}.service")
CONFIGURATION = Path("/etc", NAME)
# The first words of every file that the role app_service renders.
OURS = "# Written by the role app_service"

_PROPERTIES = (
    "LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus", "MainPID",
    "NeedDaemonReload", "FragmentPath", "DropInPaths", "StatusText", "ExecMainStartTimestampMonotonic",
)  # fmt: skip


def _pair(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _text(path: Path) -> str:
    """The text of a file, or none where it can't be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


class Host:
    """One host; each thing is read when it is first asked for."""

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
        """The files that add to the unit, in the order in which they count (systemd.unit(5))."""
        return self.unit["DropInPaths"].split()

    @cached_property
    def unit_text(self) -> str:
        return _text(self.fragment)

    @cached_property
    def ours(self) -> bool:
        """Whether the roles have provisioned this host."""
        return self.unit_text.startswith(OURS)

    @cached_property
    def foreign(self) -> bool:
        """Whether the roles run another program here, such as the Go original; its release's id says so."""
        return self.ours and re.search(r"-(go[0-9][0-9.]*|binary)$", self.version or "") is not None

    @cached_property
    def service(self) -> Mapping[str, list[str]]:
        """The directives of [Service], as the files have them now."""
        found: dict[str, list[str]] = {}
        directives(self.unit_text, found)
        for path in self.drop_ins:
            directives(_text(Path(path)), found)
        return found

    @cached_property
    def overriding(self) -> Mapping[str, list[str]]:
        """The drop-ins that change the unit, and of those for services at large the directives that they change."""
        found: dict[str, list[str]] = {}
        texts = {path: _text(Path(path)) for path in self.drop_ins}
        given_back = ""
        for path, text in reversed(texts.items()):
            if text.startswith(OURS):
                given_back = text + given_back
                continue
            site_wide = Path(path).parent.name != UNIT.name + ".d"
            names = changed(self.unit_text, f"{text}\n{given_back}") if site_wide else []
            if names or (text and not site_wide):  # one without text only hides another of its name
                found[path] = names
        return dict(reversed(found.items()))

    def directive(self, name: str) -> str:
        """Return the last value of a directive, or an empty string."""
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
        return self.release.name if (self.release / COMPLETE).exists() else None

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
        """What becomes of importing all the service needs, as its user."""
        modules = "import sqlite3, ssl, pika, prometheus_client, dispatch_app.service"
        if self.shares_ledger:
            modules += ", psycopg"
        return self._as_user(str(self.executable), "-B", "-c", modules, cwd=self.release)

    def may(self, test: str, path: Path) -> bool:
        """Whether the service's user passes one of test(1)'s tests: -r, -w or -x."""
        return self._as_user("test", test, str(path)).code == 0

    def python(self, code: str) -> str:
        """Return what the program's Python prints, or an empty string where it fails."""
        done = self._as_user(str(self.executable), "-I", "-B", "-c", code)
        return done.output.strip() if done.code == 0 else ""

    def _as_user(self, *command: str, cwd: Path | None = None) -> Done:
        """Run what the service could have written as the service's user, never as root. Raises LookError."""
        if self.user is None:
            raise LookError(f"there is no user {self.directive('User')}")
        return run(*command, user=self.user, cwd=cwd)

    @cached_property
    def on_ec2(self) -> bool:
        """Whether this is an EC2 instance, and no container on one (AWS, "Identify EC2 instances")."""
        names = (_text(Path("/sys/class/dmi/id", name)).strip() for name in ("sys_vendor", "board_vendor"))
        return "Amazon EC2" in names and not Path("/run/systemd/container").exists()

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
            found.update(assignments(_text(path)))
        return found

    @property
    def shares_ledger(self) -> bool:
        """Whether the ledger is in a database."""
        return bool(self.environment.get("DISPATCH_LEDGER"))

    @cached_property
    def settings(self) -> configuration.Settings:
        """The settings the service would start with. Raises SettingsError."""
        found = dict(self.environment)
        for name, path in self.credentials.items():
            variable = configuration.SECRETS.get(name)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                secret = path.read_text(encoding="utf-8").removesuffix("\n")
                found.setdefault(variable or name.upper(), secret if variable else str(path))
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
        found = sorted(name for name in names if running.get(name) != self.environment.get(name))
        # Not where the process's environment says: that is memory which the process can write.
        copies = Path("/run/credentials", f"{NAME}.service")
        for name, path in sorted(self.credentials.items()):
            with contextlib.suppress(OSError):
                if (copies / name).read_bytes() != path.read_bytes():
                    found.append(name)
        if self.directive("WorkingDirectory") and cwd != str(self.release):
            found.append("the release")
        return found
