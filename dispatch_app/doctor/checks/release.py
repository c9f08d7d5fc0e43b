"""The service's user and the release: is everything there that the service runs, and may its user run it?"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from pathlib import Path

from ..case import Case
from ..table import ERROR, HOME, OLDEST_PYTHON, USER, Check, Finding
from . import needs
from .fixes import RESTART, mode_of, provision, quoted, rebuild, reinstall

_INSTALL = "if command -v apt-get; then apt-get install -y libpq5; else dnf install -y libpq; fi"


def user_missing(case: Case) -> Finding | None:
    name = case.host.directive("User")
    if not name or case.host.user:
        return None
    add = f"useradd --system --home-dir {HOME} --no-create-home --shell /usr/sbin/nologin {shlex.quote(name)}"
    return Finding(f"the unit says User={name}, and no such user exists", "The service's user is missing.",
                   f"{add} && {RESTART}")  # fmt: skip


def user_wrong(case: Case) -> Finding | None:
    name = case.host.directive("User")
    if name == USER:
        return None
    seen = f"the unit says User={name}" if name else "the unit has no User=, so the service runs as root"
    cause = f"The service does not run as {USER}, who owns its files and nothing else."
    if case.host.ours:
        return provision(seen, cause)
    edit = f"sed -i -e '/^User=/d' -e 's/^\\[Service\\]$/&\\nUser={USER}/' {quoted(case.host.fragment)}"
    return Finding(seen, cause, f"{edit} && systemctl daemon-reload && {RESTART}")


def artifact_missing(case: Case) -> Finding | None:
    home = case.host.home
    if home.is_dir() and any(home.iterdir()):
        return None
    target = f", which leads to {case.host.release}," if home.is_symlink() else ""
    seen = f"{home}{target} is missing or empty"
    return provision(seen, "The artifact has not been fetched and unpacked on this host, or was deleted.")


def unreadable(case: Case) -> Finding | None:
    """Directories first, from the top: below one that is closed nothing can be looked at."""
    target = case.host.release if case.host.venv else case.host.executable
    for path in (*reversed(target.parents), target):
        if path.is_dir() and not case.host.may("-x", path):
            return _open(case, "enter", path, "a+rx" if path == target else "a+x", path)
    if case.host.venv:
        for path in sorted(case.host.release.glob("**/*.py"))[:2000]:
            if path.is_symlink() or path.stat().st_mode & stat.S_IROTH or case.host.may("-r", path):
                continue
            # A release of the roles holds nothing but code; beside other code there may be secrets.
            if case.host.version:
                return _open(case, "read", path, "-R a+rX", case.host.release)
            return _open(case, "read", path, "a+r", path)
    return None


def venv_missing(case: Case) -> Finding | None:
    if case.host.venv is None or os.path.lexists(case.host.executable):
        return None
    return rebuild(case, f"{case.host.executable} isn't there", "The release has no venv, or only a part of one.")


def runtime_missing(case: Case) -> Finding | None:
    if case.host.venv is None or case.host.interpreter.exists():
        return None
    path = case.host.interpreter
    seen = f"{case.host.executable} leads to {path}, which isn't there"
    cause = "The Python that the release was built with is no longer installed."
    if not re.fullmatch(r"python3\.\d+", path.name):  # a package of any other name is no distribution's Python
        return rebuild(case, seen, cause)
    install = f"dnf reinstall -y {path.name}"
    if not shutil.which("dnf"):
        install = f"apt-get update && apt-get install --reinstall -y {path.name}-minimal"
    return Finding(seen, cause, f"{install} && {RESTART}")


def executable_missing(case: Case) -> Finding | None:
    path = case.host.executable
    if path.exists():
        return None
    sources = sorted(case.host.home.glob("*.go"))
    if sources and not case.host.version:  # the roles build what they have unpacked, and nowhere else
        build = f"cd {quoted(case.host.home)} && go build -o {quoted(path)} && {RESTART}"
        seen = f"{path} isn't there, {sources[0].name} is"
        return Finding(seen, "The program was not built, or its build failed.", build)
    return provision(f"ExecStart= names {path}, which isn't there", "The program is missing, or its path is wrong.")


def not_executable(case: Case) -> Finding | None:
    path = Path(os.path.realpath(case.host.executable))
    if case.host.may("-x", path):
        return None
    # A link may lead to a file that is nobody else's business.
    if not any(place in path.parents for place in (case.host.release, Path("/usr"))):
        seen = f"{case.host.executable} leads to {path} ({mode_of(path)})"
        return provision(seen, "What the unit starts is not the release's program, or may not be executed.")
    return _open(case, "execute", path, "a+rx", path)


def runtime_too_old(case: Case) -> Finding | None:
    if case.host.venv is None:
        return None
    done = case.host.python("import sys; print(*sys.version_info[:2])")
    found = re.fullmatch(r"(\d+) (\d+)", done)
    if found is None or (int(found[1]), int(found[2])) >= OLDEST_PYTHON:
        return None
    seen = f"{case.host.executable} is Python {found[1]}.{found[2]}"
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return rebuild(case, seen, f"The venv's Python is too old: Dispatch needs {oldest} or later.")


def venv_broken(case: Case) -> Finding | None:
    if case.host.venv is None or case.host.python("print('runs')") == "runs":
        return None
    return rebuild(case, f"{case.host.executable} does not run", "The release's venv is broken.")


def dependency_missing(case: Case) -> Finding | None:
    lost = _lost_module(case)
    if lost is None or lost.startswith("dispatch_app"):
        return None
    cause = f"The venv lacks what the release requires: {lost}."
    return rebuild(case, case.host.import_failure.last_line, cause)


def libpq_missing(case: Case) -> Finding | None:
    if not case.host.shares_ledger or "libpq library not found" not in case.host.import_failure.last_line:
        return None
    return Finding("the release finds no libpq", "The library by which programs speak to PostgreSQL is not installed.",
                   f"{_INSTALL} && {RESTART}")  # fmt: skip


def release_damaged(case: Case) -> Finding | None:
    if case.host.venv is None or case.host.version is None or case.host.import_failure.code == 0:
        return None
    seen = case.host.import_failure.last_line or "the import does not end"
    return reinstall(case, seen, "The release's code can't be loaded.")


def _lost_module(case: Case) -> str | None:
    """The module that is not there, of those the release imports."""
    ours = case.host.venv is not None and (case.host.release / "dispatch_app").is_dir()
    if not ours or case.host.import_failure.code == 0:
        return None
    found = re.search(r"No module named '([\w.]+)'", case.host.import_failure.last_line)
    return found[1] if found else None


def _open(case: Case, what: str, path: Path, mode: str, opened: Path) -> Finding:
    return Finding(f"user {case.host.directive('User')} may not {what} {path} ({mode_of(path)})",
                   "The service's user may not use the release.",
                   f"chmod {mode} {quoted(opened)} && {RESTART}")  # fmt: skip


CHECKS = (
    Check("user-missing", "release", ERROR, "the service's user exists", user_missing, needs.UNIT),
    Check("user-wrong", "release", ERROR, "the unit runs as the service's user", user_wrong,
          (*needs.UNIT, "user-missing")),
    Check("artifact-missing", "release", ERROR, "the artifact is unpacked", artifact_missing, needs.UNIT),
    Check("not-readable", "release", ERROR, "the user may read the release", unreadable, needs.RUNS),
    Check("venv-missing", "release", ERROR, "the release has its venv", venv_missing, needs.RUNS),
    Check("runtime-missing", "release", ERROR, "the venv's Python is installed", runtime_missing,
          (*needs.RUNS, "venv-missing")),
    Check("executable-missing", "release", ERROR, "the program is there", executable_missing,
          (*needs.RUNS, "venv-missing", "runtime-missing")),
    Check("not-executable", "release", ERROR, "the user may execute the program", not_executable,
          (*needs.VENV, "executable-missing")),
    Check("runtime-too-old", "release", ERROR, "the venv's Python is new enough", runtime_too_old,
          (*needs.VENV, "not-executable")),
    Check("venv-broken", "release", ERROR, "the venv's Python runs", venv_broken, (*needs.VENV, "not-executable")),
    Check("dependency-missing", "release", ERROR, "all that is required can be imported", dependency_missing,
          (*needs.VENV, "not-executable", "runtime-too-old", "venv-broken")),
    Check("libpq-missing", "release", ERROR, "libpq is installed where the ledger is in a database", libpq_missing,
          (*needs.VENV, "not-executable", "runtime-too-old", "venv-broken", "dependency-missing")),
    Check("release-damaged", "release", ERROR, "the release's code can be loaded", release_damaged,
          (*needs.VENV, "not-executable", "runtime-too-old", "venv-broken", "dependency-missing", "libpq-missing")),
)  # fmt: skip
