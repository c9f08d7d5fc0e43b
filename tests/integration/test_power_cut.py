"""What survives a power cut: the kernel's record of what reaches the disk, and real cuts of a file system in a loop."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import LabError, engine
from tests.lab.ansible import ROOT
from tests.unit.roles import conftest  # noqa: F401 - only with it do the next three find the roles' modules
from tests.unit.roles.hosts import Host
from tests.unit.roles.test_build import Releases
from tests.unit.roles.test_undo import Boot

pytestmark = pytest.mark.long

CALLS = "fsync,fdatasync,syncfs,rename,renameat,renameat2"

# XFS_IOC_GOINGDOWN of Linux's xfs_fs.h: the file system stops on the spot, as in a cut. With its log flushed first,
# names are on the disk whose data is not; without, all is gone that was not synced.
GOING_DOWN, FLUSHED, UNFLUSHED = 0x8004587D, 1, 2
cuts = pytest.mark.parametrize("how", [FLUSHED, UNFLUSHED], ids=["names-arrived", "nothing-arrived"])


class Disk:
    """An XFS file system in a file, whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.image, self.mount = directory / "image", directory / "disk"
        self.mount.mkdir()
        with self.image.open("wb") as image:
            image.truncate(320 << 20)  # the least that mkfs.xfs takes
        self._run("mkfs.xfs", "-q", str(self.image))
        self.on()

    def on(self) -> None:
        self._run("mount", "-o", "loop", str(self.image), str(self.mount))

    def off(self) -> None:
        self._run("umount", str(self.mount))

    def cut(self, how: int) -> None:
        """Cut the power of the file system, and bring it up again."""
        descriptor = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", how))
        os.close(descriptor)
        self.off()
        self.on()

    def settle(self) -> None:
        """Have all that has been written on the disk."""
        self._run("sync", "--file-system", str(self.mount))

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"`{' '.join(command)}` failed: {done.stderr}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    if not shutil.which("mkfs.xfs"):
        engine.install("xfsprogs")
    try:
        made = Disk(tmp_path)
    except LabError as error:
        pytest.skip(f"this machine can't mount an XFS file system in a file: {error}")
    yield made
    made.off()


@pytest.fixture
def host(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(disk.mount, monkeypatch)


def forget_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every fsync(2) and sync(1) do nothing."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    run = subprocess.run

    def ran(command: Any, **options: Any) -> Any:
        return run(["true"] if command[0] == "sync" else command, **options)

    monkeypatch.setattr(subprocess, "run", ran)


@cuts
def test_what_was_switched_survives(disk: Disk, host: Host, how: int) -> None:
    disk.settle()
    assert not host.switch().failure
    disk.cut(how)
    host.assert_live("new")
    assert (host.release("new") / ".activated").exists()
    assert not [path for path in Boot(host).places if os.path.lexists(path)]


@cuts
def test_what_is_unproven_is_undone(disk: Disk, host: Host, monkeypatch: pytest.MonkeyPatch, how: int) -> None:
    boot = Boot(host)
    disk.settle()

    def cut(_: Any) -> None:
        disk.cut(how)
        raise KeyboardInterrupt  # nothing of the switch goes on

    monkeypatch.setattr("ansible.module_utils.app_switching.restart", cut)
    with pytest.raises(KeyboardInterrupt):
        host.switch()
    assert host.service.current.readlink() == host.release("new")
    assert boot.acts()
    boot.run(boot.lines)
    host.assert_live("old")
    disk.cut(how)
    if boot.acts():
        boot.run(boot.lines)
    host.assert_live("old")


@cuts
def test_a_release_that_counts_as_complete_is_whole(disk: Disk, monkeypatch: pytest.MonkeyPatch, how: int) -> None:
    releases = Releases(disk.mount, monkeypatch)
    disk.settle()
    assert releases.build()
    disk.cut(how)
    assert releases.stands()
    python = releases.directory / "one/venv/bin/python"
    assert python.read_text() == releases.interpreter.read_text()


@cuts
def test_without_syncs_the_same_cuts_do_harm(disk: Disk, host: Host, monkeypatch: pytest.MonkeyPatch, how: int) -> None:
    disk.settle()
    with monkeypatch.context() as patch:
        forget_to_sync(patch)
        assert not host.switch().failure
    disk.cut(how)
    with pytest.raises(AssertionError):
        host.assert_live("new")
    empty = [path.name for path in host.live.values() if path.is_file() and not path.read_text()]
    assert bool(empty) is (how == FLUSHED)


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
    armed = first(calls, r"fsync\(.*/dispatch-switch-undo\.service>")
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
