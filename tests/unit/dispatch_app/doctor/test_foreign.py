"""The doctor where the roles run another program than this repository's own, such as the Go original."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatch_app import topology
from dispatch_app.doctor import host, process, state
from dispatch_app.doctor.broker import Depth
from dispatch_app.doctor.case import Case
from dispatch_app.doctor.checks import flow, ledger, queues, release, service
from dispatch_app.doctor.table import COMPLETE, LookError
from dispatch_app.settings import load

SETTINGS = load({"AMQP_HOST": "127.0.0.1", "AMQP_PASS": "x"})


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    """A host whose service runs and answers nothing, with a damaged ledger of the program before."""
    running = {"ActiveState": "active", "SubState": "running", "MainPID": "4711", "NRestarts": "1"}
    monkeypatch.setattr(host.Host, "unit", {**dict.fromkeys(host._PROPERTIES, ""), **running})
    monkeypatch.setattr(
        host.Host,
        "unit_text",
        f"{host.OURS}\n[Service]\nWorkingDirectory={tmp_path}/current\nExecStart={tmp_path}/current/dispatch\n",
    )
    monkeypatch.setattr(host.Host, "uptime", 60.0)
    monkeypatch.setattr(process.Process, "ask", lambda *_: (0, "refused"))
    monkeypatch.setattr(state.State, "problem", lambda _: "damaged")
    return Case()


def live(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / name
    directory.mkdir()
    (directory / COMPLETE).touch()
    (tmp_path / "current").symlink_to(directory)
    return directory


@pytest.mark.parametrize(
    ("name", "foreign"),
    [("0d69affe422b-python3.11", False), ("0d69affe422b-go1.19", True), ("0d69affe422b-binary", True)],
)
def test_what_only_our_program_tells_does_not_apply_to_another(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, foreign: bool
) -> None:
    live(tmp_path, name)
    monkeypatch.setattr(state.State, "ledger", tmp_path / "ledger.db")
    monkeypatch.setattr(state.State, "directory", tmp_path)
    assert (case.host.foreign, case.host.version) == (foreign, name)
    for check in (service.service_hung, ledger.ledger_damaged):
        if foreign:
            with pytest.raises(LookError, match="not applicable to this program"):
                check(case)
        else:
            assert check(case)


def test_a_host_that_was_set_up_by_hand_is_judged_as_before(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.Host, "unit_text", f"[Service]\nWorkingDirectory={tmp_path}/current\n")
    live(tmp_path, "0d69affe422b-go1.19")
    assert not case.host.foreign
    assert service.service_hung(case) is None
    assert flow.not_consuming(case) is None


def test_a_program_that_is_missing_is_built_by_the_play_and_not_by_hand(case: Case, tmp_path: Path) -> None:
    (live(tmp_path, "0d69affe422b-go1.19") / "main.go").touch()
    found = release.executable_missing(case)
    assert found
    assert "go build" not in found.command


def test_queues_that_only_our_program_uses_are_told_and_no_fault(case: Case, tmp_path: Path) -> None:
    live(tmp_path, "0d69affe422b-go1.19")
    asked: list[str] = []

    def queue(name: str) -> dict[str, Any]:
        asked.append(name)
        return {"durable": True, "auto_delete": False, "arguments": {}}

    vars(case)["broker"] = SimpleNamespace(settings=SETTINGS, queue=queue)
    vars(case)["depths"] = dict.fromkeys(topology.queues(SETTINGS), Depth(3, 0))
    assert queues.declared_otherwise(case) is None
    assert asked == ["orders"]
    with pytest.raises(LookError, match=r"3 wait in orders[.]dead, which this program"):
        flow.dead_letters(case)
    with pytest.raises(LookError, match="which this program does not fill"):
        flow.retry_backlog(case)
