"""A service is healthy if its check passes, and if it is ready in time and stays so."""

from __future__ import annotations

import dataclasses
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import app_proof

from tests.unit.roles.hosts import Host

CHECK = "venv/bin/check"


def test_the_process_before_has_its_time_to_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    state = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "StatusText": ""}

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(app_proof, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    monkeypatch.setattr(app_proof, "properties", lambda _: {**state, "InvocationID": "old" if now < 30 else "new"})
    app_proof.restart(dataclasses.replace(host.service, budget=5, stop_seconds=31))
    assert 33 < now < 34
    now = 0
    with pytest.raises(app_proof.UnhealthyError, match="the process before it has not ended"):
        app_proof.restart(dataclasses.replace(host.service, budget=5, stop_seconds=1))


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

    service = dataclasses.replace(host.service, budget=0.2)
    staged = host.stage()
    monkeypatch.setattr(app_proof, "CHECK_STOP_SECONDS", 0.2)
    monkeypatch.setattr(subprocess, "run", stub)
    assert app_proof.failed_check(service, host.release("new"), staged, CHECK) == said
    assert "--property=RuntimeMaxSec=0.2" in commands[0]
    assert f"--property=LoadCredential=password:{staged}/credentials/password" in commands[0]
    assert "new secret" not in " ".join(commands[0])
