"""Make every check that can be made, and build the report of them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from .. import __version__, topology
from ..settings import SECRETS, SettingsError
from ..version import components
from . import advisories
from . import report as rendering
from .case import Case
from .checks import CHECKS
from .table import AREAS, ERROR, FOUND, OK, SKIPPED, UNKNOWN, WARNED, LookError

# Exit codes by the area of the first error; EX_NOPERM is sysexits(3)'s.
EX_NOPERM = 77
EXIT = {area: 20 + place for place, area in enumerate(AREAS)}


def examine() -> dict[str, Any]:
    """Make every check that can be made; return the report, as `--json` prints it."""
    started = time.monotonic()
    case = Case()
    findings: list[dict[str, Any]] = []
    checks: list[dict[str, str]] = []
    states: dict[str, str] = {}
    for check in CHECKS:
        blocking = [need for need in check.needs if states[need] in (FOUND, SKIPPED)]
        errors = [finding["id"] for finding in findings if finding["severity"] == ERROR]
        if check.symptom and errors:
            blocking = errors
        state, because = SKIPPED, blocking[0] if blocking else ""
        if blocking:  # what is named is the cause, not what the cause has already hidden
            because = next((b for b in blocking if states[b] == FOUND), "") or _origin(because, checks)
        else:
            try:
                found = check.look(case)
            except LookError as error:
                state, because = UNKNOWN, _redacted(str(error), case)
            except Exception as error:  # an ill host may end a check in any way; the others are made all the same
                state, because = UNKNOWN, _redacted(f"the check ended with {error!r}", case)
            else:
                state = FOUND if found else OK
                if found:
                    found = found._replace(evidence=_redacted(found.evidence, case))
                    fix = {"where": found.where, "command": found.command}
                    findings.append({
                        "id": check.id, "area": check.area, "severity": check.severity, "about": check.about,
                        "evidence": found.evidence, "cause": found.cause, "fix": fix,
                    })  # fmt: skip
        states[check.id] = state
        checks.append({"id": check.id, "area": check.area, "title": check.title, "state": state, "because": because})
    findings.sort(key=lambda finding: finding["severity"] != ERROR)
    report: dict[str, Any] = {
        "host": socket.gethostname(), "doctor": __version__, "release": case.host.version, "healthy": not findings,
        "exit_code": _exit_code(findings), "findings": findings, "checks": checks,
        "areas": rendering.areas(findings, checks), "flow": _flow(case, states),
        "components": components(case.host.release) if case.host.version else {},
    }  # fmt: skip
    case.close()
    report["seconds"] = round(time.monotonic() - started, 2)
    return report


def _redacted(evidence: str, case: Case) -> str:
    """Evidence without the passwords: a journal may have the broker's, as the Go original's does."""
    secrets = [case.host.environment.get(variable) for variable in SECRETS.values()]
    with contextlib.suppress(SettingsError):
        settings = case.host.settings
        secrets += [settings.password, settings.ledger.password if settings.ledger else None]
    for secret in filter(None, secrets):
        evidence = evidence.replace(secret, "…")
    return evidence


def _origin(check: str, checks: list[dict[str, str]]) -> str:
    """The finding behind a check that was skipped."""
    return next(entry["because"] for entry in checks if entry["id"] == check)


def _exit_code(findings: list[dict[str, Any]]) -> int:
    if not findings:
        return 0
    return EXIT[findings[0]["area"]] if findings[0]["severity"] == ERROR else WARNED


def _flow(case: Case, states: dict[str, str]) -> dict[str, Any]:
    """Names and depths along the way of an order, as far as they are known."""
    if states["settings-invalid"] != OK:
        return {}
    s = case.broker.settings
    flow: dict[str, Any] = {"broker": ",".join(s.hosts), "vhost": s.vhost, "exchange": s.exchange, "queue": s.queue}
    if states["permission-missing"] == OK:
        try:
            depths = case.depths
        except LookError:
            return flow
        retry, dead = [depths[name] for name in topology.retry_queues(s)], depths[topology.dead_queue(s)]
        flow["retry"], flow["dead"] = sum(depth.ready for depth in retry if depth), dead.ready if dead else 0
        if case.orders:
            flow["ready"], flow["consumers"] = case.orders
    return flow


def show(as_json: bool, records: list[Mapping[str, Any]]) -> int:
    """Examine this host, print the report and return the exit code; `records` are advisories, where there are any."""
    report = examine()
    advisories.warn(report, records)
    print(json.dumps(report) if as_json else rendering.text(report))
    return int(report["exit_code"])
