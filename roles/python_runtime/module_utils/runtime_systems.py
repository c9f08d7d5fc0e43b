"""Looks up, in a table of systems, which interpreter or compiler and which packages this system needs.

The keys are ``<ID>-<major version>`` of os-release(5), the system's own or those of one that it is like, so that Rocky,
Alma and CentOS Stream need no row beside rhel's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible.module_utils import go_version

OS_RELEASE = Path("/etc/os-release")
Table = Mapping[str, Mapping[str, Any]]


class UnsupportedSystemError(Exception):
    """The system is not in the table; the message names it, and what the table holds."""


@dataclass(frozen=True)
class Runtime:
    """What a system calls its runtime: the absolute paths, the packages, and what installs them.

    A release is named by the interpreter, or by the version of the compiler.
    """

    interpreter: str = ""
    packages: list[str] = field(default_factory=list)
    manager: str = ""  # apt or dnf
    toolchain: list[str] = field(default_factory=list)  # the packages that build what has no wheel
    compiler: str = ""
    version: str = ""  # of the compiler, the major and the minor one

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def this_system(systems: Table, kind: str = "python", bare: bool = False) -> Runtime:
    """The runtime that a release of this kind needs on the system this runs on.

    A `bare` one has no pip and no ensurepip; that is enough for an artifact that carries pip.

    Raises UnsupportedSystemError, GoVersionError, and OSError without an os-release(5).
    """
    if kind == "binary":
        return Runtime()
    found = choose(OS_RELEASE.read_text(encoding="utf-8", errors="replace"), systems, kind, bare)
    if kind == "python":
        return found
    # The host's own compiler has the last word.
    return replace(found, version=go_version.version(found.compiler, found.version, (found.packages or ["golang"])[0]))


def choose(os_release: str, systems: Table, kind: str = "python", bare: bool = False) -> Runtime:
    """The row of the system that `os_release`, the text of its os-release(5), describes; `bare` is as above.

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
            rest: dict[str, Any] = {name: row[name] for name in ("interpreter", "compiler", "version") if name in row}
            packages, toolchain = (list(row.get(name, [])) for name in ("packages", "toolchain"))
            packages = list(row.get("bare", packages)) if bare else packages
            return Runtime(packages=packages, manager=manager, toolchain=toolchain, **rest)
    name, supported = values.get("PRETTY_NAME", "This system"), ", ".join(sorted(systems))
    raise UnsupportedSystemError(
        f"{name} is not a supported system. Supported: {supported} (rhel covers Rocky, Alma and CentOS Stream, too). "
        f"Use one of these, or describe yours in the variable {kind}_runtime_systems."
    )
