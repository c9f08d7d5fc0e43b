"""What the files of a systemd unit say."""

from __future__ import annotations

import re
import shlex


def directives(text: str, into: dict[str, list[str]], section: str = "Service") -> None:
    """Add the directives of one section of a unit; an empty assignment forgets those before (systemd.unit(5))."""
    at = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if line.startswith("["):
            at = line
        elif at == f"[{section}]" and not line.startswith(("#", ";")) and "=" in line:
            name, _, value = (part.strip() for part in line.partition("="))
            if value:
                into.setdefault(name, []).append(value)
            else:
                into.pop(name, None)


def changed(unit: str, drop_in: str) -> list[str]:
    """Return the directives that a unit sets and a drop-in sets otherwise."""
    found = []
    for section in ("Unit", "Service"):
        before: dict[str, list[str]] = {}
        directives(unit, before, section)
        after = {name: list(values) for name, values in before.items()}
        directives(drop_in, after, section)
        found += [name for name, values in before.items() if (set(values), values[-1:]) != _effect(after.get(name))]
    return found


def _effect(values: list[str] | None) -> tuple[set[str], list[str]]:
    """What counts of a directive's values: all of a list's, the last one of any other's."""
    return set(values or ()), (values or [])[-1:]


def words(text: str) -> list[str]:
    """Split as a shell does; text that it would refuse is one word."""
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def assignments(text: str) -> dict[str, str]:
    """Return the variables of an environment file (systemd.exec(5), EnvironmentFile=)."""
    found = {}
    for line in re.sub(r"\\\n", "", text).splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            found[name.strip()] = " ".join(words(value))
    return found
