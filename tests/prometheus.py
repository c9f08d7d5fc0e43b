"""Prometheus' and Alertmanager's own tools, and what the rules and the dashboard ask for.

Where this machine has no such tool, Debian's packages are unpacked below build/, so that no server is started here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.lab import engine
from tests.lab.ansible import ROOT

MONITORING = ROOT / "templates" / "monitoring"
UNPACKED = ROOT / "build" / "prometheus"
# Where each tool is; from Debian 13 on, promtool is a package of its own.
PACKAGES = {"promtool": ("promtool", "prometheus"), "amtool": ("prometheus-alertmanager",)}
# Words of PromQL that may stand where a name does.
_WORDS = {
    "and",
    "or",
    "unless",
    "by",
    "on",
    "group_left",
    "group_right",
    "ignoring",
    "without",
    "offset",
    "bool",
    "inf",
}


def tool(name: str) -> Path:
    """Return the path of promtool or amtool. Raises LabError where there is none and none can be had."""
    if found := shutil.which(name):
        return Path(found)
    path = UNPACKED / "usr" / "bin" / name
    if not path.exists():
        engine.unpack(PACKAGES[name], UNPACKED)
    return path


def rules() -> list[dict[str, Any]]:
    """All rules, those that record and those that alert."""
    files = sorted((MONITORING / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Everything in PromQL that the rules and the dashboard have."""
    for rule in rules():
        yield rule["expr"]
    for row in yaml.safe_load((MONITORING / "dashboard.yml").read_text())["rows"]:
        for panel in row["panels"]:
            yield from panel["queries"].values()


def metrics(expression: str) -> set[str]:
    """The names of the metrics in an expression of PromQL (prometheus.io, "Querying Prometheus")."""
    text = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression)
    text = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])", text)
    return set(names) - _WORDS


def asked_of() -> set[str]:
    """The names of all metrics that the rules and the dashboard ask for; Prometheus makes ALERTS itself, of alerts."""
    return {name for expression in expressions() for name in metrics(expression)} - {"ALERTS"}
