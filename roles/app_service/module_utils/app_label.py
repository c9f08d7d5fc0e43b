"""Has a relabel of the host keep the SELinux types below a home such as /app, which the policy does not know.

The home gets the types of /opt, by a line of SELinux's own file of equivalent paths: `semanage fcontext --add --equal`
writes the same one, and comes in a package that hosts need not have.
"""

from __future__ import annotations

import re
from pathlib import Path

from ansible.module_utils import app_host
from ansible.module_utils.app_disk import sync

SELINUX = Path("/etc/selinux")
LIKE = Path("/opt")


def missing(home: Path) -> bool:
    """Whether a relabel would take the home's type away."""
    home = home.resolve()
    if not app_host.SELINUX.exists() or home == LIKE or LIKE in home.parents:
        return False
    return _line(home) not in app_host.text(_file()).splitlines()


def add(home: Path) -> None:
    """Write the line that is missing. Raises OSError."""
    file = _file()
    separator = "" if app_host.text(file)[-1:] in ("", "\n") else "\n"
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{separator}{_line(home.resolve())}\n")
    file.chmod(0o644)
    sync(file)


def _line(home: Path) -> str:
    return f"{home} {LIKE}"


def _file() -> Path:
    """The file that libselinux reads for the policy in force (selinux_file_context_subs_path(3))."""
    policy = re.search(r"^\s*SELINUXTYPE\s*=\s*(\S+)", app_host.text(SELINUX / "config"), re.MULTILINE)
    return SELINUX / (policy[1] if policy else "targeted") / "contexts/files/file_contexts.subs"
