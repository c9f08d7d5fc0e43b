"""A host killed for memory is told so, with the message at fault, and is not told to roll back."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatch_app.doctor import host, state
from dispatch_app.doctor.checks import CHECKS, memory
from dispatch_app.suspects import MEMORY, REASON

ME = pwd.getpwuid(os.getuid())


def look(result: str, deaths: dict[str, int], journal: list[str], active: bool = False, restarts: str = "3") -> Any:
    """Look at a unit that ended with `result`."""
    unit = {"Result": result, "NRestarts": restarts}
    seen = SimpleNamespace(unit=unit, journal=journal, active=active, uptime=1.0)
    case: Any = SimpleNamespace(host=seen, state=SimpleNamespace(deaths=lambda: deaths))
    return memory.out_of_memory(case)


def test_the_message_at_fault_is_named_and_nothing_is_rolled_back() -> None:
    finding = look("oom-kill", {"a" * 32: 1, "b" * 32: 2}, [])
    assert "result oom-kill, 3 restarts; 2 of its processes died over" in finding.evidence
    assert "b" * 32 in finding.evidence
    assert REASON in finding.cause
    assert finding.command == "systemctl restart dispatch"


def test_without_a_message_at_fault_more_memory_is_the_remedy() -> None:
    finding = look("oom-kill", {}, [])
    assert "MemoryMax" in finding.cause
    assert "rollback" not in finding.command


def test_a_service_that_runs_again_is_told_by_its_journal() -> None:
    journal = ["dispatch.service: Failed with result 'oom-kill'."]
    assert look("success", {}, journal, active=True)
    assert look("success", {}, journal, active=True, restarts="0") is None
    assert look("success", {}, ['{"orders": [{"id": "Failed with result \'oom-kill\'."}]}'], active=True) is None
    assert look("exit-code", {}, journal) is None


def test_a_service_with_a_hook_is_told_by_the_kill_and_its_own_end() -> None:
    killed = "dispatch.service: A process of this unit has been killed by the OOM killer."
    ended = "dispatch.service: Failed with result 'signal'."
    assert "killed by the OOM killer" in look("signal", {}, [killed]).evidence
    assert look("success", {}, [killed, ended], active=True)
    assert look("success", {}, [killed], active=True) is None  # of the hook's process alone
    assert look("signal", {}, [ended]) is None


def test_it_explains_a_crash_loop() -> None:
    needs = {check.id: check.needs for check in CHECKS}
    assert "out-of-memory" in needs["crash-loop"]
    assert "out-of-memory" in needs["service-failed"]


@pytest.mark.parametrize("text", ["[]", "{", '{"x; rm": 1}', "[" * 100_000, json.dumps({"a" * 32: []})])
def test_a_memory_that_others_wrote_is_no_more_than_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(host.Host, "user", ME)
    monkeypatch.setattr(state.State, "directory", tmp_path)
    seen = state.State(host.Host())
    assert seen.deaths() == {}
    (tmp_path / MEMORY).write_text(text)
    assert seen.deaths() == {}
    (tmp_path / MEMORY).write_text(json.dumps({"a" * 32: 2}))
    assert seen.deaths() == {"a" * 32: 2}
