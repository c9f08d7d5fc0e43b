"""What was switched or built survives a power cut: its data is on the disk before anything depends on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import app_build, app_disk, app_releases

from tests.unit.roles.hosts import Host
from tests.unit.roles.test_build import Releases

Event = tuple[str, str]


class Disk:
    """Records the real calls that bring data to the disk or change a name, in their order.

    A path below a staging directory of a random name is told with ``next.*`` in its place.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.events = root, list[Event]()
        fsync, run = os.fsync, subprocess.run

        def synced(descriptor: int) -> None:
            fsync(descriptor)
            self.note("sync", f"/proc/self/fd/{descriptor}")

        def ran(command: Any, *arguments: Any, **options: Any) -> Any:
            done = run(command, *arguments, **options)
            if command[0] == "sync":
                self.note("syncfs", command[-1])
            return done

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(subprocess, "run", ran)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self.noting(name, getattr(os, name)))

    def noting(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def noted(source: Any, target: Any, **options: Any) -> None:
            call(source, target, **options)
            self.note(name, target)

        return noted

    def note(self, name: str, path: Any) -> None:
        path = Path(path).resolve() if str(path).startswith("/proc") else Path(path)
        parts = ["next.*" if part.startswith("next.") else part for part in path.parts]
        self.events.append((name, os.path.relpath(Path(*parts), self.root)))

    def at(self, name: str, path: str, since: int = 0) -> int:
        """The first place of an event, counted from `since`."""
        return self.events.index((name, path), since)


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    return Releases(tmp_path, monkeypatch)


def test_the_order_of_a_switch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(host.root, monkeypatch)
    assert not host.switch().failure
    for name, directory in (("environment", "etc"), ("unit", "."), ("command", "."), ("drop_in", "unit.d")):
        placed = str(host.live[name].relative_to(host.root))
        assert disk.at("sync", f"etc/next.*/{name}") < disk.at("replace", placed)
        # The name that leads to the new file is on the disk before the state before it is dropped.
        assert disk.at("replace", placed) < disk.at("sync", directory, disk.at("replace", placed))
    assert disk.at("sync", "etc/next.*/credentials/password") < disk.at("replace", "etc/credentials")
    assert disk.at("sync", "etc/next.*/credentials") < disk.at("replace", "etc/credentials")

    saved, dropped = disk.at("rename", "etc/previous"), disk.at("rename", "etc/next.*")
    for name in ("environment", "unit", "command", "drop_in", "credentials/password"):
        assert disk.at("sync", f"etc/previous.half/{name}") < saved
    assert saved < disk.at("sync", "etc", saved) < disk.at("replace", "etc/environment")
    assert disk.at("replace", "app/current") < disk.at("sync", "app") < dropped
    assert disk.at("sync", "app/releases/new") < dropped  # the mark that says it has been live
    for directory in ("etc", ".", "unit.d"):
        last = max(place for place, event in enumerate(disk.events) if event[0] == "replace")
        assert last < disk.at("sync", directory, last) < dropped


def test_what_undoes_a_switch_is_on_the_disk_before_the_switch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(host.root, monkeypatch)
    assert not host.switch().failure
    placed = disk.at("replace", "etc/environment")
    unit, links = disk.at("sync", "dispatch-switch-undo.service"), disk.at("sync", "multi-user.target.wants")
    assert max(unit, links, disk.at("sync", ".", max(unit, links))) < placed
    # It goes before the state does that it would put back.
    dropped = disk.at("rename", "etc/next.*")
    assert placed < disk.at("sync", "multi-user.target.wants", placed) < dropped


def test_what_is_put_back_is_on_the_disk_before_the_saved_state_is_dropped(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.broken["new"] = ValueError("unhealthy")
    disk = Disk(host.root, monkeypatch)
    assert host.switch().failure
    dropped = disk.at("rename", "etc/next.*")
    last = max(place for place, event in enumerate(disk.events) if event == ("replace", "app/current"))
    for directory in ("etc", ".", "unit.d", "app"):
        assert last < disk.at("sync", directory, last) < dropped


def test_a_file_that_comes_from_another_file_system_is_on_the_disk_before_it_is_placed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def across(path: Path, target: Path) -> Path:
        if target == host.live["command"] and path.parent != target.parent:
            raise OSError(18, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", across)
    disk = Disk(host.root, monkeypatch)
    assert not host.switch().failure
    assert disk.at("sync", ".command.new") < disk.at("replace", "command")


def test_a_release_counts_as_complete_only_once_it_is_on_the_disk(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(releases.directory, monkeypatch)
    assert releases.build()
    marked = disk.at("rename", "one/.complete")
    assert disk.at("syncfs", "one") < disk.at("sync", "one/.complete.new") < marked < disk.at("sync", "one", marked)
    # Nothing of the release is written between.
    assert app_releases.stands(releases.directory / "one")


def test_a_release_that_can_t_be_brought_to_the_disk_is_not_complete(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(app_build, "sync_file_system", fail)
    with pytest.raises(app_build.BuildError, match="Input/output error"):
        releases.build()
    assert releases.names() == []


def test_a_file_system_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    app_disk.sync_file_system(tmp_path)
    with pytest.raises(OSError, match=r"could not be brought to the disk: .*No such file"):
        app_disk.sync_file_system(tmp_path / "none")
