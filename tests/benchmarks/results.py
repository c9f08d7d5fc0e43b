"""What benchmarks have measured, one JSON file a time in build/benchmarks; `make bench-report` prints the latest ones.

A file is written anew after each run, so that a benchmark which is interrupted keeps what it has.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.lab.ansible import ROOT

DIRECTORY = ROOT / "build" / "benchmarks"
_PACKAGES = ("ansible-core", "pika", "psycopg", "pyinfra")

Figures = dict[str, float]  # what one run has measured; a name ends with its unit


class Results:
    """The runs of one benchmark, as they come."""

    def __init__(self, benchmark: str, parameters: Mapping[str, object], directory: Path = DIRECTORY) -> None:
        """Begin a file; `parameters` are what the benchmark was asked for. Raises OSError."""
        now = datetime.now(timezone.utc)
        self.path = directory / f"{benchmark}-{now:%Y%m%dT%H%M%S.%f}Z.json"
        self._document: dict[str, Any] = {
            "benchmark": benchmark, "at": now.isoformat(), **_code(), "machine": _machine(), "versions": _versions(),
            "parameters": dict(parameters), "runs": [],
        }  # fmt: skip
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, case: str, figures: Figures) -> None:
        """Keep the figures of a run that went well. Raises OSError."""
        self._add({"case": case, "figures": figures})

    def fail(self, case: str, why: str) -> None:
        """Keep why a run has no figures. Raises OSError."""
        self._add({"case": case, "failed": why})

    def _add(self, run: dict[str, Any]) -> None:
        self._document["runs"].append(run)
        building = self.path.with_suffix(".new")
        building.write_text(json.dumps(self._document, indent=1) + "\n", encoding="utf-8")
        building.replace(self.path)


def medians(document: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the median of each figure of each case that has a run which went well."""
    runs: dict[str, list[Figures]] = {}
    for run in document["runs"]:
        if "figures" in run:
            runs.setdefault(run["case"], []).append(run["figures"])
    return {
        case: {name: statistics.median(one[name] for one in each) for name in each[0]} for case, each in runs.items()
    }


def report(directory: Path = DIRECTORY) -> str:
    """Return the latest results of each benchmark beside the ones before, as text. Raises OSError and ValueError."""
    files: dict[str, list[Path]] = {}
    for path in sorted(directory.glob("*.json")):  # by name, and so by time
        files.setdefault(path.stem.rpartition("-")[0], []).append(path)
    if not files:
        return f"There are no results in {directory}; run `make bench-consumer` or `make bench-provision` first."
    return "\n\n".join(_compared([json.loads(path.read_bytes()) for path in each[-2:]]) for each in files.values())


def _compared(documents: list[dict[str, Any]]) -> str:
    latest, before = medians(documents[-1]), medians(documents[0]) if len(documents) > 1 else {}
    lines = [
        f"{name}: {_told(document)}" for name, document in zip(("latest", "before"), documents[::-1], strict=False)
    ]
    width = max(map(len, latest), default=0)
    for case, figures in latest.items():
        for name, value in figures.items():
            line = f"{case:{width}}  {name:20} {value:12,.2f}"
            if (old := before.get(case, {}).get(name)) is not None:
                line += f" {old:12,.2f}" + (f" {value / old:7.2f}" if old else "")
            lines.append(line)
    lines += [f"{run['case']} failed: {run['failed']}" for run in documents[-1]["runs"] if "failed" in run]
    return "\n".join(lines)


def _told(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    changed = " with changes" if document["changed"] else ""
    return (
        f"{document['benchmark']}, {document['at'][:19]}Z, commit {document['commit'][:12]}{changed}; "
        f"{machine['processors']} x {machine['processor']}, {machine['memory_MiB']:,} MiB; "
        + ", ".join(f"{name} {value}" for name, value in {**document["versions"], **document["parameters"]}.items())
    )


def _code() -> dict[str, object]:
    """Which commit is measured, and whether the tree differs from it; an empty commit where git can't tell."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}


def _machine() -> dict[str, object]:
    try:
        told = dict(line.partition(":")[::2] for line in Path("/proc/cpuinfo").read_text().splitlines())
        model = next((value.strip() for name, value in told.items() if name.strip() == "model name"), "")
    except OSError:
        model = ""
    octets = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.platform(), "processor": model or platform.machine(), "processors": os.cpu_count(),
        "memory_MiB": octets >> 20,
    }  # fmt: skip


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    try:
        print(report())
    except (OSError, ValueError) as error:
        sys.exit(f"bench-report: {error}")
