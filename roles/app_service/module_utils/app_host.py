"""Looks at a host: files, an account, packages, a unit, and whether its service is ready. It only reads."""

from __future__ import annotations

import base64
import functools
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
PASSWD = Path("/etc/passwd")
SHADOW = Path("/etc/shadow")
# Each prints the status and the name of every package it knows, one to a line.
QUERIES = {
    "apt": ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"],
    "dnf": ["rpm", "--query", "--queryformat=installed %{NAME}\n"],
}
ANSWER_SECONDS = 2


class CommandError(Exception):
    """A command failed; the message holds the command and its output."""


def run(*command: str) -> str:
    """What a command prints. Raises CommandError."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise CommandError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def content(file: Mapping[str, Any]) -> bytes:
    """The wanted content of a file: its `content`, which is text, or its `secret`, which is base64.

    Ansible masks a secret's value wherever it appears in a module's answer. A password such as "app" would mask
    paths; its base64 appears in none.
    """
    return base64.b64decode(file["secret"]) if "secret" in file else str(file["content"]).encode()


def differences(path: Path, wanted: Mapping[str, Any]) -> list[str]:
    """How a file differs from what is wanted; without a wanted content or secret, it is a directory."""
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
    """A user's comment and shell, and whether its password is locked; None where there is no such user.

    ``foreign`` is there, and true, where the user comes from elsewhere than passwd(5), such as LDAP: usermod(8) can't
    change it, so it is used as it is.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    hashed = entry.pw_passwd
    if hashed == "x":  # passwd(5): the hash stands in shadow(5)
        shadowed = _column(SHADOW, name)
        # An empty hash lets the user in without a password. Without a line, no password does.
        hashed = "!" if shadowed is None else shadowed
    found = {"comment": entry.pw_gecos, "shell": entry.pw_shell, "locked": hashed.startswith("!")}
    return found if _column(PASSWD, name) is not None else {**found, "foreign": True}


def _column(file: Path, name: str) -> str | None:
    """The second column of a user's line in passwd(5) or shadow(5); None where there is no such line."""
    lines = text(file).splitlines()
    return dict(line.split(":", 2)[:2] for line in lines if ":" in line).get(name)


def group_exists(name: str) -> bool:
    """Whether there is a group of this name."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def missing_packages(names: Iterable[str]) -> list[str]:
    """Those of `names` that are not installed."""
    names = list(names)
    query = QUERIES["apt" if shutil.which("apt-get") else "dnf"]
    # The query fails where it does not know one package, and still names the others.
    lines = subprocess.run([*query, *names], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    installed = {line[len("installed ") :] for line in lines.splitlines() if line.startswith("installed ")}
    return [name for name in names if name not in installed]


def text(path: Path) -> str:
    """The text of a file, or "" if there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def unit(name: str, *names: str) -> dict[str, str]:
    """Properties of a unit, by name; empty where no systemd runs that could answer."""
    try:
        shown = run("systemctl", "show", name, f"--property={','.join(names)}")
    except CommandError:
        return {}
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


@functools.cache
def systemd_version() -> float:
    """The version of the host's systemd, such as 252; infinite where that can't be told."""
    try:
        return float(run("systemctl", "--version").split()[1])
    except (CommandError, OSError, IndexError, ValueError):
        return float("inf")


def enabled(name: str) -> bool:
    """Whether a unit starts at boot. This needs no running systemd."""
    done = subprocess.run(
        ["systemctl", "is-enabled", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout.strip() == "enabled"


def not_ready(url: str) -> str:
    """Why a service isn't ready, asked at an http URL that answers 200 once it is; "" if it is ready or has no URL."""
    if not url:
        return ""
    # Importing http.client takes longer than all the rest, and most runs change nothing, so this speaks HTTP itself.
    try:
        parts = urlsplit(url)
        with socket.create_connection((str(parts.hostname), parts.port or 80), ANSWER_SECONDS) as connection:
            connection.sendall(f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            with connection.makefile("r", errors="replace") as answer:
                head, _, said = answer.read(4096).partition("\n\n")
    except (OSError, ValueError) as error:  # ValueError comes from a port that is no number
        return f"{url} does not answer: {error}"
    status = head.partition("\n")[0].strip()
    if status.split()[1:2] == ["200"]:
        return ""
    return f"{url} answers {status or 'nothing'}: {said.strip()}"
