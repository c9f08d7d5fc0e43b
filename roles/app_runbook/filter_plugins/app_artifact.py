"""Looks at an artifact on the controller, and says what is wrong with it."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Ansible loads this file by its path. A host tells an artifact's kind by the same code.
sys.path.append(str(Path(__file__).resolve().parents[2] / "app_release" / "module_utils"))

from app_kind import Artifact, examine  # only now it can be found

SHA256 = re.compile(r"[0-9a-f]{64}")


def artifact(value: object, sha256: object, variable: str) -> dict[str, Any]:
    """Describe the artifact that a variable, ``<service>_artifact``, names: a path on the controller or an http(s) URL.

    A relative path starts from the directory the play was started in. Returns ``value``, ``url`` (whether it is one),
    ``source`` (the URL or the absolute path), ``sha256`` (in hexadecimal), ``kind`` (``python``, ``go`` or ``binary``,
    and "" for a URL, which only a host can tell of once it has fetched it), ``go`` (the version that its go.mod asks
    for, or "") and ``faults``: each is a sentence that names `variable`, what is wrong and what to do.
    """
    text, digest = str(value or ""), str(sha256 or "")
    is_url = re.match(r"https?://", text) is not None
    source = text if is_url else str(Path.cwd() / Path(text).expanduser())
    described = {"value": text, "url": is_url, "source": source, "sha256": digest, "kind": "", "go": ""}
    if not text:
        return {**described, "faults": [f"{variable} is not set. Set it to an artifact's path or URL."]}
    if (digest and not SHA256.fullmatch(digest)) or (is_url and not digest):
        return {**described, "faults": [
            f'{variable}_sha256 is "{digest}". Set it to the 64 hexadecimal digits that `sha256sum` prints for the '
            f"artifact: they are required where {variable} is a URL ({text})."
        ]}  # fmt: skip
    if is_url:
        return {**described, "faults": []}
    return {**described, **_local(Path(source), text, digest, variable)}


def _local(path: Path, text: str, sha256: str, variable: str) -> dict[str, Any]:
    if not path.is_file():
        looked = "" if str(path) == text else f" (looked for: {path})"
        fault = (
            f"{variable} is {text}, and there is no such file on the controller{looked}. Build it with `make "
            "artifact`, or set the variable to an artifact's path or URL."
        )
        return {"faults": [fault]}
    found = path.stat()
    digest, told = _read(path, variable.removesuffix("_artifact"), found.st_mtime_ns, found.st_size)
    if sha256 and sha256 != digest:
        fault = (
            f"{text} has the SHA-256 {digest}, but {variable}_sha256 says {sha256}. Take the artifact that belongs "
            "to the checksum, or correct the variable."
        )
        return {"faults": [fault]}
    faults = [f"{variable} is {text}, and {told.fault}"] if told.fault else []
    return {"sha256": digest, "kind": told.kind, "go": told.go, "faults": faults}


@functools.lru_cache(maxsize=8)
def _read(path: Path, service: str, mtime: int, size: int) -> tuple[str, Artifact]:
    """An artifact's SHA-256, and what it is."""
    del mtime, size  # they are here for the cache, to tell one state of the file from the next
    return hashlib.sha256(path.read_bytes()).hexdigest(), examine(path, service)


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_artifact": artifact}
