"""Which versions in a host's release does a file of advisories list? The advisories are OSV records, in JSON.

OSV (ossf.github.io/osv-schema) is the form of PyPI's advisories and of GitHub's. Only versions that a record lists are
compared, because the standard library does not know the order of versions; a record that lists none is told of, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import report as rendering
from .table import CONTROLLER, WARNED, WARNING

ID = "version-advised-against"


class AdvisoriesError(Exception):
    """The file holds no advisories; the text says what is wrong with it."""


def read(path: Path) -> list[Mapping[str, Any]]:
    """The records of a file, which holds one or a list of them. Raises AdvisoriesError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdvisoriesError(f"{path} can't be read: {error}") from error
    records = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) and "id" in one and isinstance(one.get("affected"), list) for one in records):
        raise AdvisoriesError(f"{path} holds no OSV records, each an object with id and affected")
    return records


def warn(report: dict[str, Any], records: list[Mapping[str, Any]]) -> None:
    """Add a warning to a report of a host whose release holds what a record advises against."""
    seen = sorted(_seen(report["components"], records))
    if not seen:
        return
    finding = {
        "id": ID, "area": "release", "severity": WARNING, "evidence": "; ".join(seen),
        "cause": "The release holds a version that an advisory lists. Build an artifact with another one first.",
        "fix": {"where": CONTROLLER, "command": "ansible-playbook playbooks/dispatch.yml"},
    }  # fmt: skip
    report["findings"].append(finding)
    report["healthy"] = False
    report["exit_code"] = report["exit_code"] or WARNED
    report["areas"] = rendering.areas(report["findings"], report["checks"])


def _seen(components: Mapping[str, str], records: list[Mapping[str, Any]]) -> Iterator[str]:
    held = {_normal(name): (name, version) for name, version in components.items()}
    for record in records:
        for affected in record["affected"] if not record.get("withdrawn") else []:
            package = affected.get("package", {})
            name, version = held.get(_normal(str(package.get("name", ""))), ("", ""))
            if not name or package.get("ecosystem") != "PyPI":
                continue
            names = ", ".join([str(record["id"]), *map(str, record.get("aliases", []))])
            if version in affected.get("versions", []):
                yield f"{name} {version}: {names}"
            elif not affected.get("versions"):
                yield f"{name} {version}: {names} lists no versions, so compare its ranges yourself"


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
