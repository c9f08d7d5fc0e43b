"""Reads what a release says that it is made of: an SBOM at its root, CycloneDX in JSON (ECMA-424)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "sbom.cdx.json"


def made_of(release: Path) -> dict[str, Any]:
    """The ``version`` and the ``commit`` of a release, and the version of each of its ``components``, by name.

    All are empty where it has no SBOM, or none that can be read.
    """
    try:
        listed = json.loads((release / NAME).read_text(encoding="utf-8"))
        own = listed["metadata"]["component"]
        return {
            "version": str(own.get("version", "")),
            "commit": next((str(one["value"]) for one in own.get("properties", []) if one["name"] == "commit"), ""),
            "components": {
                str(one["name"]): str(one.get("version", ""))
                for one in listed.get("components", [])
                if one.get("scope") != "excluded"  # what only installs it
            },
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {"version": "", "commit": "", "components": {}}
