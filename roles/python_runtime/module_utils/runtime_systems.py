"""Looks up, in a table of systems, which interpreter and packages this system needs.

The keys are ``<ID>-<major version>`` of os-release(5), the system's own or those of one that it is like, so that Rocky,
Alma and CentOS Stream need no row beside rhel's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OS_RELEASE = Path("/etc/os-release")
Table = Mapping[str, Mapping[str, Any]]


class UnsupportedSystemError(Exception):
    """The system is not in the table; the message names it, and what the table holds."""


@dataclass(frozen=True)
class Runtime:
    """What a system calls its runtime: the interpreter's absolute path, the packages, and what installs them."""

    interpreter: str
    packages: list[str]
    manager: str  # apt or dnf
    compiler: list[str] = field(default_factory=list)  # the packages that build what has no wheel

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def this_system(systems: Table) -> Runtime:
    """The runtime of the system this runs on. Raises UnsupportedSystemError, and OSError without an os-release(5)."""
    return choose(OS_RELEASE.read_text(encoding="utf-8", errors="replace"), systems)


def choose(os_release: str, systems: Table) -> Runtime:
    """The runtime of the system that `os_release`, the text of its os-release(5), describes.

    Raises UnsupportedSystemError.
    """
    values = dict(re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?\r?$""", os_release, re.MULTILINE))
    # os-release(5) lists the systems that this one is like with the closest one first.
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    major = values.get("VERSION_ID", "").partition(".")[0]
    for name in names:
        row = systems.get(f"{name}-{major}")
        if row is not None:
            manager = "apt" if "debian" in names else "dnf"
            packages, compiler = (list(row.get(kind, [])) for kind in ("packages", "compiler"))
            return Runtime(str(row["interpreter"]), packages, manager, compiler)
    name, supported = values.get("PRETTY_NAME", "This system"), ", ".join(sorted(systems))
    raise UnsupportedSystemError(
        f"{name} is not a supported system. Supported: {supported} (rhel covers Rocky, Alma and CentOS Stream, too). "
        "Use one of these, or describe yours in the variable python_runtime_systems."
    )
