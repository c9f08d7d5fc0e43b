"""Tells whether another service of this host has the home that a service is to get. It only reads."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.app_comparison import OURS

UNITS = Path("/etc/systemd/system")


class SharedHomeError(Exception):
    """Two services would share a home; the message names them, and says what to do."""


def require_own_home(name: str, home: str) -> None:
    """Refuse a home in which another service lives: each would switch and remove the other's releases.

    Raises SharedHomeError.
    """
    for unit in sorted(UNITS.glob("*.service")):
        text = unit.read_text(encoding="utf-8", errors="replace") if unit.is_file() else ""
        if unit.stem != name and text.startswith(OURS) and f"\nWorkingDirectory={home}/current\n" in text:
            raise SharedHomeError(
                f"the home of {name} is {home}, where the service {unit.stem} lives on this host. Give one of the two "
                f"a home of its own, such as {name}_home: /srv/{name}, or another host"
            )
