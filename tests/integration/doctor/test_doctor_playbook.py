"""The doctor on the hosts of every integration test: silent if all is well; it names a few faults and mends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import DISPATCH, TestLab, until
from tests.lab.hosts import execute


def examined(lab: TestLab) -> dict[str, Any]:
    """What the operator's command reports on the Dispatch host."""
    code, output = execute(lab.host(DISPATCH), "dispatch", "doctor", "--json")
    report = dict(json.loads(output))
    assert code == report["exit_code"], output
    return report


def names(report: dict[str, Any]) -> list[str]:
    return [finding["id"] for finding in report["findings"]]


@pytest.fixture
def healthy(lab: TestLab) -> TestLab:
    """The hosts, with the dead letters of other tests taken away."""
    until(lambda: names(examined(lab)) in ([], ["dead-letters"]))
    lab.run(DISPATCH, "dispatch", "dead", "purge", "--all")
    until(lambda: names(examined(lab)) == [])
    return lab


@pytest.mark.parametrize(
    ("name", "code", "script"),
    [
        ("service-stopped", 21, "systemctl stop dispatch"),
        ("unit-disabled", 1, "systemctl disable dispatch"),
        ("not-readable", 20, "chmod 700 $(readlink -f /app/current)"),
        ("password-readable", 1, "cd /etc/dispatch/credentials && chmod 755 . && chmod 644 amqp_password"),
    ],
)
def test_the_printed_fix_mends_the_fault(healthy: TestLab, name: str, code: int, script: str) -> None:
    healthy.run(DISPATCH, "sh", "-c", script)
    report = examined(healthy)
    assert (names(report)[0], report["exit_code"]) == (name, code)
    fix = report["findings"][0]["fix"]
    assert fix["where"] == "host"
    healthy.run(DISPATCH, "sh", "-c", fix["command"])
    until(lambda: names(examined(healthy)) == [])


def test_the_playbook_reports_the_fleet_and_fails_where_a_host_is_ill(healthy: TestLab, tmp_path: Path) -> None:
    page = tmp_path / "doctor.html"
    arguments = ("-e", f"dispatch_doctor_page={page}")
    run = healthy.playbook("doctor", *arguments)
    assert (run.code, run.changed) == (0, 0), run.output
    assert "The host is healthy." in page.read_text()

    healthy.run(DISPATCH, "systemctl", "stop", "dispatch")
    run = healthy.playbook("doctor", *arguments)
    healthy.run(DISPATCH, "systemctl", "start", "dispatch")
    assert run.code != 0
    assert "error: service-stopped" in run.output
    assert "fix, on the host, as root: systemctl start dispatch" in run.output
    assert "service-stopped" in page.read_text()
    assert healthy.password not in run.output + page.read_text()


def test_a_host_that_can_t_be_reached_is_told(healthy: TestLab, tmp_path: Path) -> None:
    page = tmp_path / "doctor.html"
    run = healthy.playbook("doctor", "-e", f"dispatch_doctor_page={page}", "-e", "ansible_ssh_port=1")
    assert run.code != 0
    assert "error: not-examined" in run.output
    assert "could not be examined" in page.read_text()
