"""A service is healthy if it is ready in time and stays so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils import app_host, app_proof

from tests.unit.roles.hosts import Host


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes by sleeping alone."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now

    def sleep(seconds: float) -> None:
        clock.now += seconds

    clock.sleep = sleep
    monkeypatch.setattr(app_proof, "time", clock)
    return clock


@pytest.fixture
def started_at(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time from which on systemd says that the new process is active."""
    state = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "StatusText": ""}
    state["NeedDaemonReload"] = "no"

    def at(seconds: float) -> None:
        monkeypatch.setattr(
            app_proof, "properties", lambda _: {**state, "InvocationID": "old" if clock.now < seconds else "new"}
        )

    return at


def test_the_process_before_has_its_time_to_end(
    host: Host, clock: SimpleNamespace, started_at: Callable[[float], None]
) -> None:
    started_at(30)
    app_proof.restart(dataclasses.replace(host.service, budget=5, stop_seconds=31))
    assert 33 < clock.now < 34
    clock.now = 0
    with pytest.raises(app_proof.UnhealthyError, match="the process before it has not ended"):
        app_proof.restart(dataclasses.replace(host.service, budget=5, stop_seconds=1))


def test_a_start_is_proven_by_a_line_of_its_own_journal(
    host: Host, clock: SimpleNamespace, started_at: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def has_logged(invocation: str, _: str) -> bool:
        asked.append(invocation)
        return bool(clock.now > 4)

    monkeypatch.setattr(app_proof, "has_logged", has_logged)
    started_at(2)
    service = dataclasses.replace(host.service, ready_log="waiting", budget=5)
    app_proof.restart(service)
    assert 7 < clock.now < 8
    assert set(asked) == {"new"}
    started_at(clock.now + 1)
    monkeypatch.setattr(app_proof, "has_logged", lambda *_: False)
    with pytest.raises(app_proof.UnhealthyError, match="no line of its journal matches 'waiting'"):
        app_proof.restart(service)


@pytest.mark.parametrize(("known", "ready_log", "least"), [(True, "waiting", 0), (True, "", 3), (False, "waiting", 3)])
def test_a_known_release_that_tells_when_it_is_ready_need_not_stay_ready(
    host: Host,
    clock: SimpleNamespace,
    started_at: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
    ready_log: str,
    least: float,
) -> None:
    monkeypatch.setattr(app_proof, "has_logged", lambda *_: True)
    started_at(2)
    app_proof.restart(dataclasses.replace(host.service, ready_log=ready_log), known)
    assert 2 + least <= clock.now < 2.5 + least


@pytest.mark.parametrize(
    ("known", "stale", "enabled", "told"),
    [
        (True, "no", True, []),
        (True, "yes", True, ["daemon-reload"]),
        (False, "no", True, ["daemon-reload"]),
        (True, "no", False, ["enable"]),
    ],
)
@pytest.mark.usefixtures("clock")
def test_systemd_reads_all_units_again_only_where_it_has_to(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
    stale: str,
    enabled: bool,
    told: list[str],
) -> None:
    asked: list[str] = []

    def ran(*command: str) -> str:
        asked.append(command[1])
        invocation = "new" if "restart" in asked else "old"
        state = f"ActiveState=active\nSubState=running\nNRestarts=0\nStatusText=\nInvocationID={invocation}\n"
        return f"{state}NeedDaemonReload={stale}\n"

    host.ran = ran
    monkeypatch.setattr(app_host, "enabled", lambda _: enabled)
    app_proof.restart(host.service, known)
    assert [one for one in asked if one not in ("show", "restart")] == told


@pytest.mark.parametrize(
    ("pattern", "found"), [("(?i)waiting for messages", True), ("^Order 1$", True), ("messages.*Order", False)]
)
def test_a_line_is_looked_for_in_what_one_run_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, found: bool
) -> None:
    stub = tmp_path / "journalctl"
    stub.write_text(
        f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\nprintf ' [*] Waiting for Messages\\nOrder \\377\\nOrder 1\\n'\n"
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert app_proof.has_logged("7f", pattern) is found
    assert (tmp_path / "asked").read_text().split()[0] == "_SYSTEMD_INVOCATION_ID=7f"
