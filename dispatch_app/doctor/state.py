"""What the doctor reads of the service's state: its directory, the ledger, the disk."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import re
import sys
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..suspects import MEMORY
from .commands import run
from .host import Host
from .units import words

_WRITE_LOCK = 120  # octet of the -shm file that the one writer of a log locks (sqlite.org/walformat.html, 2.3)


class Lock(NamedTuple):
    """A write lock that another process holds on the ledger."""

    pid: int
    command: str


class State:
    """The service's state directory and what is in it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @cached_property
    def directory(self) -> Path | None:
        """The service's state directory; None where the unit asks for none."""
        names = words(self._host.directive("StateDirectory"))
        return Path("/var/lib", names[0]) if names else None

    @cached_property
    def ledger(self) -> Path | None:
        return self.directory / "ledger.db" if self.directory else None

    @cached_property
    def mount(self) -> str:
        """Where the file system of the state directory is mounted."""
        path = self.directory or Path("/")
        while not os.path.ismount(path):
            path = path.parent
        return str(path)

    @cached_property
    def disk(self) -> tuple[int, int]:
        """Octets and inodes that are left to the service. Raises OSError."""
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else 1 << 30

    def problem(self) -> str | None:
        """Return what SQLite finds wrong with the ledger's file, or None."""
        user, program = self._host.user, pkgutil.get_data(__package__, "quick_check.py")
        if user is None or program is None or not (self.ledger and self.ledger.exists()):
            return None
        done = run(sys.executable, "-I", "-B", "-", str(self.ledger), user=user, text=program)
        return done.last_line or None if done.code == 0 else None

    def deaths(self) -> dict[str, int]:
        """Return how many processes died over which message; the service's user may have written anything there."""
        user, directory = self._host.user, self.directory
        if user is None or directory is None:
            return {}
        done = run("cat", str(directory / MEMORY), user=user)
        try:
            found = json.loads(done.output) if done.code == 0 else {}
            return {name: int(count) for name, count in found.items() if re.fullmatch("[0-9a-f]{32}", name)}
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def lock(self) -> Lock | None:
        """Return the write lock that another process holds on the ledger, by /proc/locks (proc(5))."""
        wanted = {}
        for file in (self.ledger, Path(f"{self.ledger}-shm")) if self.ledger else ():
            with contextlib.suppress(OSError):
                wanted[str(file.stat().st_ino)] = file
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            part = line.replace("-> ", "").split()  # 1: POSIX ADVISORY WRITE 4711 08:01:1234 120 120
            path = wanted.get(part[5].rpartition(":")[2])
            if path is None or part[3] != "WRITE" or int(part[4]) in (0, self._host.pid, os.getpid()):
                continue
            if path == self.ledger or int(part[6]) <= _WRITE_LOCK <= (2**63 if part[7] == "EOF" else int(part[7])):
                command = run("ps", "-o", "args=", "-p", part[4]).last_line
                return Lock(int(part[4]), command or "unknown")
        return None
