"""Hosts in a directory, to switch."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_comparison, app_host, app_proof, app_switching


class Host:
    """A host in a directory, on which the releases `old` and `new` stand and `old` is live."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        for name in ("old", "new"):
            (root / "app/releases" / name).mkdir(parents=True)
            (root / "app/releases" / name / ".complete").touch()
        (root / "app/current").symlink_to(self.release("old"))
        etc = root / "etc"
        (etc / "credentials").mkdir(parents=True)
        (etc / "credentials/password").write_text("old secret")
        places = {
            "environment": etc / "environment",
            "unit": root / "unit",
            "drop_in": root / "unit.d" / "zzzz-credentials.conf",
            "command": root / "command",
        }
        for path in places.values():
            path.parent.mkdir(exist_ok=True)
            path.write_text("old")
        modes = {name: "0755" if name == "command" else "0644" for name in places}
        self.wanted: dict[str, Any] = {
            "name": "dispatch",
            "account": {"name": "roboshop"},
            "home": {"path": str(root / "app")},
            "configuration": str(etc),
            "files": {
                name: {"path": str(path), "mode": modes[name], "content": "new"} for name, path in places.items()
            },
            "credentials": {"password": base64.b64encode(b"new secret").decode()},
            "kinds": {},
            "check": "",
            "check_zip": "",
            "ready_url": "",
            "ready_log": "",
            "start_seconds": 5,
            "stop_seconds": 1,
            "releases_kept": 3,
        }
        self.service = app_proof.service_of(self.wanted)
        self.live: dict[str, Path] = self.service.live
        self.restarted: list[str] = []
        self.known = False  # what the last restart was told of the release
        self.broken: dict[str, BaseException] = {}  # what a restart raises, by the name of the release that is live
        self.ran: Callable[..., str] = lambda *_: "InvocationID=1\n"
        monkeypatch.setattr(app_host, "BOOTED", root)
        monkeypatch.setattr(app_host, "run", lambda *command: self.ran(*command))
        monkeypatch.setattr(app_switching, "LOCKS", root)
        monkeypatch.setattr(app_switching, "restart", self.restart)

    def document(self) -> dict[str, Any]:
        """The document of which `wanted` is what it says for a Python program."""
        names = ("files", "check", "check_zip", "ready_url", "ready_log")
        kinds = {"python": {**{name: self.wanted[name] for name in names}, "faults": []}}
        return {**self.wanted, "kinds": kinds, "credentials": {"python": self.wanted["credentials"]}}

    def release(self, name: str) -> Path:
        return self.root / "app/releases" / name

    def restart(self, _: Any, known: bool = False) -> None:
        name = self.service.current.readlink().name
        self.known = known
        self.restarted.append(name)
        if name in self.broken:
            raise self.broken[name]

    def stage(self) -> Path:
        staged: Path = app_switching.stage(self.service, app_comparison.files(self.wanted))
        return staged

    def switch(self, name: str = "new", check: str = "", rebuilt: bool = False) -> Any:
        return app_switching.activate(self.service, self.release(name), self.stage(), check, 3, rebuilt)

    def switch_in_a_process(self) -> Any:
        """The same, as the module does it."""
        return app_switching.switch(self.wanted, self.release("new"), False)

    def assert_live(self, name: str) -> None:
        assert self.service.current.readlink() == self.release(name)
        assert {file.read_text() for file in self.live.values() if file.is_file()} == {name}
        assert (self.live["credentials"] / "password").read_text() == f"{name} secret"
        assert sorted(path.name for path in self.service.configuration.iterdir()) == ["credentials", "environment"]


class Kept(Host):
    """A host on which all that is switched is as wanted, so that a play only sees to its directories and its unit."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        assert not self.switch().failure
        (root / "etc").chmod(0o755)
        (root / "etc/credentials").chmod(0o700)
        for file in app_comparison.files(self.wanted):
            Path(file["path"]).chmod(int(file["mode"], 8))
        self.commands: list[tuple[str, ...]] = []
        self.is_enabled, self.states, self.answer = True, ["active"], ""
        self.ran = self.told
        # Who is not root can't give its files away.
        monkeypatch.setattr(app_switching.os, "chown", lambda *_: None)
        for name in ("owner", "group"):
            monkeypatch.setattr(app_host, name, lambda _: "root")
        monkeypatch.setattr(app_host, "enabled", lambda _: self.is_enabled)
        monkeypatch.setattr(app_host, "not_ready", lambda _: self.answer)

    def told(self, *command: str) -> str:
        if command[:2] == ("systemctl", "show"):
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return f"ActiveState={state}\nUnitFileState={'enabled' if self.is_enabled else 'disabled'}\n"
        self.commands.append(command)
        if command[:2] == ("systemctl", "enable"):
            self.is_enabled = True
        return "the journal\n"

    def keep(self) -> Any:
        return app_switching._switch_alone(self.wanted, self.release("new"), False)


def assert_unchanged(outcome: Any) -> None:
    """The switch failed before anything live was touched."""
    assert outcome.failure
    assert not outcome.changed


def assert_restored(outcome: Any) -> None:
    """The switch failed after something live was touched."""
    assert outcome.failure
    assert outcome.changed


def files_of_own(configuration: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a module places are root's on a host; have them belong to whoever runs the tests."""
    monkeypatch.setattr(configuration, "group_of", lambda _: os.getgid())
    for name in ("chown", "fchown"):
        monkeypatch.setattr(os, name, lambda *_: None)
    original = configuration.File

    def file(
        path: Path, content: Any, mode: int = 0o644, _owner: int = 0, _group: int = 0, *more: Any, **named: Any
    ) -> Any:
        return original(path, content, mode, os.getuid(), os.getgid(), *more, **named)

    monkeypatch.setattr(configuration, "File", file)
