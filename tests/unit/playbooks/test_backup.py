"""backup.yml and restore.yml on this machine, to whose changes a mount namespace of its own puts an end afterwards."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatch_app.ledgers.sqlite import SqliteLedger
from tests.lab.ansible import ROOT, Run

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="only root may mount, and not in every container",
)
STATE = "/var/lib/dispatch"
HOST = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
}


class Machine:
    """A host of Dispatch's that is this machine, with a ledger and without a service."""

    def __init__(self, root: Path) -> None:
        self.root, self.backups = root, root / "backups"
        (root / "memory").mkdir()
        command = ["unshare", "--mount", str(Path(__file__).with_name("host_of_its_own.sh")), str(root / "memory")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.inventory = root / "hosts.json"
        self.inventory.write_text(json.dumps({"dispatch": {"hosts": {"here": HOST, "there": HOST}}}))
        settings = f"PYTHONPATH={shlex.quote(str(ROOT))} STATE_DIRECTORY={STATE}"
        (root / "program").write_text(f'#!/bin/sh\n{settings} exec {sys.executable} -m dispatch_app "$@"\n')
        self.run("install", "-m", "0755", str(root / "program"), "/usr/bin/dispatch")
        self.run("mkdir", "-m", "0700", STATE)
        self.run("mkdir", "/etc/dispatch")
        (root / "environment").write_text('AMQP_HOST="rabbit"\nSHOP_TOKEN="known"\n')
        self.run("cp", str(root / "environment"), "/etc/dispatch/environment")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", "--mount", f"--target={self.process.pid}", "--wd=/", *command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play(self, book: str, *arguments: str, host: str = "here") -> Run:
        ansible = [sys.executable, "-m", "ansible", "playbook", "-i", str(self.inventory), f"playbooks/{book}.yml"]
        values = ["-e", f"backup_directory={self.backups}", "--limit", host, "--diff"]
        done = subprocess.run(
            ["nsenter", "--mount", f"--target={self.process.pid}", f"--wd={ROOT}", *ansible, *values, *arguments],
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert "known" not in done.stdout
        return Run(done.returncode, done.stdout + done.stderr)

    def record(self, *ids: str) -> None:
        """Have the ledger be one of these orders."""
        made = self.root / "made"
        made.unlink(missing_ok=True)
        with closing(SqliteLedger(made)) as ledger:
            ledger.record([(one, None, None, None, None, 0) for one in ids])
        self.run("cp", str(made), f"{STATE}/ledger.db")

    def orders(self) -> list[str]:
        return sorted(json.loads(line)["id"] for line in self.run("dispatch", "orders", "--json").splitlines())

    def saved(self, host: str = "here") -> list[Path]:
        return sorted(self.backups.glob(f"{host}/*"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.process.communicate(timeout=60)


@pytest.mark.long
def test_what_is_saved_comes_back_to_a_host_made_anew_and_only_there(machine: Machine) -> None:
    machine.record("a", "b")
    begun = int(time.time())
    preview = machine.play("backup", "--check")
    assert (preview.code, preview.changed, machine.saved()) == (0, 0, []), preview.output
    run = machine.play("backup", "-e", "backup_kept=1")
    assert run.code == 0, run.output
    assert "the ledger of 2 orders" in run.output
    (archive,) = machine.saved()
    assert [path.stat().st_mode & 0o777 for path in (archive, archive.parent, machine.backups)] == [0o600, 0o700, 0o700]
    assert begun <= int(machine.run("cat", f"{STATE}/last-backup")) <= time.time()
    assert machine.run("find", "/var/tmp", "-name", "backup-*") == ""

    settled = machine.play("restore")
    assert (settled.code, settled.changed) == (0, 0), settled.output
    machine.run("rm", "-r", STATE)
    preview = machine.play("restore", "--check")
    assert preview.code == 0, preview.output
    assert preview.changed == 1
    machine.run("test", "!", "-e", STATE)
    restored = machine.play("restore")
    assert (restored.code, restored.changed) == (0, 1), restored.output
    assert "put back the ledger with its 2 orders" in restored.output
    assert machine.orders() == ["a", "b"]
    again = machine.play("restore")
    assert (again.code, again.changed) == (0, 0), again.output
    assert machine.run("find", "/var/tmp", "-name", "backup-*") == ""


@pytest.mark.long
def test_nothing_is_lost_and_nothing_damaged_is_restored(machine: Machine) -> None:
    machine.record("a")
    assert machine.play("backup").code == 0
    machine.record("later")
    for arguments, host, words in (
        (
            (),
            "here",
            "such as later, and lacks 1 of its 1. If they may be lost, name this host: -e backup_overwrite=here",
        ),
        ((), "there", "There is no backup of there in"),
        (("-e", "backup_moment=yesterday"), "here", "backup_moment is yesterday, of which there is no backup of here"),
    ):
        refused = machine.play("restore", *arguments, host=host)
        assert refused.code != 0
        assert refused.changed == 0
        assert words in " ".join(refused.output.split())
    assert machine.orders() == ["later"]
    # A host of another name takes it, too.
    moved = machine.play("restore", "-e", "backup_of=here", "-e", "backup_overwrite=there", host="there")
    assert (moved.code, moved.changed) == (0, 1), moved.output
    assert machine.orders() == ["a"]
    (archive,) = machine.saved()
    archive.write_bytes(archive.read_bytes()[:-40])
    damaged = machine.play("restore")
    assert damaged.code != 0
    assert "is damaged" in damaged.output


@pytest.mark.long
def test_a_backup_that_is_not_kept_leaves_no_mark(machine: Machine) -> None:
    machine.record("a")
    refused = machine.play("backup", "-e", "backup_kept=0")
    assert "backup_kept is 0. Set it to how many" in " ".join(refused.output.split())
    machine.backups.touch()  # no directory can be made in its place
    assert machine.play("backup").code != 0
    machine.run("test", "!", "-e", f"{STATE}/last-backup")
    assert machine.run("find", "/var/tmp", "-name", "backup-*") == ""
