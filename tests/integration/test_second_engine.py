"""pyinfra on the tests' own lab: the inventory is the dynamic one, and Ansible has provisioned the host."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

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
    mended = deploy(lab.inventory, "--yes", "-vvv")
    assert list(mended.changed.values()) == [[DISPATCH]]
    assert "Loaded fact" in mended.output
    assert lab.password not in mended.output + json.dumps(mended.report)


def test_a_vault_is_opened_as_ansible_opens_it(lab: TestLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory, password = lab.inventory.with_name("vaulted"), tmp_path / "password"
    shutil.copytree(lab.inventory, inventory)
    password.write_text("of the vault")
    vault = inventory / "group_vars" / "dispatch.yml"
    vault.write_text(f"dispatch_amqp_password: {lab.password}\n")
    subprocess.run(["ansible-vault", "encrypt", "--vault-password-file", str(password), str(vault)], check=True)
    assert lab.password not in vault.read_text()
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    opened = deploy(inventory, "--yes")
    assert (opened.code, opened.changed) == (0, {}), opened.output
    password.write_text("another")
    refused = deploy(inventory, "--yes")
    assert refused.code != 0
    assert "Decryption failed" in refused.output
    assert "Traceback" not in refused.output
