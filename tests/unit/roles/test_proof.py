"""A service is healthy if it is ready in time and stays so."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from ansible.module_utils import app_proof

from tests.unit.roles.hosts import Host


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
