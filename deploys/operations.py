"""The steps of the runbook as pyinfra operations.

Each operation compares what is wanted with what `facts.Answer` has found and yields commands where the two differ; it
asks the host nothing more.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

from pyinfra.api import StringCommand, operation

from deploys import programs
from deploys.desired import Values

Commands = Generator[StringCommand, None, None]

INSTALL = {
    "apt": "apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300",
    "dnf": "dnf install --assumeyes --setopt=install_weak_deps=False",
}


@operation()
def packages(manager: str, missing: Iterable[str]) -> Commands:
    """Install those of a distribution's packages that are missing, without those they merely recommend."""
    names = shlex.join(missing)
    if names and manager == "apt":
        # A fresh image has an index that is empty or out of date, so a failed install gets a second try.
        install = f"{INSTALL['apt']} {names}"
        yield StringCommand(f"export DEBIAN_FRONTEND=noninteractive; {install} || {{ apt-get update && {install}; }}")
    elif names:
        yield StringCommand(f"{INSTALL[manager]} {names}")


@operation()
def account(wanted: Values, found: Values | None, home: str, group: bool = False) -> Commands:
    """Create a system user, or correct its entry; the home of an existing user stays.

    `group` says whether its group exists, which useradd(8) would else refuse to create. A foreign user, of LDAP for
    example, is used as it is.
    """
    if found is None:
        entry = ["--comment", wanted["comment"], "--home-dir", home, "--shell", wanted["shell"]]
        entry += ["--gid", wanted["name"]] if group else []
        yield _command("useradd", "--system", "--no-create-home", *entry, wanted["name"])
        return
    if found.get("foreign"):
        return
    unlike = [key for key in ("comment", "shell") if found[key] != wanted[key]]
    entry = [word for key in unlike for word in (f"--{key}", wanted[key])] + ([] if found["locked"] else ["--lock"])
    if entry:
        yield _command("usermod", *entry, wanted["name"])


@operation()
def directory(wanted: Values, unlike: list[str]) -> Commands:
    """Create a directory, or correct its owner, mode and SELinux type."""
    if unlike:
        ownership = ["--owner", wanted["owner"], "--group", wanted["group"], "--mode", wanted["mode"]]
        yield _command("install", "--directory", *ownership, wanted["path"])
    if {"setype", "missing"} & set(unlike):
        label = _command("chcon", "--type", wanted["setype"], wanted["path"])
        yield StringCommand("[ ! -e /sys/fs/selinux/enforce ] ||", label)


@operation()
def role_program(program: str, request: Values, files: Mapping[str, Path] | None = None) -> Commands:
    """Run one of the roles' programs; the request may hold secrets and travels on standard input, as do `files`."""
    yield StringCommand(programs.command(), _stdin=programs.stdin(program, request, files))


@operation()
def drain(argv: list[str]) -> Commands:
    """Wait, by a command of the live service, until it has left nothing behind."""
    yield _command(*argv)


def _command(*words: str) -> StringCommand:
    return StringCommand(shlex.join(words))
