"""The playbooks on an inventory that gives them nothing to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.ansible import playbook

# With --limit, which leaves out this machine, too, Ansible itself would have nothing to do and pass.
LIMITED = [f"{book} --limit env_dev" for book in ("dispatch", "doctor", "releases", "rollback", "site")]


def test_no_host_of_payment_is_an_error(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {}\n")
    run = playbook("payment", inventory=inventory)
    assert run.code != 0
    assert "The inventory has no host in the group payment" in run.output


@pytest.mark.parametrize("command", ["backup", "check", "doctor", "restore", *LIMITED])
def test_no_dispatch_host_is_an_error(command: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {}\n")
    run = playbook(*command.split(), inventory=inventory)
    assert run.code != 0
    assert "The inventory has no host in the group dispatch" in run.output
