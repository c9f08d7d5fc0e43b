"""The playbooks need no ansible.cfg: it is not read from another directory, nor where everybody can write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.ansible import ROOT


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A host that is this machine, and no address of a RabbitMQ, which the role's own preflight has to miss."""
    file = tmp_path / "hosts.yml"
    file.write_text("dispatch: {hosts: {here: {ansible_connection: local, ansible_become: false}}}\n")
    return file


def refused(inventory: Path, directory: Path, root: Path = ROOT, **environment: str) -> str:
    """Check the host from a directory; return what was said."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(root / "playbooks" / "check.yml")]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        command,
        cwd=directory,
        env={**variables, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_from_another_directory(inventory: Path, tmp_path: Path) -> None:
    assert "dispatch_amqp_host is not set" in refused(inventory, tmp_path)


def test_with_a_path_of_roles_of_one_s_own(inventory: Path, tmp_path: Path) -> None:
    assert "dispatch_amqp_host is not set" in refused(inventory, ROOT, ANSIBLE_ROLES_PATH=str(tmp_path))


def test_in_a_checkout_that_everybody_can_write_to_and_whose_path_has_a_space(inventory: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "my project"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    checkout.chmod(0o777)
    said = refused(inventory, checkout, checkout)
    assert "dispatch_amqp_host is not set" in said
    assert "world writable" in " ".join(said.split())
