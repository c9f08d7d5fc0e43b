"""Checks, on the controller, settings that several services have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

HOST = re.compile(r"[A-Za-z0-9._:-]+")


def host_faults(environment: Mapping[str, Any], service: str) -> list[str]:
    """A sentence for each setting ``…_HOST`` that is no address or name; it names the variable ``<service>_…_host``."""
    found = []
    for name, value in environment.items():
        if name.endswith("_HOST") and not HOST.fullmatch(str(value)):
            variable, said = f"{service}_{name.lower()}", f'"{value}"' if value else "not set"
            found.append(
                f"{variable} is {said}. Set it in the inventory to an address or name alone, for example {variable}: "
                "10.0.1.20"
            )
    return found


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_host_faults": host_faults}
