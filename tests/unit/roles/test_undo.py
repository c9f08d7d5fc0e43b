"""A switch that a reboot has cut short is undone before the service starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_disk, app_switching, app_undo

from tests.unit.roles.hosts import Host


class Boot:
    """A host on which the power has failed in the middle of a switch, and the next boot of it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.places: tuple[Path, Path] = app_undo.places(host.service)
        self.unit, self.link = self.places
        self.asked = host.root / "systemctl"
        programs = host.root / "bin"
        programs.mkdir()
        (programs / "systemctl").write_text(f'#!/bin/sh\necho "$*" >> {self.asked}\n')
        (programs / "systemctl").chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    def cut_short(self) -> None:
        self.host.broken["new"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            self.host.switch()

    @property
    def text(self) -> str:
        return str(self.link.read_text())

    @property
    def lines(self) -> list[str]:
        """The commands of the unit; no path of these tests has what systemd and a shell quote differently."""
        return [line.partition("=")[2] for line in self.text.splitlines() if line.startswith("ExecStart=")]

    def run(self, lines: list[str]) -> None:
        for line in lines:
            subprocess.run(["sh", "-c", line], check=True, env={**os.environ, "PATH": self.path})

    def acts(self) -> bool:
        """Whether systemd would start the unit's commands at a boot."""
        if not self.link.exists():
            return False
        conditions = [line.partition("=")[2] for line in self.text.splitlines() if line.startswith("Condition")]
        return all(Path(path.lstrip("!")).exists() is not path.startswith("!") for path in conditions)


@pytest.fixture
def boot(host: Host) -> Boot:
    return Boot(host)


def test_the_next_boot_puts_back_what_was(boot: Boot) -> None:
    boot.cut_short()
    assert boot.host.service.current.readlink() == boot.host.release("new")
    assert boot.acts()
    boot.run(boot.lines)
    boot.host.assert_live("old")
    assert boot.asked.read_text() == "daemon-reload\n"
    assert not [path for path in boot.places if os.path.lexists(path)]


def test_what_was_not_there_is_gone_again(boot: Boot) -> None:
    boot.host.service.current.unlink()
    for path in boot.host.live.values():
        app_disk.remove(path)
    boot.cut_short()
    boot.run(boot.lines)
    assert not os.path.lexists(boot.host.service.current)
    assert not [path for path in boot.host.live.values() if path.exists()]
    # Before its unit goes, the service is disabled; then the start that the boot has queued is taken back.
    assert boot.asked.read_text().splitlines() == [
        "disable dispatch",
        "daemon-reload",
        "stop --no-block dispatch",
    ]


def test_a_boot_that_is_cut_short_too_is_followed_by_one_that_ends(boot: Boot) -> None:
    boot.cut_short()
    lines, pristine = boot.lines, boot.host.root.with_name("pristine")
    shutil.copytree(boot.host.root, pristine, symlinks=True)
    for done in range(len(lines)):
        boot.run(lines[:done])
        if boot.acts():
            boot.run(lines)
        assert boot.host.service.current.readlink() == boot.host.release("old")
        assert {file.read_text() for file in boot.host.live.values() if file.is_file()} == {"old"}
        assert (boot.host.live["credentials"] / "password").read_text() == "old secret"
        shutil.rmtree(boot.host.root)
        shutil.copytree(pristine, boot.host.root, symlinks=True)


def test_in_the_boot_of_the_switch_it_does_nothing(boot: Boot) -> None:
    boot.host.broken["new"] = KeyboardInterrupt()
    assert "KeyboardInterrupt" in boot.host.switch_in_a_process().failure
    assert not boot.acts()
    (boot.host.root / "dispatch-activate.lock").unlink()  # /run is empty at the next boot
    assert boot.acts()


@pytest.mark.parametrize("healthy", [True, False])
def test_a_switch_that_has_ended_leaves_nothing_to_undo(
    boot: Boot, monkeypatch: pytest.MonkeyPatch, healthy: bool
) -> None:
    seen: list[bool] = []

    def restart(service: Any, known: bool = False) -> None:
        seen.append(boot.acts())
        boot.host.restart(service, known)

    boot.host.broken = {} if healthy else {"new": ValueError()}
    monkeypatch.setattr(app_switching, "restart", restart)
    assert bool(boot.host.switch().failure) is not healthy
    assert seen == ([True] if healthy else [True, False])  # what is put back is proven by having run before
    assert not [path for path in boot.places if os.path.lexists(path)]


def test_a_state_that_can_t_be_kept_aside_leaves_nothing_to_undo(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.suffix == ".half":
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert "nothing that is live has changed:\ndisk full" in boot.host.switch().failure
    assert not [path for path in boot.places if os.path.lexists(path)]


def test_the_unit_is_one_that_systemd_takes(boot: Boot) -> None:
    verify = shutil.which("systemd-analyze")
    if not verify:
        pytest.skip("this machine has no systemd that could read the unit")
    boot.cut_short()
    copy = boot.host.root / "verified" / boot.unit.name
    copy.parent.mkdir()
    copy.write_text(boot.text)
    done = subprocess.run([verify, "verify", "--man=no", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_word_is_quoted_as_systemd_reads_it() -> None:
    assert app_undo.quoted('a "b" \\ 100% $HOME') == '"a \\"b\\" \\\\ 100%% $$HOME"'
