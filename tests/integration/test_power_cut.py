"""The kernel's own record of what reaches the disk, and when: a unit test's switch and build under strace(1)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import engine
from tests.lab.ansible import ROOT

pytestmark = pytest.mark.long

CALLS = "fsync,fdatasync,syncfs,rename,renameat,renameat2"


def traced(test: str, directory: Path) -> list[str]:
    """The system calls of a unit test that brought something to the disk or changed a name, in their order."""
    if not shutil.which("strace"):
        engine.install("strace")
    log = directory / "calls"
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={directory / 'host'}", test]
    done = subprocess.run(
        ["strace", "-f", "-y", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log), *pytest_],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in log.read_text().splitlines() if str(directory / "host") in line and line.endswith("= 0")]


def first(calls: list[str], pattern: str, since: int = 0) -> int:
    """The place of the first call from `since` on that matches."""
    places = [place for place, call in enumerate(calls) if place >= since and re.search(pattern, call)]
    assert places, f"no call like {pattern} among:\n" + "\n".join(calls[since:])
    return places[0]


def test_a_switch_is_on_the_disk_before_the_state_before_it_is_dropped(tmp_path: Path) -> None:
    calls = traced("tests/unit/roles/test_switching.py::test_what_is_healthy_stays", tmp_path)
    dropped = first(calls, r'rename\(.*/etc/previous", .*/next\.')
    for name in ("environment", "unit", "drop_in", "command"):
        data = first(calls, rf"fsync\(.*/etc/next\.[^/]+/{name}>")
        placed = first(calls, rf'rename\(.*/etc/next\.[^/]+/{name}", ')
        assert data < placed < dropped
    secret = first(calls, r"fsync\(.*/etc/next\.[^/]+/credentials/password>")
    assert secret < first(calls, r'rename\(.*/next\.[^/]+/credentials", ') < dropped
    saved = first(calls, r'rename\(.*/etc/previous\.half", .*/etc/previous"')
    assert first(calls, r"fsync\(.*/previous\.half/credentials/password>") < saved
    armed = first(calls, r"fsync\(.*/dispatch-undo\.service>")
    assert armed < saved < first(calls, r"fsync\(.*/etc>", saved) < first(calls, r'rename\(.*/environment"')
    live = first(calls, r'rename\(.*/app/current\.new", ')
    for directory in ("/app", "/etc", r"/unit\.d", r"/test_[^/]+"):
        assert live < first(calls, rf"fsync\([^)]*{directory}>", live) < dropped
    assert first(calls, r"fsync\(.*/app/releases/new>", live) < dropped


def test_a_release_is_on_the_disk_before_its_mark(tmp_path: Path) -> None:
    calls = traced("tests/unit/roles/test_build.py::test_a_release_is_built_whole_and_once", tmp_path)
    marked = first(calls, r'rename\(.*/\.complete\.new", .*/\.complete"')
    assert first(calls, r"syncfs\(.*/releases/one>") < first(calls, r"fsync\(.*/\.complete\.new>") < marked
    assert first(calls, r"fsync\(.*/releases/one>", marked) > marked
