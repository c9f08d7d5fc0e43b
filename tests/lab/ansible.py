"""Runs the project's playbooks as a user does, and reads the recap they end with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB_INVENTORY = ROOT / "inventories" / "lab"

RECAP_LINE = re.compile(r"^(\S+)\s+: (ok=\d+ .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """How a playbook ended: its exit code, its output, and each host's counts in the recap (ok, changed, …)."""

    code: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        _, _, text = self.output.rpartition("PLAY RECAP")
        return {
            host: {name: int(count) for name, count in (pair.split("=") for pair in counts.split())}
            for host, counts in RECAP_LINE.findall(text)
        }

    @property
    def changed(self) -> int:
        return sum(counts["changed"] for counts in self.recap.values())


def playbook(
    name: str,
    *arguments: str,
    inventory: Path = LAB_INVENTORY,
    watch: Callable[[str], object] | None = None,
) -> Run:
    """Run ``playbooks/<name>.yml`` on `inventory`; `watch` gets each line of output as it is printed."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), f"playbooks/{name}.yml", *arguments]
    lines = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if watch:
                watch(line)
    return Run(process.returncode, "".join(lines))
