"""Prometheus' files on a host: checked, placed, in force by a reload or a restart, or put back as they were."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import monitoring_host
from ansible.module_utils.server_files import File, Previous, RefusedError

from tests.unit.roles.hosts import files_of_own

configuration = importlib.import_module("roles.monitoring.library.monitoring_configuration")

WANTED: dict[str, Any] = {
    "service": "prometheus",
    "url": "http://127.0.0.1:9090",
    "arguments": '--web.external-url="http://a b"',
    "files": {"prometheus.yml": "rule_files: [rules/*.yml]\n", "rules/hosts.yml": "groups: []\n"},
    "main": "prometheus.yml",
    "secrets": None,
    "check": ["promtool", "check", "config"],
}


class Host:
    """A host on which the program takes anything but files with `poison`, and whose tool refuses `nonsense`."""

    def __init__(self, etc: Path) -> None:
        self.etc, self.booted, self.running = etc, True, True
        self.done: list[str] = []

    def refuse_bad_files(self, check: Sequence[str], main: Path, files: Iterable[File]) -> None:
        texts = {file.path: file.content or b"" for file in files}
        assert not texts or (check == WANTED["check"] and main in texts)
        if any(b"nonsense" in text for text in texts.values()):
            raise RefusedError("promtool refuses it")

    def _outcome(self) -> str:
        poisoned = any("poison" in file.read_text() for file in self.etc.rglob("*") if file.is_file())
        return "poison" if poisoned else ""

    def reload(self) -> str:
        self.done.append("reload")
        return self._outcome()

    def restart(self) -> str:
        self.done.append("restart")
        self.running = not self._outcome()
        return self._outcome()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name in ("ROOT", "DEFAULTS"):
        directory = tmp_path / name.lower()
        directory.mkdir()
        monkeypatch.setattr(configuration, name, directory)
    files_of_own(configuration, monkeypatch)
    return Host(tmp_path / "root")


def settle(host: Host, check_mode: bool = False, **changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = configuration.settle(host, {**WANTED, **changed}, check_mode)
    return found


def test_the_first_run_restarts_with_the_command_line_and_the_second_changes_nothing(host: Host) -> None:
    first = settle(host)
    assert (first["changed"], first["restarted"], host.done) == (True, True, ["restart"])
    assert len(first["changed_files"]) == 3
    command = (configuration.DEFAULTS / "prometheus").read_text()
    assert command.endswith('ARGS="--web.external-url=\\"http://a b\\""\n')
    second = settle(host)
    assert (second["changed"], second["changed_files"], host.done) == (False, [], ["restart"])


def test_a_node_exporter_has_a_command_line_alone(host: Host) -> None:
    configuration.ROOT.rmdir()
    alone: dict[str, Any] = {"service": "prometheus-node-exporter", "files": {}, "main": "", "check": []}
    assert settle(host, **alone)["restarted"]
    assert settle(host, **alone)["changed"] is False
    assert not configuration.ROOT.exists()


def test_a_changed_rule_is_read_anew_without_a_restart(host: Host) -> None:
    settle(host)
    files = {**WANTED["files"], "rules/hosts.yml": "groups: [] # other\n"}
    preview = settle(host, check_mode=True, files=files)
    assert (preview["changed"], preview["restarted"]) == (True, False)
    assert preview["diff"][0]["after"] == "groups: [] # other\n"
    assert settle(host, files=files)["changed_files"] == [str(configuration.ROOT / "rules" / "hosts.yml")]
    assert host.done == ["restart", "reload"]


def test_what_the_tool_refuses_changes_nothing(host: Host) -> None:
    settle(host)
    with pytest.raises(RefusedError, match="promtool refuses it"):
        settle(host, files={"prometheus.yml": "nonsense"})
    assert (configuration.ROOT / "prometheus.yml").read_text() == WANTED["files"]["prometheus.yml"]


def test_what_the_program_does_not_take_is_put_back(host: Host) -> None:
    settle(host)
    with pytest.raises(RefusedError, match="the previous one is back and prometheus runs with it") as refused:
        settle(host, files={"prometheus.yml": "poison"})
    assert "poison" in str(refused.value)
    assert (configuration.ROOT / "prometheus.yml").read_text() == WANTED["files"]["prometheus.yml"]
    assert host.done == ["restart", "reload", "restart"]
    assert settle(host)["changed"] is False


def test_a_play_that_was_cut_short_is_finished_by_the_next(host: Host) -> None:
    settle(host)
    live = configuration.ROOT / "prometheus.yml"
    Previous(configuration.DEFAULTS / ".prometheus-previous.json").keep([File(live, b"before")])
    assert settle(host, check_mode=True)["changed"]
    assert settle(host)["changed"]
    assert host.done == ["restart", "reload"]
    assert settle(host)["changed"] is False


def test_secrets_are_in_files_of_their_own_are_never_shown_and_go_when_they_are_no_longer_wanted(host: Host) -> None:
    told = settle(host, secrets={"mail": "not-to-be-seen"})
    assert "not-to-be-seen" not in str(told)
    secret = configuration.ROOT / "secrets" / "mail"
    assert (secret.read_text(), oct(secret.stat().st_mode)[-3:]) == ("not-to-be-seen", "640")
    assert settle(host)["changed"] is False  # what has no secrets leaves those of others alone
    assert settle(host, secrets={})["changed"]
    assert not secret.exists()


def test_a_stopped_program_is_started_and_an_image_starts_none(host: Host) -> None:
    settle(host)
    host.running = False
    assert settle(host)["restarted"]
    host.booted = host.running = False
    files = {**WANTED["files"], "rules/hosts.yml": "groups: [] # other\n"}
    assert settle(host, files=files)["changed"]
    assert host.done == ["restart", "restart"]


def test_before_the_package_is_there_a_preview_tells_what_would_come(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: str) -> int:
        raise KeyError

    monkeypatch.setattr(configuration, "group_of", unknown)
    assert settle(host, check_mode=True)["changed"]
    with pytest.raises(RefusedError, match="The group prometheus is missing"):
        settle(host)


class Program:
    """Prometheus' answers, one after another, and the commands that were run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.answers, self.commands = list(answers), list[list[str]]()
        self.code = 0
        monkeypatch.setattr(monitoring_host, "_LOOK", 0)
        monkeypatch.setattr(monitoring_host.Host, "_metrics", lambda _: self.answers.pop(0) if self.answers else "")

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(list(command))
        if command[0] == "journalctl":
            return 0, "err: no such receiver\n", ""
        return (0 if command[1] in ("is-active", "reset-failed") else self.code), "", ""


def told(successful: int, seconds: float) -> str:
    return (
        f"prometheus_config_last_reload_successful {successful}\n"
        f"prometheus_config_last_reload_success_timestamp_seconds {seconds}\n"
    )


def test_a_reload_is_over_when_the_program_has_taken_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(monkeypatch, told(1, 1.5e9), told(1, 1.5e9), "", told(1, 1.6e9))
    assert monitoring_host.Host(program, "prometheus", "http://x").reload() == ""
    assert program.answers == []


def test_a_reload_that_fails_tells_what_the_program_said(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(monkeypatch, told(1, 1.5e9), told(0, 1.5e9))
    assert monitoring_host.Host(program, "prometheus", "http://x").reload() == "err: no such receiver"
    # One that had failed before, by hand, is no failure of this one.
    program = Program(monkeypatch, told(0, 1.5e9), told(0, 1.5e9), told(1, 1.6e9))
    assert monitoring_host.Host(program, "prometheus", "http://x").reload() == ""


def test_a_start_is_over_when_the_program_answers_and_has_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(monitoring_host, "Path", lambda _: tmp_path)  # systemd's directory
    program = Program(monkeypatch, "", told(0, 0), told(1, 1.6e9))
    assert monitoring_host.Host(program, "prometheus", "http://x").restart() == ""
    program.code = 1
    assert monitoring_host.Host(program, "prometheus", "http://x").restart() == "err: no such receiver"


def test_a_tool_that_refuses_a_file_is_quoted_with_the_paths_of_the_host() -> None:
    def run(command: Sequence[str]) -> tuple[int, str, str]:
        staged = Path(command[-1])
        assert (staged.parent / "rules" / "a.yml").read_text() == "x"
        return 1, "", f"FAILED: parsing {staged.parent}/rules/a.yml"

    host = monitoring_host.Host(run, "prometheus", "http://x")
    files = [File(Path("/etc/prometheus/prometheus.yml"), b""), File(Path("/etc/prometheus/rules/a.yml"), b"x")]
    with pytest.raises(RefusedError, match=r"nothing has changed:\nFAILED: parsing /etc/prometheus/rules/a\.yml"):
        host.refuse_bad_files(["sh"], files[0].path, files)
    host.refuse_bad_files(["not-there-yet"], files[0].path, files)
