"""Is a report that came from a host one that the doctor makes? Whoever has the host has written it."""

from __future__ import annotations

from typing import Any

from .table import AREAS, BROKER, CONTROLLER, CONTROLLER_COMMAND, ERROR, FOUND, HOST, OK, SKIPPED, UNKNOWN, WARNING

# A dictionary needs all of these keys, a list holds any number of its one shape, and a set names the words allowed.
_SHAPE: dict[str, Any] = {
    "host": str,
    "release": (str, type(None)),
    "healthy": bool,
    "exit_code": int,
    "seconds": (int, float),
    "findings": [
        {
            "id": str, "area": set(AREAS), "severity": {ERROR, WARNING}, "evidence": str, "cause": str,
            "fix": {"where": {HOST, BROKER, CONTROLLER}, "command": str},
        }
    ],
    "checks": [{"id": str, "area": str, "title": str, "state": {OK, FOUND, SKIPPED, UNKNOWN}, "because": str}],
    "areas": {area: {OK, ERROR, WARNING, SKIPPED, UNKNOWN} for area in AREAS},
    "flow": {},
    "components": {},
}  # fmt: skip
# These are there as far as they are known.
_FLOW = dict.fromkeys(("broker", "vhost", "exchange", "queue"), str)
_DEPTHS = dict.fromkeys(("ready", "consumers", "retry", "dead"), int)


def problem(report: object) -> str | None:
    """Return what keeps this from being a report, or None."""
    found = _problem(report, _SHAPE, "the report")
    if found or not isinstance(report, dict):
        return found
    known = {name: shape for name, shape in {**_FLOW, **_DEPTHS}.items() if name in report["flow"]}
    found = _problem(report["flow"], known, "flow")
    found = found or _problem(report["components"], dict.fromkeys(report["components"], str), "components")
    for fix in (finding["fix"] for finding in report["findings"]):
        if fix["where"] == CONTROLLER and not CONTROLLER_COMMAND.fullmatch(fix["command"]):
            found = found or "a fix for this machine is a command that the doctor does not give"
    return found


def _problem(value: object, shape: Any, name: str) -> str | None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{name} is no dictionary"
        parts = [(value.get(key, ...), part, f"{name}.{key}") for key, part in shape.items()]
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} is no list"
        parts = [(entry, shape[0], f"{name}[{place}]") for place, entry in enumerate(value)]
    else:
        fits = isinstance(value, str) and value in shape if isinstance(shape, set) else isinstance(value, shape)
        # To Python, a boolean is a number, too.
        fits = fits and (shape is bool or not isinstance(value, bool))
        return None if fits else f"{name} is missing" if value is ... else f"{name} has an unknown value"
    return next(filter(None, (_problem(*part) for part in parts)), None)
