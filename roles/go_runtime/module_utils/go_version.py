"""Which Go a host has or would get, and whether that is new enough for a module."""

from __future__ import annotations

import re
import subprocess


class GoVersionError(Exception):
    """The version of Go that the host would get can't be told; the message says what to do."""


def installed(compiler: str) -> str:
    """The version of a compiler, such as 1.19.8, or "" where it is not there or does not run."""
    said = _said([compiler, "version"], {"PATH": "/usr/bin:/bin", "HOME": "/", "GOTOOLCHAIN": "local", "GOENV": "off"})
    found = re.search(r"^go version go(\d+(?:\.\d+)+)", said)
    return found[1] if found else ""


def version(compiler: str, stated: str, package: str) -> str:
    """The major and minor version of Go on this host, or of the Go that `package` would bring.

    `stated` is the version that a distribution keeps for its whole life, or "" where it moves on: then dnf is asked.
    Raises GoVersionError.
    """
    found = installed(compiler) or stated
    if not found:
        query = ["dnf", "--quiet", "repoquery", "--latest-limit=1", "--queryformat=%{version}\n", package]
        found = _said(query, None).strip().partition("\n")[0]
    if not re.match(r"\d+\.\d+", found):
        raise GoVersionError(
            f"The version of Go that the package {package} would bring can't be told. Make the host's repositories "
            f"reachable (`dnf info {package}` has to answer), or state the version in the variable go_runtime_systems."
        )
    return ".".join(found.split(".")[:2])


def older(here: str, wanted: str) -> bool:
    """Whether a version of Go is older than the one that a go.mod asks for, "" for none.

    A version without its last number stands for any that begins with it.
    """
    ours, theirs = ([int(number) for number in one.split(".")] if one else [] for one in (here, wanted))
    length = min(len(ours), len(theirs))
    return ours[:length] < theirs[:length]


def too_old(here: str, wanted: str) -> str:
    """Why a module can't be built, and what to do."""
    return (
        f"its go.mod asks for Go {wanted}, and this host has Go {here}. Lower the line `go {wanted}` where the code "
        "allows that, take a system with a newer Go, or build the program elsewhere and zip the binary"
    )


def _said(command: list[str], environment: dict[str, str] | None) -> str:
    """What a command prints, "" where it fails."""
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError:
        return ""
    return "" if done.returncode else done.stdout
