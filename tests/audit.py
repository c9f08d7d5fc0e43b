"""`make audit`: is any version that the locks pin known to be vulnerable?

pip-audit asks a service of advisories of each package. Where it can't, behind a mirror of the package index for
example, it calls the packages that it has skipped free of vulnerabilities. Here they are *not audited*, which is
neither good news nor bad. Its own variables of the environment, such as PIP_AUDIT_OSV_URL, say which service it asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What hosts get, and what the controller and its tests run with; requirements-dev.txt holds requirements.txt, too.
LOCKS = (
    "dispatch_app/requirements.txt",
    "dispatch_app/tracing.txt",
    "dispatch_app/installer.txt",
    "requirements-dev.txt",
    "requirements-lock.txt",
)
PIP_AUDIT = str(Path(sys.executable).with_name("pip-audit"))


@dataclass(frozen=True)
class Audit:
    """What is known of a lock: how many of its packages were asked about, what is wrong with them, or why none was."""

    audited: int = 0
    vulnerable: list[str] = field(default_factory=list)
    not_audited: str = ""


def audit(lock: Path) -> Audit:
    """Ask about every package of a lock, whose pins have hashes."""
    command = [PIP_AUDIT, "--strict", "--disable-pip", "--require-hashes", "--requirement", str(lock)]
    options = ["--format", "json", "--desc", "off", "--progress-spinner", "off"]
    done = subprocess.run([*command, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        asked = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        last = (done.stderr.strip().splitlines() or [f"pip-audit ended with exit code {done.returncode}"])[-1]
        return Audit(not_audited=last.removeprefix("ERROR:pip_audit._cli:"))
    return judge(asked)


def judge(asked: list[Mapping[str, Any]]) -> Audit:
    """What pip-audit's answers about the packages of a lock come to."""
    skipped = [one for one in asked if "vulns" not in one]
    if skipped or not asked:
        return Audit(not_audited=skipped[0]["skip_reason"] if skipped else "pip-audit found no package there")
    return Audit(len(asked), [_vulnerable(one, found) for one in asked for found in one["vulns"]])


def _vulnerable(package: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    names = ", ".join([found["id"], *found.get("aliases", [])])
    mended = f"mended in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "not mended yet"
    return f"{package['name']} {package['version']}: {names} ({mended})"


def main(locks: tuple[str, ...] = LOCKS) -> int:
    """Print what is known of each lock. Return 1 for a vulnerable package and, in CI, for one that was not audited."""
    found = {lock: audit(ROOT / lock) for lock in locks}
    for lock, one in found.items():
        if one.not_audited:
            print(f"{lock}: NOT AUDITED ({one.not_audited})")
        elif one.vulnerable:
            print(f"{lock}: VULNERABLE, {one.audited} packages audited")
            print("".join(f"  {line}\n" for line in one.vulnerable), end="")
        else:
            print(f"{lock}: clean, {one.audited} packages audited")
    in_ci = os.environ.get("CI", "") not in ("", "false")
    if any(one.not_audited for one in found.values()):
        print("Nothing is known of what was not audited. Run this where the advisories can be reached, as CI does.")
    return int(any(one.vulnerable or (one.not_audited and in_ci) for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
