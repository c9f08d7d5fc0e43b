"""No secret is told to whoever asks for a comparison or a switch."""

from __future__ import annotations

import dataclasses
import json

from ansible.module_utils import app_comparison

from tests.unit.roles.hosts import Host


def test_no_secret_is_shown(host: Host) -> None:
    header = f"{app_comparison.OURS}; changes made here by hand are overwritten.\n"
    host.live["unit"].write_text(f"{header}[Unit]\n")
    host.live["environment"].write_text('AMQP_PASS="put here by hand"\n')
    host.broken["new"] = ValueError("unhealthy")
    shown = app_comparison.diff(host.wanted, host.release("new"))
    changes = app_comparison.service_changes(host.wanted, host.release("new"))
    outcome = host.switch()
    told = json.dumps([shown, changes, app_comparison.as_text(shown), dataclasses.asdict(outcome)])
    for secret in ("new secret", "old secret", "put here by hand", *host.wanted["credentials"].values()):
        assert secret not in told
    (unit,) = [one for one in shown if "before" in one]
    assert (unit["before"], unit["after"]) == (f"{header}[Unit]\n", "new")
    environment = next(
        one["prepared"] for one in shown if one.get("prepared", "").startswith(str(host.live["environment"]))
    )
    assert "content (not shown: it was not written by this role, and may hold a password)" in environment
    assert any(line.startswith(f"{host.live['credentials']}/password: ") and "content" in line for line in changes)
    assert "-[Unit]" in app_comparison.as_text(shown)
