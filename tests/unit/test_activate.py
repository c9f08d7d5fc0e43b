"""The program that switches a host leaves either what is new and healthy, or what was."""

from __future__ import annotations

import http.client
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
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
        self.service = activate.Service("dispatch", "roboshop", root / "app", "", 5)
        self.said: list[str] = []
        self.restarted: list[str] = []
        self.broken: dict[str, Exception] = {}  # what a restart raises, by the name of the release that is live
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


def test_output_that_is_no_text_is_read(activate: ModuleType) -> None:
    assert activate.run("printf", r"a\377b") == "a\N{REPLACEMENT CHARACTER}b"


def test_an_answer_that_is_no_http_is_no_readiness(activate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def getresponse(_: http.client.HTTPConnection) -> None:
        raise http.client.BadStatusLine("SSH-2.0")

    monkeypatch.setattr(http.client.HTTPConnection, "request", lambda *_: None)
    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", getresponse)
    service = activate.Service("dispatch", "roboshop", Path("/app"), "http://127.0.0.1:1/readyz", 5)
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

    service = host.activate.Service("dispatch", "roboshop", host.root / "app", "", 0.2)
    staged = host.activate.stage(service, CONTENTS)
    monkeypatch.setattr(host.activate, "CHECK_STOP_SECONDS", 0.2)
    monkeypatch.setattr(subprocess, "run", stub)
    assert host.activate.failed_check(service, host.release("new"), staged, CHECK) == said
    assert "--property=RuntimeMaxSec=0.2" in commands[0]
