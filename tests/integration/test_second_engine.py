"""pyinfra on the tests' own lab: the inventory is the dynamic one, and Ansible has provisioned the host."""

from __future__ import annotations

import json

from tests.integration.conftest import DISPATCH, TestLab
from tests.second_engine import deploy


def test_pyinfra_finds_nothing_to_change_where_ansible_has_been(lab: TestLab) -> None:
    run = deploy(lab.inventory, "--yes")
    assert run.code == 0, run.output
    assert f"[{DISPATCH}] Connected" in run.output
    assert run.changed == {}
    assert lab.password not in run.output + json.dumps(run.report)


def test_a_preview_shows_what_would_change(lab: TestLab) -> None:
    lab.run(DISPATCH, "sh", "-c", "echo '# mine' >> /usr/bin/dispatch")
    run = deploy(lab.inventory, "--dry", "--diff")
    assert list(run.planned.values()) == [[DISPATCH]]
    assert "-# mine" in run.output
    assert lab.run(DISPATCH, "tail", "-n", "1", "/usr/bin/dispatch") == "# mine"
    assert list(deploy(lab.inventory, "--yes").changed.values()) == [[DISPATCH]]
