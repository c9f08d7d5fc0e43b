"""Inventories of a lab's hosts, for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.lab.ansible import LAB_INVENTORY
from tests.lab.hosts import LABEL, Lab


def copied(lab: Lab, directory: Path, broker: str, cluster: bool = False) -> Path:
    """Copy ``inventories/lab`` for another lab, pointed at `broker`; return the copy, which tests may edit.

    Several brokers of it are a `cluster`, or each is one of its own.
    """
    inventory = directory / "inventories" / "lab"
    shutil.copytree(LAB_INVENTORY, inventory)
    replace(inventory / "lab.docker.yml", f"get('{LABEL}') == 'lab'", f"get('{LABEL}') == '{lab.name}'")
    variables = inventory / "group_vars" / "all" / "dispatch.yml"
    replace(variables, """"{{ groups['rabbitmq'] | default([]) | sort | join(',') }}\"""", broker)
    replace(variables, """"{{ groups['rabbitmq'] | default([]) | length > 1 }}\"""", str(cluster).lower())
    return inventory


def listed(lab: Lab, file: Path, variables: Mapping[str, object]) -> Path:
    """Write an inventory of a lab's hosts in their groups, with `variables` for all; return its path."""
    groups: dict[str, dict[str, dict[str, object]]] = {}
    for host in lab.hosts:
        groups.setdefault(host.group, {"hosts": {}})["hosts"][host.name] = lab.connection(host.name)
    file.write_text(json.dumps({"all": {"vars": variables, "children": groups}}))
    return file


def replace(file: Path, old: str, new: str) -> None:
    """Replace text that occurs exactly once in a file. Raises ValueError if it does not."""
    text = file.read_text()
    if text.count(old) != 1:
        raise ValueError(f"{old!r} stands {text.count(old)} times in {file}")
    file.write_text(text.replace(old, new))
