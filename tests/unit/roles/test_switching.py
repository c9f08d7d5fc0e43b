"""The program that switches a host leaves either what is new and healthy, or what was."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "app_service" / "files" / "activate.py"
CONTENTS = {
    "environment": {"mode": "0644", "content": "new"},
    "unit": {"mode": "0644", "content": "new"},
    "command": {"mode": "0755", "content": "new"},
    "credentials/password": {"mode": "0600", "content": "new secret"},
}
CHECK = "venv/bin/check"


class Host:
    """A host in a directory, on which the releases `old` and `new` stand and `old` is live."""

    def __init__(self, root: Path, activate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.activate = root, activate
        for name in ("old", "new"):
            (root / "app/releases" / name).mkdir(parents=True)
            (root / "app/releases" / name / ".complete").touch()
        (root / "app/current").symlink_to(self.release("old"))
        etc = root / "etc"
        (etc / "credentials").mkdir(parents=True)
        (etc / "credentials/password").write_text("old secret")
        live = {name: etc / name for name in ("environment", "credentials")}
        live |= {"unit": root / "unit", "command": root / "command"}
        for name in ("environment", "unit", "command"):
            live[name].write_text("old")
        monkeypatch.setattr(activate.Service, "configuration", etc)
        monkeypatch.setattr(activate.Service, "live", live)
        self.live = live
        self.service = activate.Service("dispatch", "roboshop", root / "app", "", 5, 1)
        self.said: list[str] = []
        self.restarted: list[str] = []
        self.broken: dict[str, BaseException] = {}  # what a restart raises, by the name of the release that is live
        monkeypatch.setattr(activate, "BOOTED", root)
        monkeypatch.setattr(activate, "say", self.said.append)
        monkeypatch.setattr(activate, "restart", self.restart)
        monkeypatch.setattr(activate, "run", lambda *command: self.ran(*command))
        self.ran: Callable[..., str] = lambda *_: "InvocationID=1\n"

    def release(self, name: str) -> Path:
        return self.root / "app/releases" / name

    def restart(self, _: Any) -> None:
        name = self.service.current.readlink().name
        self.restarted.append(name)
        if name in self.broken:
            raise self.broken[name]

    def switch(self, name: str = "new", check: str = "", keep: int = 3) -> int:
        staged = self.activate.stage(self.service, CONTENTS)
        return int(self.activate.activate(self.service, self.release(name), staged, check, keep))

    def assert_live(self, name: str) -> None:
        assert self.service.current.readlink() == self.release(name)
        assert {file.read_text() for file in self.live.values() if file.is_file()} == {name}
        assert (self.live["credentials"] / "password").read_text() == f"{name} secret"
        assert sorted(path.name for path in self.service.configuration.iterdir()) == ["credentials", "environment"]


@pytest.fixture
def activate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("activate", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "activate", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def host(tmp_path: Path, activate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, activate, monkeypatch)


def test_what_is_healthy_stays(host: Host) -> None:
    assert host.switch() == 0
    host.assert_live("new")


@pytest.mark.parametrize("error", [OSError("disk"), http.client.BadStatusLine("x"), ValueError("unforeseen")])
def test_whatever_goes_wrong_what_was_is_put_back(host: Host, error: Exception) -> None:
    host.broken["new"] = error
    assert host.switch() == host.activate.RESTORED
    host.assert_live("old")
    assert host.restarted == ["new", "old"]
    assert f"not healthy: {error}" in host.said[0]
    assert "Release old and its settings are back, and healthy." in host.said[0]


def test_a_journal_that_can_t_be_read_keeps_nothing_from_being_put_back(host: Host) -> None:
    def ran(*command: str) -> str:
        if command[0] == "journalctl":
            raise UnicodeError("no text")
        return "InvocationID=1\n"

    host.broken["new"], host.ran = host.activate.SwitchError("it ended by itself"), ran
    assert host.switch() == host.activate.RESTORED
    host.assert_live("old")


def test_a_failed_check_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.activate, "failed_check", lambda *_: "no such host")
    assert host.switch(check=CHECK) == host.activate.CHECK_FAILED
    assert host.said == [
        f"`{CHECK}` failed on this host with the new settings; nothing that is live has changed:\nno such host"
    ]
    assert host.restarted == []


def test_an_activation_that_was_cut_short_is_undone_where_the_check_fails(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.broken["new"] = KeyboardInterrupt()  # the power fails
    with pytest.raises(KeyboardInterrupt):
        host.switch()
    assert host.service.backup.is_dir()
    host.broken.clear()
    monkeypatch.setattr(host.activate, "failed_check", lambda *_: "no such host")
    assert host.switch(check=CHECK) == host.activate.RESTORED
    host.assert_live("old")
    assert host.restarted == ["new", "old"]
    assert "no such host\nThe activation before this one was cut short" in host.said[0]
    assert "nothing that is live has changed" not in host.said[0]


def test_an_activation_that_was_cut_short_is_completed(host: Host) -> None:
    host.broken["new"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        host.switch()
    host.broken.clear()
    assert host.switch() == 0
    host.assert_live("new")
    assert (host.release("new") / ".activated").exists()


def test_a_restoration_that_was_cut_short_is_completed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.broken = {"new": ValueError(), "old": KeyboardInterrupt()}
    with monkeypatch.context() as patch:
        patch.setattr(host.activate, "forget", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            host.switch()
    host.broken = {"new": ValueError()}
    assert host.switch() == host.activate.RESTORED
    host.assert_live("old")


def test_settings_that_can_t_be_written_leave_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: Any) -> None:
        if path.parent.name == "credentials":
            raise OSError("disk full")

    monkeypatch.setattr(Path, "chmod", fail)
    with pytest.raises(OSError, match="disk full"):
        host.activate.stage(host.service, CONTENTS)
    assert sorted(path.name for path in host.service.configuration.iterdir()) == ["credentials", "environment"]


def test_a_state_that_can_t_be_kept_aside_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(host.activate.shutil, "copy2", fail)
    staged = host.activate.stage(host.service, CONTENTS)
    assert host.activate.activate(host.service, host.release("new"), staged, "", 3) == host.activate.CHECK_FAILED
    host.activate.shutil.rmtree(staged)
    host.assert_live("old")


def test_no_directory_is_made_where_the_disk_may_be_full(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, made = os.mkdir, host.activate.restart

    def fail(path: Any, *mode: Any) -> None:
        if not Path(path).exists():
            raise OSError(errno.ENOSPC, "disk full")
        mkdir(path, *mode)

    def restart(service: Any) -> None:
        monkeypatch.setattr(os, "mkdir", fail)
        made(service)

    host.broken["new"] = ValueError("unhealthy")
    monkeypatch.setattr(host.activate, "restart", restart)
    assert host.switch() == host.activate.RESTORED
    host.assert_live("old")


def test_a_file_system_of_its_own_is_switched_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def across(path: Path, target: Path) -> Path:
        if target == host.live["command"] and path.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", across)
    assert host.switch() == 0
    host.assert_live("new")
    assert host.live["command"].stat().st_mode & 0o777 == 0o755
    assert not list(host.root.glob(".command*"))


def test_the_live_release_is_not_removed_where_the_home_is_a_link(host: Host) -> None:
    link = host.root / "link"
    link.symlink_to(host.root / "app")
    service = dataclasses.replace(host.service, home=link)
    (host.release("new") / ".activated").touch()
    host.activate.prune(service, 1)
    assert [path.name for path in host.release("old").parent.iterdir()] == ["old"]


def test_a_release_is_live_since_it_was_switched_to(host: Host) -> None:
    marker = host.release("new") / ".activated"
    assert host.switch() == 0
    os.utime(marker, (1, 1))
    assert host.switch() == 0  # to a new password
    assert marker.stat().st_mtime == 1
    assert host.switch("old") == 0
    assert host.switch("new") == 0
    assert marker.stat().st_mtime > 1


def test_a_release_in_an_image_is_live_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.activate, "BOOTED", host.root / "none")
    assert host.switch() == 0
    host.assert_live("new")
    assert host.restarted == []
    assert (host.release("new") / ".activated").exists()


def test_the_process_before_has_its_time_to_end(activate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    state = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "StatusText": ""}

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(activate, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    monkeypatch.setattr(activate, "run", lambda *_: "")
    monkeypatch.setattr(activate, "properties", lambda _: {**state, "InvocationID": "old" if now < 30 else "new"})
    activate.restart(activate.Service("dispatch", "roboshop", Path("/app"), "", 5, 31))
    assert 33 < now < 34
    now = 0
    with pytest.raises(activate.SwitchError, match="the process before it has not ended"):
        activate.restart(activate.Service("dispatch", "roboshop", Path("/app"), "", 5, 1))


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_no_link_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    current = host.service.current
    current.unlink()
    current.mkdir() if kind == "directory" else current.touch()
    arguments = ["--name=x", "--user=x", f"--home={current.parent}", f"--release={host.release('new')}"]
    monkeypatch.setattr(sys, "argv", ["activate", *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(CONTENTS)))
    monkeypatch.setattr(host.activate, "detach", lambda: None)
    monkeypatch.setattr(host.activate, "LOCKS", tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert host.activate.main() == host.activate.CHECK_FAILED
    assert host.said == [f"{current} is a {kind}, and is to be a symbolic link; move it away, then run the play again"]
    assert current.exists()


def test_output_that_is_no_text_is_read(activate: ModuleType) -> None:
    assert activate.run("printf", r"a\377b") == "a\N{REPLACEMENT CHARACTER}b"


def test_an_answer_that_is_no_http_is_no_readiness(activate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def getresponse(_: http.client.HTTPConnection) -> None:
        raise http.client.BadStatusLine("SSH-2.0")

    monkeypatch.setattr(http.client.HTTPConnection, "request", lambda *_: None)
    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", getresponse)
    service = activate.Service("dispatch", "roboshop", Path("/app"), "http://127.0.0.1:1/readyz", 5, 1)
    said = activate.not_ready(service, {"ActiveState": "active"})
    assert said == "http://127.0.0.1:1/readyz does not answer: SSH-2.0"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", ""),
        ("echo no such host; exit 10", "no such host"),
        (r"printf 'a\377'; exit 1", "a\N{REPLACEMENT CHARACTER}"),
        ("sleep 0.3; echo stopped; exit 1", "it did not end within 0 s, and was stopped: stopped"),
        ("exec sleep 9", "it did not end within 0 s"),
    ],
)
def test_a_check_has_to_pass_in_time(host: Host, monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    run = subprocess.run
    commands: list[list[str]] = []

    def stub(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return run(["sh", "-c", script], **options)

    service = host.activate.Service("dispatch", "roboshop", host.root / "app", "", 0.2, 1)
    staged = host.activate.stage(service, CONTENTS)
    monkeypatch.setattr(host.activate, "CHECK_STOP_SECONDS", 0.2)
    monkeypatch.setattr(subprocess, "run", stub)
    assert host.activate.failed_check(service, host.release("new"), staged, CHECK) == said
    assert "--property=RuntimeMaxSec=0.2" in commands[0]
