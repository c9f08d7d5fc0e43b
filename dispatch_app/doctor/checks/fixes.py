"""Fixes that several checks share. Every word that comes from the host is quoted."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

from ..case import Case
from ..table import CONTROLLER, NAME, Finding

RESTART = f"systemctl restart {NAME}"
PROVISION = "ansible-playbook playbooks/dispatch.yml"


def quoted(path: Path) -> str:
    """Return a path as a shell reads it."""
    return shlex.quote(str(path))


def provision(evidence: str, cause: str, playbook: str = "dispatch") -> Finding:
    """Have a playbook mend it, the one that provisions Dispatch unless another is named."""
    return Finding(evidence, cause, PROVISION.replace("dispatch", playbook), CONTROLLER)


def rebuild(case: Case, evidence: str, cause: str) -> Finding:
    """Make the venv anew as the role app_release does; without an interpreter for it the play has to bring one."""
    release, interpreter = case.host.release, case.host.new_interpreter
    if interpreter is None or not (release / "requirements.txt").exists():
        return provision(evidence, cause)
    wheels = "--no-index --find-links wheels " if (release / "wheels").is_dir() else ""
    # As the role app_release does: with pip where the release carries it, or else with the distribution's.
    carried = next(iter(release.glob("installer/pip-*.whl")), None)
    without, pip = ("--without-pip ", shlex.quote(f"installer/{carried.name}/pip")) if carried else ("", "-m pip")
    install = f"venv/bin/python {pip} install --quiet {wheels}-r requirements.txt"
    # Not with --clear: the venv would remember that, and differ from the one that was built.
    venv = f"rm -rf venv && {interpreter} -m venv {without}venv"
    return Finding(evidence, cause, f"cd {quoted(release)} && {venv} && {install} && {RESTART}")


def reinstall(case: Case, evidence: str, cause: str) -> Finding:
    """Take a release away and have the play build it anew."""
    arguments = shlex.quote(f"path={case.host.release} state=absent")
    remove = f"ansible {{host}} --become -m ansible.builtin.file -a {arguments}"
    return Finding(evidence, cause, f"{remove} && {PROVISION}", CONTROLLER)


def mode_of(path: Path) -> str:
    """Return a file's mode as ls(1) writes it. Raises OSError."""
    return stat.filemode(path.stat().st_mode)
