"""Fixes that several checks share. Every word that comes from the host is quoted."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from ..case import Case
from ..table import CONTROLLER, NAME, Finding

RESTART = f"systemctl restart {NAME}"
PROVISION = "ansible-playbook playbooks/dispatch.yml"
FREE_DISK = (
    r"find /var/log -xdev -type f \( -name '*.gz' -o -name '*.old' -o -name '*.[0-9]' \) -delete"
    " && journalctl --rotate --vacuum-size=50M"
)


def quoted(path: Path) -> str:
    """Return a path as a shell reads it."""
    return shlex.quote(str(path))


def provision(evidence: str, cause: str, playbook: str = "dispatch") -> Finding:
    """Have a playbook mend it, the one that provisions Dispatch unless another is named."""
    return Finding(evidence, cause, PROVISION.replace("dispatch", playbook), CONTROLLER)


def rebuild(case: Case, evidence: str, cause: str) -> Finding:
    """Make the venv anew as the role app_release does; the play does it where that needs an interpreter first.

    So it does where others than root can write to the release, because the fix runs as root.
    """
    release, interpreter = case.host.release, case.host.new_interpreter
    requirements, carried = release / "requirements.txt", next(iter(release.glob("installer/pip-*.whl")), None)
    used = [*release.resolve().parents, release, requirements, *([carried.parent, carried] if carried else [])]
    if interpreter is None or not requirements.exists() or not all(map(_is_root_s, used)):
        return provision(evidence, cause)
    wheels = "--no-index --find-links wheels " if (release / "wheels").is_dir() else ""
    # As the role app_release does: with pip where the release carries it, or else with the distribution's; with -I,
    # because root must not take a file of the release for a module of Python's.
    without, pip = ("--without-pip ", shlex.quote(f"installer/{carried.name}/pip")) if carried else ("", "-m pip")
    install = f"venv/bin/python -I {pip} install --quiet --only-binary :all: {wheels}-r requirements.txt"
    # Not with --clear: the venv would remember that, and differ from the one that was built.
    venv = f"rm -rf venv && {interpreter} -I -m venv {without}venv"
    return Finding(evidence, cause, f"cd {quoted(release)} && {venv} && {install} && {RESTART}")


def _is_root_s(path: Path) -> bool:
    """Whether nobody but root can write to a path, or replace what is root's below it. Raises OSError."""
    found = path.stat()
    return found.st_uid in (0, os.geteuid()) and (not found.st_mode & 0o022 or bool(found.st_mode & stat.S_ISVTX))


def reinstall(case: Case, evidence: str, cause: str) -> Finding:
    """Take a release away and have the play build it anew."""
    arguments = shlex.quote(f"path={case.host.release} state=absent")
    remove = f"ansible {{host}} --become -m ansible.builtin.file -a {arguments}"
    return Finding(evidence, cause, f"{remove} && {PROVISION}", CONTROLLER)


def mode_of(path: Path) -> str:
    """Return a file's mode as ls(1) writes it. Raises OSError."""
    return stat.filemode(path.stat().st_mode)
