"""Says what stands on a host, in one go: reads a question from standard input and prints the answer, both JSON.

Runs on the host, as root, with its own Python: ``python3 -c <this text>``. The question may hold secrets; the answer
says of a file only in what it differs from what is wanted, and what it holds where that is asked, too. It says nothing
of packages, an account or releases unless it is asked; asked to, it waits until the service is ready.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SELINUX = Path("/sys/fs/selinux/enforce")  # only where SELinux is enabled, see selinux(8)
# The packages that are installed, one name to a line.
QUERIES = {
    "apt": ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"],
    "dnf": ["rpm", "--query", "--queryformat=installed %{NAME}\n"],
}


def main() -> None:
    question = json.load(sys.stdin)
    answer: dict[str, Any] = {
        "paths": {path: differences(Path(path), wanted) for path, wanted in question["paths"].items()},
        "link": target(Path(question["link"])),
        "interrupted": Path(question["backup"]).exists(),
        "texts": {path: text(Path(path)) for path in question["texts"]},
        **service(question["unit"], question["ready_url"], question.get("within", 0)),
    }
    if "account" in question:
        answer["account"] = account(question["account"])
    if "packages" in question:
        answer["packages"] = packages(question["packages"])
    if "releases" in question:
        answer["complete"] = complete(Path(question["releases"]), question["stands"])
    print(json.dumps(answer))


def target(link: Path) -> str:
    """Where a symbolic link leads to, or nothing where it is none."""
    return str(link.readlink()) if link.is_symlink() else ""


def packages(names: list[str]) -> list[str]:
    """Those of the packages that are installed."""
    lines = run(*QUERIES["apt" if shutil.which("apt-get") else "dnf"], *names).splitlines()
    return [line.split(" ", 1)[1] for line in lines if line.startswith("installed ")]


def account(name: str) -> dict[str, Any] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    shadow = dict(line.split(":", 2)[:2] for line in Path("/etc/shadow").read_text().splitlines())
    return {
        "comment": entry.pw_gecos,
        "shell": entry.pw_shell,
        "locked": shadow.get(name, "").startswith("!"),
    }


def differences(path: Path, wanted: dict[str, str]) -> list[str]:
    """In what a file or, where no content is wanted, a directory is not as wanted."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ["missing"]
    is_kind = stat.S_ISREG if "content" in wanted else stat.S_ISDIR
    if not is_kind(found.st_mode):
        return ["another kind of file"]
    values = {
        "owner": owner(found.st_uid),
        "group": group(found.st_gid),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
    }
    if "setype" in wanted and SELINUX.exists():
        values["setype"] = os.getxattr(path, "security.selinux").decode().split(":")[2]
    unlike = [name for name, value in values.items() if wanted[name] != value]
    if "content" in wanted and path.read_bytes() != wanted["content"].encode():
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


def complete(releases: Path, script: str) -> list[str]:
    """The releases that are as they were built, by what roles/app_release/files/build.sh says of each."""
    built = [str(marker.parent) for marker in releases.glob("*/.complete")]
    return [path for path in built if subprocess.run(["sh", "-s", path], input=script, text=True).returncode == 0]


def text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def service(name: str, url: str, within: float) -> dict[str, Any]:
    """The state of a unit, and why it isn't ready, or nothing where it is; at the latest after so many seconds."""
    deadline = time.monotonic() + within
    while True:
        shown = run("systemctl", "show", name, "--property=UnitFileState,ActiveState")
        state = dict(line.split("=", 1) for line in shown.splitlines())
        active = state.get("ActiveState", "nothing of it")
        reason = (url and not_ready(url)) if active == "active" else f"systemd says {active}"
        if not reason or time.monotonic() >= deadline:
            return {"unit": state, "ready": reason}
        time.sleep(0.5)


def not_ready(url: str) -> str:
    """Why the service isn't ready, by an http URL that answers 200 where it is."""
    # By hand: to import http.client takes longer than all the rest, and most runs have nothing to change.
    parts, end = urlsplit(url), "\n\n"
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=2) as connection:
            connection.sendall(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            with connection.makefile("r", errors="replace") as answer:
                status, _, said = answer.read(4096).partition("\n")
    except (OSError, ValueError) as error:  # the latter of a port that is none
        return f"{url} does not answer: {error}"
    if status.split()[1:2] == ["200"]:
        return ""
    return f"{url} answers {status.strip()}: {said.partition(end)[2].strip()}"


def run(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


if __name__ == "__main__":
    main()
