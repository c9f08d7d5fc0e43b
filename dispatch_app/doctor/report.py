"""Reports as people read them: of one host in a terminal, of a fleet in Ansible's output, and as a page.

A fleet is what roles/dispatch/filter_plugins/dispatch_doctor.py collects: `hosts`, their reports by name, and `shared`,
findings that concern several of them. Only `page` needs Jinja.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..printable import escaped
from .table import AREAS, BROKER, CONTROLLER, DATABASE, ERROR, FOUND, HOST, OK, SKIPPED, UNKNOWN, WARNING

_WIDTH = 110  # columns of a terminal
# Of each state: what a terminal shows, what the page shows, and what that means.
_STATES = {
    OK: ("ok", "✓", "well"),
    WARNING: ("warning", "!", "warning"),
    ERROR: ("FAULT", "✕", "fault"),
    UNKNOWN: ("?", "?", "not known"),
    SKIPPED: ("-", "\N{EN DASH}", "hidden by another fault"),
}
# The part of the page's picture that a finding belongs to, by its id or else by its area.
_PARTS = {
    "broker-alarm": "publish", "queue-unbound": "bind", "queue-missing": "queue", "declared-otherwise": "queue",
    "retry-backlog": "retry", "dead-letters": "dead", "not-consuming": "consume", "two-versions": "dispatch",
    "not-examined": "dispatch", "clock-skew": "dispatch", "hook-broken": "consume",
    "release": "dispatch", "service": "dispatch", "settings": "dispatch", "ledger": "ledger", "network": "consume",
    "login": "consume", "queues": "queue", "flow": "queue",
}  # fmt: skip


def areas(findings: Iterable[Mapping[str, Any]], checks: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the worst of each area: error, warning, ok, unknown or skipped."""
    states: dict[str, list[str]] = {area: [] for area in AREAS}
    for finding in findings:
        states[finding["area"]].append(finding["severity"])
    for check in checks:
        states[check["area"]].append(check["state"])
    # An area of which only details could not be looked at is as well as the rest of it.
    order = (ERROR, WARNING, OK, UNKNOWN, SKIPPED)
    return {area: next((state for state in order if state in found), SKIPPED) for area, found in states.items()}


def printable(text: str) -> str:
    """Return text on one line, without what would move a terminal's cursor or forge a line."""
    return escaped(" ".join(text.split()))


# -- the terminal ---------------------------------------------------------------------------


def text(report: Mapping[str, Any]) -> str:
    """Return a report as a table of the areas and, for each finding, what was seen, its cause and its fix."""
    lines = _table([("host", AREAS), (report["host"], _signs(report))])
    for finding in report["findings"]:
        fix = {**finding["fix"], "command": command(finding["fix"], report["host"])}
        lines += ["", *_finding({**finding, "fix": fix}, "on your machine", _WIDTH)]
    unknown = [check for check in report["checks"] if check["state"] == UNKNOWN]
    for reason in dict.fromkeys(check["because"] for check in unknown):
        titles = ", ".join(check["title"] for check in unknown if check["because"] == reason)
        told = printable(f"could not look whether {titles}: {reason}")
        lines += ["", *textwrap.wrap(told, _WIDTH, subsequent_indent="  ")]
    count = sum(check["state"] == OK for check in report["checks"])
    verdict = "healthy" if report["healthy"] else f"{len(report['findings'])} found"
    well = f"{count} of {len(report['checks'])} checks are well"
    return "\n".join([*lines, "", f"{verdict}; {well}, in {report['seconds']} s"])


def command(fix: Mapping[str, str], host: str) -> str:
    """Return the command of a fix, for this host."""
    return fix["command"].replace("{host}", pattern(host))


def pattern(host: str) -> str:
    """Return a word of a command line by which Ansible means this host and no other.

    EC2's tags allow characters that have a meaning in a pattern, where `?` stands for any one of them.
    """
    return shlex.quote(re.sub(r"[\s:,!&~*\[\]]|^-", "?", host))


def fleet_text(fleet: Mapping[str, Any], page: str) -> list[str]:
    """Return the lines that show all hosts, what concerns several of them, and where the page is."""
    rows: list[tuple[str, Iterable[str]]] = [("host", (*AREAS, "seconds"))]
    for host, report in sorted(fleet["hosts"].items()):
        seen = ["could not be examined"] if "unexamined" in report else [*_signs(report), str(report["seconds"])]
        rows.append((host, seen))
    lines = _table(rows)
    for shared in fleet["shared"]:
        finding = shared["finding"]
        lines.append(printable(f"{shared['who']}: {finding['id']}: {finding['evidence']}"))
    return [*lines, f"The page: {page}"]


def host_text(fleet: Mapping[str, Any], host: str) -> str:
    """Return what is wrong with one host, and what that host is to report of the fleet; nothing where all is well."""
    lines = [line for finding in fleet["hosts"][host]["findings"] for line in _finding(finding, "on this machine")]
    for shared in fleet["shared"]:
        if host in shared["reporters"]:
            lines += _finding(shared["finding"], "on this machine", whose=shared["who"], hosts=shared["hosts"])
    return "\n".join(lines)


def _signs(report: Mapping[str, Any]) -> list[str]:
    return [_STATES[report["areas"][area]][0] for area in AREAS]


def _table(rows: list[tuple[str, Iterable[str]]]) -> list[str]:
    width = max(len(printable(name)) for name, _ in rows)
    return [f"{printable(name):{width}}  {'  '.join(f'{cell:8}' for cell in cells)}".rstrip() for name, cells in rows]


def _finding(
    finding: Mapping[str, Any], here: str, width: int = 0, whose: str = "", hosts: Iterable[str] = ()
) -> list[str]:
    """The lines of one finding: wrapped to a width, with the command on a line of its own, or each on one line."""
    lines = [f"{finding['severity']}: {finding['id']}" + (f" ({whose})" if whose else "")]
    for name, key in (("seen", "evidence"), ("cause", "cause")):
        told = f"  {name}: {printable(finding[key])}"
        lines += textwrap.wrap(told, width, subsequent_indent="    ") if width else [told]
    fix = f"  fix, {_where(finding, here, hosts)}:"
    mend = escaped(finding["fix"]["command"])
    return [printable(lines[0]), *lines[1:], *([fix, f"    {mend}"] if width else [f"{fix} {mend}"])]


def _where(finding: Mapping[str, Any], here: str, hosts: Iterable[str] = ()) -> str:
    """Where a fix is run; what several hosts can mend, one of them is to."""
    where = finding["fix"]["where"]
    one = f"on one of {', '.join(map(printable, hosts))}" if len(list(hosts)) > 1 else "on the host"
    return {CONTROLLER: here, HOST: f"{one}, as root", BROKER: "on the broker, as root",
            DATABASE: "on the database's server, as root"}[where]  # fmt: skip


# -- the page -------------------------------------------------------------------------------


def page(fleet: Mapping[str, Any], moment: datetime) -> str:
    """Return the page of a fleet that was examined at `moment`, UTC: HTML, complete in itself."""
    import jinja2

    # A report is whatever its host says, so every value is escaped.
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(view(fleet), moment=f"{moment:%Y-%m-%d %H:%M} UTC")


def view(fleet: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows, ready to be filled in."""
    hosts = dict(sorted(fleet["hosts"].items()))
    findings = [shared["finding"] for shared in fleet["shared"]]
    findings += [finding for report in hosts.values() for finding in report["findings"]]
    count, well = len(hosts), sum(report["healthy"] for report in hosts.values())
    examined = {host: report for host, report in hosts.items() if "unexamined" not in report}
    if not findings:
        title, verdict = "healthy", f"All {count} hosts are healthy." if count > 1 else "The host is healthy."
    else:
        title = f"{count - well} of {count} hosts need attention" if well < count else "the fleet needs attention"
        verdict = f"{well} of {count} hosts {'is' if well == 1 else 'are'} healthy."
    return {
        "areas": AREAS,
        "legend": [{"state": state, "sign": sign, "said": said} for state, (_, sign, said) in _STATES.items()],
        "title": title, "verdict": verdict, "tone": _worst(findings) or OK,
        "ways": [_way(broker, fleet) for broker in _brokers(hosts) or [""]],
        "rows": [_row(host, report) for host, report in hosts.items()],
        "cards": [_card(s["finding"], s["who"], s["hosts"]) for s in fleet["shared"]]
        + [_card(finding, host) for host, report in hosts.items() for finding in report["findings"]],
        "details": [_details(host, report, findings) for host, report in examined.items()],
    }  # fmt: skip


def _worst(findings: Iterable[Mapping[str, Any]]) -> str:
    """The worst severity, or an empty string."""
    severities = {finding["severity"] for finding in findings}
    return ERROR if ERROR in severities else WARNING if severities else ""


def _brokers(hosts: Mapping[str, Any]) -> list[str]:
    return sorted({report["flow"]["broker"] for report in hosts.values() if report.get("flow", {}).get("broker")})


def _way(broker: str, fleet: Mapping[str, Any]) -> dict[str, Any]:
    """The way of an order through one broker; a host whose broker is not known counts with every one of them."""
    hosts = {h: r for h, r in fleet["hosts"].items() if r.get("flow", {}).get("broker", broker) == broker}
    flows = [report["flow"] for report in hosts.values() if "queue" in report.get("flow", {})]
    findings = [finding for report in hosts.values() for finding in report["findings"]]
    findings += [shared["finding"] for shared in fleet["shared"] if hosts.keys() & set(shared["hosts"])]
    depth = {
        name: max((flow[name] for flow in flows if name in flow), default=None)
        for name in ("ready", "consumers", "retry", "dead")
    }
    known = depth["ready"] is not None
    asked = ("publish", "exchange", "bind", "queue", "retry", "dead", "consume")
    states = dict.fromkeys(asked, OK if known else UNKNOWN)
    states.update(dict.fromkeys(("dispatch", "record", "ledger"), OK))
    for part in {_part(finding) for finding in findings}:
        states[part] = _worst(finding for finding in findings if _part(finding) == part)
    consumers = depth["consumers"] if known else None
    first = flows[0] if flows else {}
    return {
        "broker": printable(broker), "states": states,
        "publishers": ERROR if states["publish"] == ERROR else OK if known else SKIPPED,
        "exchange": _short(first.get("exchange", "exchange")), "queue": _short(first.get("queue", "queue")),
        "waiting": f"{depth['ready']} waiting" if known else "not known",
        "takers": "" if consumers is None else f"{consumers} consumer{'' if consumers == 1 else 's'}",
        "hosts": f"{sum(report['healthy'] for report in hosts.values())} of {len(hosts)} healthy",
        "retries": f"retry {'?' if depth['retry'] is None else depth['retry']}",
        "letters": f"dead letters {'?' if depth['dead'] is None else depth['dead']}",
    }  # fmt: skip


def _part(finding: Mapping[str, Any]) -> str:
    return _PARTS.get(finding["id"]) or _PARTS.get(finding["area"], "dispatch")


def _short(name: str) -> str:
    """A name that fits into the picture."""
    name = printable(name)
    return name if len(name) <= 16 else f"{name[:15]}…"


def _row(host: str, report: Mapping[str, Any]) -> dict[str, Any]:
    cells = []
    for area in AREAS if "unexamined" not in report else ():
        _, sign, said = _STATES[report["areas"][area]]
        cells.append({"area": area, "state": report["areas"][area], "sign": sign, "said": said})
    return {"host": printable(host), "cells": cells, "release": printable(report["release"] or "\N{EN DASH}")}


def _card(finding: Mapping[str, Any], who: str, hosts: Iterable[str] = ()) -> dict[str, str]:
    return {
        "who": printable(who), "severity": finding["severity"], "sign": _STATES[finding["severity"]][1],
        "id": printable(finding["id"]), "cause": printable(finding["cause"]),
        "evidence": printable(finding["evidence"]), "where": _where(finding, "where you run Ansible", hosts),
        "command": escaped(finding["fix"]["command"]),
    }  # fmt: skip


def _details(host: str, report: Mapping[str, Any], findings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Every check of one host."""
    severities = {finding["id"]: finding["severity"] for finding in (*findings, *report["findings"])}
    why = {SKIPPED: "because of ", UNKNOWN: "could not look: "}
    checks = []
    for check in report["checks"]:
        state = severities.get(check["id"], WARNING) if check["state"] == FOUND else check["state"]
        note = printable(why[state] + check["because"]) if state in why and check["because"] else ""
        checks.append({"state": state, "sign": _STATES[state][1], "title": printable(check["title"]), "note": note})
    well = sum(check["state"] == OK for check in checks)
    told = f"{well} of {len(checks)} checks are well, made in {report['seconds']} s"
    return {"host": printable(host), "told": told, "checks": checks}
