"""Runs the project's pyinfra deploy as a user does, and reads what it says it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.ansible import ROOT

# Not ``python -m pyinfra``: that imports paramiko before gevent can make its waiting for a jump host cooperative.
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))


@dataclass(frozen=True)
class Deploy:
    """How a deploy ended: its exit code, what it logged, and what it reported as JSON where it came that far."""

    code: int
    output: str
    report: dict[str, Any]

    @property
    def planned(self) -> dict[str, list[str]]:
        """By operation that would change something, the hosts it would change, in order of their names."""
        changes = {operation["name"]: sorted(operation["hosts_with_change"]) for operation in self.report["plan"]}
        return {name.removeprefix("Dispatch | "): hosts for name, hosts in changes.items() if hosts}

    @property
    def changed(self) -> dict[str, list[str]]:
        """By operation that has changed something, the hosts it has changed, in order of their names."""
        changes = {one["name"]: sorted(one["success"]) for one in self.report["results"]["operations"]}
        return {name.removeprefix("Dispatch | "): hosts for name, hosts in changes.items() if hosts}


def deploy(inventory: Path, *arguments: str) -> Deploy:
    """Run ``deploys/dispatch.py`` on `inventory`, which Ansible reads."""
    done = subprocess.run(
        [PYINFRA, "--json", "deploys/inventory.py", "deploys/dispatch.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_INVENTORY": str(inventory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return Deploy(done.returncode, done.stderr, json.loads(done.stdout) if done.stdout.startswith("{") else {})
