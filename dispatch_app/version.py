"""`dispatch --version --json`: which release runs here, which commit it was built from, and which versions it has."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

_RELEASE = Path(__file__).resolve().parents[1]
_LONGEST = 4 << 20  # octets


def facts(release: Path = _RELEASE) -> dict[str, Any]:
    """What is known of the code that runs, where it may be a release of the roles, whose directory is `release`.

    A checkout has no release, no commit and no list of dependencies. A dependency that this Python needs none of has
    the version None.
    """
    listed = _sbom(release)
    own = listed.get("metadata", {}).get("component", {})
    commit = {one["name"]: one["value"] for one in own.get("properties", [])}.get("commit")
    needed = [one["name"] for one in listed.get("components", []) if one.get("scope") == "required"]
    return {
        "version": __version__,
        "release": release.name if (release / ".complete").exists() else None,
        "commit": commit,
        "python": platform.python_version(),
        "dependencies": {name: _installed(name) for name in needed},
    }


def components(release: Path) -> dict[str, str]:
    """The version of each package that a release came with, by name, with what installed it."""
    return {one["name"]: one["version"] for one in _sbom(release).get("components", []) if "version" in one}


def _sbom(release: Path) -> dict[str, Any]:
    """The list of what a release is made of (CycloneDX); nothing where it has none that can be read."""
    file = release / "sbom.cdx.json"
    try:
        # The doctor looks, as root, at releases that others may have written, and a pipe would hold it for ever.
        if not file.is_file() or file.stat().st_size > _LONGEST:
            return {}
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
