"""Switching a host leaves either what is new and healthy, or what was."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_disk, app_host, app_proof, app_switching

from tests.unit.roles.hosts import Host, assert_restored, assert_unchanged

CHECK = "venv/bin/check"


def test_what_is_healthy_stays(host: Host) -> None:
    assert host.switch() == app_switching.Outcome(changed=True)
    host.assert_live("new")


@pytest.mark.parametrize("error", [OSError("disk"), app_host.CommandError("x"), ValueError("unforeseen")])
def test_whatever_goes_wrong_what_was_is_put_back(host: Host, error: Exception) -> None:
    host.broken["new"] = error
    outcome = host.switch()
    assert_restored(outcome)
    host.assert_live("old")
    assert host.restarted == ["new", "old"]
    assert f"not healthy: {error}" in outcome.failure
    assert "Release old and its settings are back, and healthy." in outcome.failure


def test_what_is_put_back_and_not_healthy_either_is_told(host: Host) -> None:
    host.broken = {"new": ValueError(), "old": app_proof.UnhealthyError("no broker")}
    outcome = host.switch()
    assert_restored(outcome)
    host.assert_live("old")
    assert "Release old and its settings are back, but they are not healthy, either: no broker" in outcome.failure


def test_a_host_that_had_nothing_has_nothing_again(host: Host) -> None:
    host.service.current.unlink()
    for path in host.live.values():
        app_disk.remove(path)
    host.broken["new"] = ValueError()
    outcome = host.switch()
    assert_restored(outcome)
    assert "There was nothing before it to go back to; the service is removed again." in outcome.failure
    assert not os.path.lexists(host.service.current)
    assert not [path for path in host.live.values() if path.is_file()]
    assert list(host.service.configuration.rglob("*")) == [host.live["credentials"]]


def test_a_journal_that_can_t_be_read_keeps_nothing_from_being_put_back(host: Host) -> None:
    def ran(*command: str) -> str:
        if command[0] == "journalctl":
            raise UnicodeError("no text")
        return "InvocationID=1\n"

    host.broken["new"], host.ran = app_proof.UnhealthyError("it ended by itself"), ran
    assert_restored(host.switch())
    host.assert_live("old")


def test_a_failed_check_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_switching, "failed_check", lambda *_: "no such host")
    outcome = host.switch(check=CHECK)
    assert_unchanged(outcome)
    assert outcome.failure == (
        f"`{CHECK}` failed on this host with the new settings; nothing that is live has changed:\nno such host"
    )
    assert host.restarted == []


def test_an_activation_that_was_cut_short_is_undone_where_the_check_fails(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.broken["new"] = KeyboardInterrupt()  # the power fails
    with pytest.raises(KeyboardInterrupt):
        host.switch()
    assert host.service.backup.is_dir()
    host.broken.clear()
    monkeypatch.setattr(app_switching, "failed_check", lambda *_: "no such host")
    outcome = host.switch(check=CHECK)
    assert_restored(outcome)
    host.assert_live("old")
    assert host.restarted == ["new", "old"]
    assert "no such host\nThe activation before this one was cut short" in outcome.failure
    assert "nothing that is live has changed" not in outcome.failure


def test_an_activation_that_was_cut_short_is_completed(host: Host) -> None:
    host.broken["new"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        host.switch()
    host.broken.clear()
    assert not host.switch().failure
    host.assert_live("new")
    assert (host.release("new") / ".activated").exists()


def test_a_restoration_that_was_cut_short_is_completed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.broken = {"new": ValueError(), "old": KeyboardInterrupt()}
    with monkeypatch.context() as patch:
        patch.setattr(app_switching, "forget", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            host.switch()
    host.broken = {"new": ValueError()}
    assert_restored(host.switch())
    host.assert_live("old")


def test_settings_that_can_t_be_written_leave_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: Any) -> None:
        if path.parent.name == "credentials":
            raise OSError("disk full")

    monkeypatch.setattr(Path, "chmod", fail)
    with pytest.raises(OSError, match="disk full"):
        host.stage()
    assert sorted(path.name for path in host.service.configuration.iterdir()) == ["credentials", "environment"]


def test_a_state_that_can_t_be_kept_aside_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(app_switching.shutil, "copy2", fail)
    staged = host.stage()
    outcome = app_switching.activate(host.service, host.release("new"), staged, "", 3)
    assert_unchanged(outcome)
    assert "the live state could not be kept aside; nothing that is live has changed:\ndisk full" in outcome.failure
    app_switching.shutil.rmtree(staged)
    host.assert_live("old")


def test_no_directory_is_made_where_the_disk_may_be_full(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, made = os.mkdir, host.restart

    def fail(path: Any, *mode: Any) -> None:
        if not Path(path).exists():
            raise OSError(errno.ENOSPC, "disk full")
        mkdir(path, *mode)

    def restart(service: Any, _: bool = False) -> None:
        monkeypatch.setattr(os, "mkdir", fail)
        made(service)

    host.broken["new"] = ValueError("unhealthy")
    monkeypatch.setattr(app_switching, "restart", restart)
    assert_restored(host.switch())
    host.assert_live("old")


def test_a_file_system_of_its_own_is_switched_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def across(path: Path, target: Path) -> Path:
        if target == host.live["command"] and path.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", across)
    assert not host.switch().failure
    host.assert_live("new")
    assert host.live["command"].stat().st_mode & 0o777 == 0o755
    assert not list(host.root.glob(".command*"))


def test_the_live_release_is_not_removed_where_the_home_is_a_link(host: Host) -> None:
    link = host.root / "link"
    link.symlink_to(host.root / "app")
    service = dataclasses.replace(host.service, home=link)
    (host.release("new") / ".activated").touch()
    app_switching.prune(service.home, 1)
    assert [path.name for path in host.release("old").parent.iterdir()] == ["old"]


def test_a_release_is_live_since_it_was_switched_to(host: Host) -> None:
    marker = host.release("new") / ".activated"
    assert not host.switch().failure
    os.utime(marker, (1, 1))
    assert not host.switch().failure  # to a new password
    assert marker.stat().st_mtime == 1
    assert not host.switch("old").failure
    assert not host.switch("new").failure
    assert marker.stat().st_mtime > 1


def test_a_release_is_known_once_it_has_run_under_its_unit(host: Host) -> None:
    host.switch()
    assert not host.known
    host.wanted["files"]["environment"]["content"] = "another broker"
    host.switch()
    assert host.known
    host.switch(rebuilt=True)
    assert not host.known
    host.wanted["files"]["unit"]["content"] = "a limit"
    host.switch()
    assert not host.known
    host.switch()
    assert host.known
    host.switch("old")
    assert not host.known


def test_a_release_whose_switch_was_cut_short_is_not_known(host: Host) -> None:
    host.broken["new"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        host.switch()
    host.broken.clear()
    host.switch()
    assert not host.known


def test_a_release_in_an_image_is_live_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_host, "BOOTED", host.root / "none")
    assert host.switch() == app_switching.Outcome(changed=True)
    host.assert_live("new")
    assert host.restarted == []
    assert (host.release("new") / ".activated").exists()
