"""`dispatch doctor`: which of the faults that are known of does this host have, and what mends it? Changes nothing.

It needs root, to read credentials and what systemd knows, and runs on any Python 3.9 or later: see standalone.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import textwrap
import time
from typing import Any

from . import __version__, topology
from .doctor_broker import LookError
from .doctor_checks import CHECKS, CONTROLLER, ERROR, Patient
from .doctor_host import Host
from .settings import SettingsError

# Exit codes by the area of the first error; EX_NOPERM is sysexits(3)'s.
WARNED, EX_NOPERM = 1, 77
AREAS = ("release", "service", "settings", "ledger", "network", "login", "queues", "flow")
EXIT = {area: 20 + place for place, area in enumerate(AREAS)}
OK, FOUND, SKIPPED, UNKNOWN = "ok", "found", "skipped", "unknown"
_SIGNS = {"ok": "ok", "error": "FAULT", "warning": "warning", "skipped": "-", "unknown": "?"}


def examine() -> dict[str, Any]:
    """Make every check that can be made; return the report, as `--json` prints it."""
    started = time.monotonic()
    patient = Patient(Host())
    findings: list[dict[str, Any]] = []
    checks: list[dict[str, str]] = []
    states: dict[str, str] = {}
    for check in CHECKS:
        blocking = [need for need in check.needs if states[need] in (FOUND, SKIPPED)]
        errors = [finding["id"] for finding in findings if finding["severity"] == ERROR]
        if check.symptom and errors:
            blocking = errors
        state, because = SKIPPED, blocking[0] if blocking else ""
        if blocking:  # the cause, not what it has already hidden
            because = next((b for b in blocking if states[b] == FOUND), "") or _origin(because, checks)
        else:
            try:
                found = check.look(patient)
            except LookError as error:
                state, because = UNKNOWN, str(error)
            except Exception as error:  # what an ill host does to one check must not keep the others from being made
                state, because = UNKNOWN, f"the check ended with {error!r}"
            else:
                state = FOUND if found else OK
                if found:
                    found = found._replace(evidence=_redacted(found.evidence, patient))
                    fix = {"where": found.where, "command": found.command}
                    findings.append({
                        "id": check.id, "area": check.area, "severity": check.severity, "evidence": found.evidence,
                        "cause": found.cause, "fix": fix,
                    })  # fmt: skip
        states[check.id] = state
        checks.append({"id": check.id, "area": check.area, "title": check.title, "state": state, "because": because})
    findings.sort(key=lambda finding: finding["severity"] != ERROR)
    report: dict[str, Any] = {
        "host": socket.gethostname(), "doctor": __version__, "release": patient.host.version, "healthy": not findings,
        "exit_code": _exit_code(findings), "findings": findings, "checks": checks, "areas": _areas(findings, checks),
        "flow": _flow(patient, states),
    }  # fmt: skip
    if "broker" in vars(patient):
        patient.broker.close()
    report["seconds"] = round(time.monotonic() - started, 2)
    return report


def _redacted(evidence: str, patient: Patient) -> str:
    """Evidence without the password: a journal may have it, as the Go original's does."""
    variables = dict(patient.host.environment)
    with contextlib.suppress(SettingsError):
        variables["AMQP_PASS"] = patient.host.settings.password
    password = variables.get("AMQP_PASS")
    return evidence.replace(password, "…") if password else evidence


def _origin(check: str, checks: list[dict[str, str]]) -> str:
    """The finding behind a check that was skipped."""
    return next(entry["because"] for entry in checks if entry["id"] == check)


def _exit_code(findings: list[dict[str, Any]]) -> int:
    if not findings:
        return 0
    return EXIT[findings[0]["area"]] if findings[0]["severity"] == ERROR else WARNED


def _areas(findings: list[dict[str, Any]], checks: list[dict[str, str]]) -> dict[str, str]:
    """The worst of each area: error, warning, unknown, skipped or ok."""
    found = {}
    for area in EXIT:
        states = [finding["severity"] for finding in findings if finding["area"] == area]
        states += [check["state"] for check in checks if check["area"] == area]
        # An area of which only details could not be looked at is as well as the rest of it.
        found[area] = next((state for state in ("error", "warning", OK, UNKNOWN, SKIPPED) if state in states), SKIPPED)
    return found


def _flow(patient: Patient, states: dict[str, str]) -> dict[str, Any]:
    """Names and depths along the way of an order, as far as they are known."""
    if states["settings-invalid"] != OK:
        return {}
    s = patient.broker.settings
    flow: dict[str, Any] = {"broker": ",".join(s.hosts), "vhost": s.vhost, "exchange": s.exchange, "queue": s.queue}
    if states["permission-missing"] == OK:
        try:
            depths = patient.depths
        except LookError:
            return flow
        retry, dead = [depths[name] for name in topology.retry_queues(s)], depths[topology.dead_queue(s)]
        flow["retry"], flow["dead"] = sum(depth.ready for depth in retry if depth), dead.ready if dead else 0
        if patient.orders:
            flow["ready"], flow["consumers"] = patient.orders
    return flow


def text(report: dict[str, Any]) -> str:
    """Return a report as a table of the areas and, for each finding, what was seen, its cause and its fix."""
    rows = [("host", *report["areas"]), (report["host"], *(_SIGNS[state] for state in report["areas"].values()))]
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:{width}}  {'  '.join(f'{cell:8}' for cell in cells)}".rstrip() for name, *cells in rows]
    for finding in report["findings"]:
        fix = finding["fix"]
        where = {CONTROLLER: "on your machine"}.get(fix["where"], f"on the {fix['where']}, as root")
        lines += ["", f"{finding['severity']}: {finding['id']}", *_wrap("seen", finding["evidence"])]
        lines += [*_wrap("cause", finding["cause"]), f"  fix, {where}:", f"    {command(report, fix)}"]
    unknown = [check for check in report["checks"] if check["state"] == UNKNOWN]
    for reason in dict.fromkeys(check["because"] for check in unknown):
        titles = ", ".join(check["title"] for check in unknown if check["because"] == reason)
        lines += ["", *textwrap.wrap(f"could not look whether {titles}: {reason}", 110, subsequent_indent="  ")]
    count = sum(check["state"] == OK for check in report["checks"])
    verdict = "healthy" if report["healthy"] else f"{len(report['findings'])} found"
    return "\n".join([*lines, "", f"{verdict}; {count} of {len(CHECKS)} checks are well, in {report['seconds']} s"])


def command(report: dict[str, Any], fix: dict[str, str]) -> str:
    """The command of a fix, for this host."""
    return fix["command"].replace("{host}", report["host"])


def _wrap(name: str, value: str) -> list[str]:
    return textwrap.wrap(f"{name}: {value}", 110, initial_indent="  ", subsequent_indent="    ")


def show(as_json: bool) -> int:
    """Examine this host, print the report and return the exit code."""
    report = examine()
    print(json.dumps(report) if as_json else text(report))
    return int(report["exit_code"])
