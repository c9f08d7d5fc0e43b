"""What playbooks/doctor.yml makes of the doctor's reports: one view of a fleet, as text and as a page."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[3]
if "dispatch_app" not in sys.modules:
    # Ansible may have been started anywhere, and its search path is no place for all that this checkout's top holds.
    _spec = importlib.util.spec_from_file_location("dispatch_app", _CHECKOUT / "dispatch_app" / "__init__.py")
    if _spec is None or _spec.loader is None:
        raise ImportError(f"{_CHECKOUT} has no dispatch_app")
    sys.modules["dispatch_app"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["dispatch_app"])

from dispatch_app.doctor import advisories  # noqa: E402 - only now it can be found
from dispatch_app.doctor import report as rendering  # noqa: E402
from dispatch_app.doctor.shape import problem  # noqa: E402
from dispatch_app.doctor.table import BROKER, CONTROLLER, ERROR, FOUND, OK, WARNING  # noqa: E402

_LONGEST = 2000  # characters of what a host said that could not be examined
_NOT_EXAMINED = "The host can't be reached, or has no Python 3.9 or later as /usr/bin/python3."
_TWO_VERSIONS = (
    "Hosts of one fleet run different releases, so what becomes of an order depends on the host that gets it."
)


def collect(results: Mapping[str, Mapping[str, Any]], sources: Iterable[str], advised: str = "") -> dict[str, Any]:
    """Return the fleet that dispatch_app.doctor.report renders.

    `results` are what the doctor's task registered, by host, and `sources` the inventories that Ansible was given;
    `advised` is the path of a file of advisories, or "". A fault of the broker's is told once, and makes none of its
    hosts ill.
    """
    inventory = " ".join(f"-i {shlex.quote(source)}" for source in sources)
    records = advisories.read(Path(advised)) if advised else []
    hosts = {str(host): _report(str(host), result, inventory, records) for host, result in sorted(results.items())}
    shared = _shared(hosts)
    releases = sorted({report["release"] for report in hosts.values()} - {None})
    if len(releases) > 1:
        play = {"where": CONTROLLER, "command": f"ansible-playbook {inventory} playbooks/dispatch.yml"}
        evidence = f"live in this fleet: {', '.join(releases)}"
        finding = _finding("two-versions", "release", WARNING, evidence, _TWO_VERSIONS, play)
        shared.append({"who": "the fleet", "hosts": list(hosts), "reporters": list(hosts), "finding": finding})
    return {"hosts": hosts, "shared": shared}


def advisories_fault(path: str) -> str:
    """Why the file that dispatch_advisories names holds no advisories, or ""."""
    try:
        advisories.read(Path(path))
    except advisories.AdvisoriesError as error:
        return f"dispatch_advisories is {path}: {error}. Set it to a file of advisories, or leave it out."
    return ""


def _report(host: str, result: Mapping[str, Any], inventory: str, records: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One host's report, with its fixes completed by what only the controller knows."""
    report, why = _read(result)
    if report is None:
        ping = f"ansible {rendering.pattern(host)} {inventory} -m ansible.builtin.ping"
        fix = {"where": CONTROLLER, "command": ping}
        finding = _finding("not-examined", "", ERROR, why, _NOT_EXAMINED, fix)
        return {"unexamined": why, "healthy": False, "release": None, "findings": [finding]}
    advisories.warn(report, records)
    for finding in report["findings"]:
        fix = finding["fix"]
        if fix["where"] == CONTROLLER:
            play = re.compile(r"\bansible(-playbook)? (?=playbooks/|\{host\})")
            fix["command"] = play.sub(lambda found: f"{found[0]}{inventory} ", fix["command"])
            fix["command"] = rendering.command(fix, host)
    return {**report, "healthy": not report["findings"]}


def _read(result: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What a doctor reported, or else why there is no report."""
    stdout = str(result.get("stdout") or "")
    # A login shell may have its own say first.
    line = next((line for line in reversed(stdout.splitlines()) if line.startswith('{"host"')), "")
    try:
        report = json.loads(line) if line else None
    except (ValueError, RecursionError) as error:
        return None, f"its report can't be read: {error}"
    if report is not None:
        wrong = problem(report)
        return (None, f"its report is none of the doctor's: {wrong}") if wrong else (report, "")
    said = [str(result.get("msg") or ""), stdout, str(result.get("stderr") or "")]
    return None, " ".join(filter(None, said)).strip()[:_LONGEST]


def _finding(name: str, area: str, severity: str, evidence: str, cause: str, fix: dict[str, str]) -> dict[str, Any]:
    return {"id": name, "area": area, "severity": severity, "evidence": evidence, "cause": cause, "fix": fix}


def _shared(hosts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Take out of the reports what all hosts of a broker find of it; return each once, under the broker's name."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, report in hosts.items():
        place = tuple(report.get("flow", {}).get(name, "") for name in ("broker", "vhost", "queue"))
        if all(place):
            groups.setdefault(place, []).append(host)
    shared = []
    for (broker, vhost, _), names in groups.items():
        # Of several hosts the first one fails the play, so that it fails once.
        who = f"RabbitMQ at {broker}" + (f", virtual host {vhost}" if vhost != "/" else "")
        for same in _of_all(names, hosts):
            texts = list(dict.fromkeys(finding["evidence"] for finding in same.values()))
            each = "; ".join(f"{host}: {finding['evidence']}" for host, finding in same.items())
            finding = {**next(iter(same.values())), "evidence": texts[0] if len(texts) == 1 else each}
            shared.append({"who": who, "hosts": list(same), "reporters": list(same)[:1], "finding": finding})
            for host, one in same.items():
                report = hosts[host]
                report["findings"].remove(one)
                report["healthy"] = not report["findings"]
                report["areas"] = rendering.areas(report["findings"], report["checks"])
    return sorted(shared, key=lambda one: bool(one["finding"]["severity"] != ERROR))


def _of_all(names: list[str], hosts: Mapping[str, dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """Findings about the broker that agree on every host which could look for them, each by host."""
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for host in names:
        for finding in hosts[host]["findings"]:
            if finding.get("about") == BROKER:
                fix = finding["fix"]
                # The evidence may differ: a depth is counted at different moments.
                key = (finding["id"], finding["severity"], finding["cause"], fix["where"], fix["command"])
                found.setdefault(key, {})[host] = finding
    agreed = []
    for (name, *_), same in found.items():
        looked = {
            host for host in names for check in hosts[host]["checks"]
            if check["id"] == name and check["state"] in (OK, FOUND)
        }  # fmt: skip
        if looked <= same.keys():
            agreed.append(same)
    return agreed


def text(fleet: Mapping[str, Any], path: str, unwritten: str) -> list[str]:
    """Return the fleet as lines; `unwritten` is the reason why the page is not at its path, "" if it is."""
    *lines, page_line = rendering.fleet_text(fleet, path)
    if unwritten:
        page_line = (
            f"The page could not be written to {path} ({unwritten}). Set dispatch_doctor_page to a path that you can "
            "write to, such as -e dispatch_doctor_page=/tmp/doctor.html"
        )
    return [*lines, page_line]


def page(fleet: Mapping[str, Any]) -> str:
    """Return the fleet as a page of HTML."""
    return rendering.page(fleet, datetime.now(timezone.utc))


class FilterModule:
    """The filters of tasks/doctor.yml."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "dispatch_doctor_fleet": collect,
            "dispatch_advisories_fault": advisories_fault,
            "dispatch_doctor_page": page,
            "dispatch_doctor_text": text,
            "dispatch_doctor_findings": rendering.host_text,
        }
