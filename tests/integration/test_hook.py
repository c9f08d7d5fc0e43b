"""A shop's own code, packed into the artifact, is called on the host with each order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import DISPATCH, TestLab, order, until
from tests.lab.ansible import ROOT, Run
from tests.second_engine import deploy as pyinfra

pytestmark = pytest.mark.long

HOOK = """
import os
from pathlib import Path

def ship(order):
    with Path(os.environ["STATE_DIRECTORY"], "shipped").open("a") as shipped:
        shipped.write(order.id + "\\n")
    if order.user == "hungry":
        b"x" * (1 << 30)
"""
VARIABLES: dict[str, object] = {
    "dispatch_hook": "courier:ship",
    "dispatch_environment": {"DISPATCH_RETRY_DELAYS": "1"},
}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "courier").mkdir()
    (tmp_path / "courier" / "__init__.py").write_text(HOOK)
    command = (sys.executable, "-m", "dispatch_app.artifact", tmp_path / "courier.zip", "--with", tmp_path / "courier")
    subprocess.run(command, cwd=ROOT, check=True)
    return tmp_path / "courier.zip"


@pytest.fixture
def host(lab: TestLab) -> Iterator[TestLab]:
    """The lab, whose Dispatch host has no hook and no dead letter afterwards."""
    yield lab
    assert lab.playbook("dispatch").code == 0
    lab.run(DISPATCH, "dispatch", "dead", "purge", "--reason", "hook-died")


def deploy(lab: TestLab, artifact: Path, **variables: object) -> Run:
    return lab.playbook("dispatch", "-e", json.dumps({**VARIABLES, "dispatch_artifact": str(artifact), **variables}))


def as_data(**variables: object) -> list[str]:
    """The arguments by which pyinfra gets variables."""
    return [part for name, value in variables.items() for part in ("--data", f"{name}={json.dumps(value)}")]


def shipped(lab: TestLab, order_id: object) -> int:
    """How often the hook has been called with an order."""
    return lab.run(DISPATCH, "sh", "-c", "cat /var/lib/dispatch/shipped 2>/dev/null || :").split().count(str(order_id))


def test_a_hook_is_shipped_and_called_and_its_death_stops_nothing_else(host: TestLab, artifact: Path) -> None:
    run = deploy(host, artifact)
    assert run.code == 0, run.output
    assert deploy(host, artifact).changed == 0
    found = pyinfra(host.inventory, "--yes", *as_data(dispatch_artifact=str(artifact), **VARIABLES))
    assert (found.code, found.changed) == (0, {}), found.output

    published = order()
    host.publish(json.dumps(published).encode())
    until(lambda: host.dispatched(published["orderid"]) != [])
    assert shipped(host, published["orderid"]) == 1

    # The kernel ends the hook's process for its memory, and not the service, which goes on with other orders.
    hungry = {**order(), "user": "hungry"}
    host.publish(json.dumps(hungry).encode())
    until(lambda: shipped(host, hungry["orderid"]) > 0)
    host.assert_consuming()
    until(lambda: "hook-died" in host.run(DISPATCH, "dispatch", "dead", "list", "--reason", "hook-died"), 60)
    assert shipped(host, hungry["orderid"]) == 2  # at once, and after the one delay
    assert host.run(DISPATCH, "systemctl", "show", "dispatch", "-P", "NRestarts") == "0"


def test_a_hook_that_can_t_be_imported_never_goes_live(host: TestLab, artifact: Path) -> None:
    before = host.run(DISPATCH, "systemctl", "show", "dispatch", "--property=InvocationID")
    run = deploy(host, artifact, dispatch_hook="courier:fly")
    assert run.code != 0
    assert "courier:fly" in run.output
    assert "nothing that is live has changed" in run.output
    assert host.run(DISPATCH, "systemctl", "show", "dispatch", "--property=InvocationID") == before
