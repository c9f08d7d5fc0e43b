"""What stands on a host: files, an account, packages, a unit and whether its service is ready. It only reads."""

from __future__ import annotations

import base64
import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BOOTED = Path("/run/systemd/system")  # sd_booted(3)
SELINUX = Path("/sys/fs/selinux/enforce")  # only where SELinux is enabled, see selinux(8)
SHADOW = Path("/etc/shadow")
# The packages that are installed, one name to a line.
QUERIES = {
    "apt": ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"],
    "dnf": ["rpm", "--query", "--queryformat=installed %{NAME}\n"],
}
ANSWER_SECONDS = 2


class CommandError(Exception):
    """A command failed; the message is the command and what it said."""


def run(*command: str) -> str:
    """What a command prints. Raises CommandError."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise CommandError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def content(file: Mapping[str, Any]) -> bytes:
    """What a file is to hold: its `content`, text, or its `secret`, which is base64.

    Ansible masks the value of a secret wherever it appears in a module's answer. In base64 that is no word of a path.
    """
    return base64.b64decode(file["secret"]) if "secret" in file else str(file["content"]).encode()


def differences(path: Path, wanted: Mapping[str, Any]) -> list[str]:
    """In what a file or, where neither content nor secret is wanted, a directory differs from what is wanted."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return ["missing"]
    is_file = "content" in wanted or "secret" in wanted
    if not (stat.S_ISREG if is_file else stat.S_ISDIR)(found.st_mode):
        return ["another kind of file"]
    values = {
        "owner": owner(found.st_uid),
        "group": group(found.st_gid),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
    }
    if "setype" in wanted and SELINUX.exists():
        values["setype"] = os.getxattr(path, "security.selinux").decode().split(":")[2]
    unlike = [name for name, value in values.items() if wanted.get(name, "root") != value]
    if is_file and path.read_bytes() != content(wanted):
        unlike.append("content")
    return unlike


def owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def account(name: str) -> dict[str, Any] | None:
    """A user's comment and shell, and whether its password is locked; None where there is no such user."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    lines = SHADOW.read_text(encoding="utf-8", errors="replace").splitlines()
    shadow = dict(line.split(":", 2)[:2] for line in lines if ":" in line)
    return {
        "comment": entry.pw_gecos,
        "shell": entry.pw_shell,
        "locked": shadow.get(name, "").startswith("!"),
    }


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed."""
    names = list(names)
    query = QUERIES["apt" if shutil.which("apt-get") else "dnf"]
    # It fails where one is unknown, and still names the others.
    lines = subprocess.run([*query, *names], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    installed = {line[len("installed ") :] for line in lines.splitlines() if line.startswith("installed ")}
    return [name for name in names if name not in installed]


def text(path: Path) -> str:
    """What a file holds, or "" where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def unit(name: str, *names: str) -> dict[str, str]:
    """Properties of a unit, by name; none of them where no systemd runs that could be asked."""
    try:
        shown = run("systemctl", "show", name, f"--property={','.join(names)}")
    except CommandError:
        return {}
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def enabled(name: str) -> bool:
    """Whether a unit starts at boot, told without a systemd that runs."""
    done = subprocess.run(
        ["systemctl", "is-enabled", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout.strip() == "enabled"


def not_ready(url: str) -> str:
    """Why a service isn't ready, by an http URL that answers 200 once it is; "" where it is ready or has no URL."""
    if not url:
        return ""
    # By hand: to import http.client takes longer than all the rest, and most runs have nothing to change.
    try:
        parts = urlsplit(url)
        with socket.create_connection((str(parts.hostname), parts.port or 80), ANSWER_SECONDS) as connection:
            connection.sendall(f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            with connection.makefile("r", errors="replace") as answer:
                head, _, said = answer.read(4096).partition("\n\n")
    except (OSError, ValueError) as error:  # the latter of a port that is none
        return f"{url} does not answer: {error}"
    status = head.partition("\n")[0].strip()
    if status.split()[1:2] == ["200"]:
        return ""
    return f"{url} answers {status or 'nothing'}: {said.strip()}"
