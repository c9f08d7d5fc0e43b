"""What an artifact is made of, as a CycloneDX 1.6 document in JSON (ECMA-424).

It is made of the wheels themselves, by the standard library, because a host that provisions itself builds the artifact
with nothing else at hand. It has neither a serial number nor a time, so the same wheels make the same octets.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

NAME = "sbom.cdx.json"  # at the artifact's root; beside the artifact, it is the artifact's name with .cdx.json
# By the artifact's directories: whether their wheels are part of what runs, run if asked for, or merely install it.
SCOPES = {"wheels": "required", "tracing": "optional", "installer": "excluded"}


def document(version: str, commit: str, wheels: Mapping[str, list[Path]], shop: str = "") -> bytes:
    """The document of an artifact of Dispatch with these wheels, by their directories in it, and a shop's package.

    `commit` is that of the sources, "" where it is not known.
    """
    own = _purl("roboshop-dispatch", version)
    found: list[dict[str, Any]] = []
    for directory in (name for name in SCOPES if name in wheels):
        known = {component["bom-ref"] for component in found}
        some = (_component(wheel, SCOPES[directory]) for wheel in wheels[directory])
        found += [component for component in some if component["bom-ref"] not in known]
    if shop:
        found.append({"type": "library", "bom-ref": f"shop:{shop}", "name": shop, "scope": "required"})
    found.sort(key=lambda component: str(component["bom-ref"]))
    application: dict[str, Any] = {
        "type": "application", "bom-ref": own, "name": "roboshop-dispatch", "version": version, "purl": own,
        "licenses": [{"license": {"id": "MIT"}}],
    }  # fmt: skip
    if commit:
        application["properties"] = [{"name": "commit", "value": commit}]
    needed = [component["bom-ref"] for component in found if component["scope"] == "required"]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": application},
        "components": found,
        "dependencies": [{"ref": own, "dependsOn": needed}],
    }
    return json.dumps(bom, indent=2, ensure_ascii=False).encode() + b"\n"


def _component(wheel: Path, scope: str) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    purl = _purl(headers["Name"], headers["Version"])
    component: dict[str, Any] = {
        "type": "library", "bom-ref": purl, "name": headers["Name"], "version": headers["Version"], "purl": purl,
        "scope": scope, "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
    }  # fmt: skip
    if headers["License-Expression"]:
        component["licenses"] = [{"expression": headers["License-Expression"]}]
    return component


def _purl(name: str, version: str) -> str:
    """The package URL of a package of PyPI, whose name is in its normal form there (PEP 503)."""
    return f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{quote(version, safe='.')}"
