"""Fetches an artifact from its URL onto a host, and tells what it is, for an engine that has no modules to send."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.app_kind import examine

SECONDS = 60  # without an octet
CHUNK = 1 << 20


def fetch(url: str, sha256: str, path: Path) -> None:
    """Have the artifact of this SHA-256 at `path`, which only root can read. Raises OSError and ValueError."""
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return
    half, digest = path.with_suffix(".half"), hashlib.sha256()
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        # The filter app_artifact lets http and https pass alone.
        with os.fdopen(descriptor, "wb") as file, urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310
            while chunk := answer.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise ValueError(f"what came has the SHA-256 {digest.hexdigest()}")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def main(request: Mapping[str, str]) -> int:
    """Print as JSON what the artifact is, or why it could not be fetched; return the exit code."""
    path, name = Path(request["path"]), request["name"]
    what = f"{name}_artifact is {request['source']}"
    try:
        fetch(request["source"], request["sha256"], path)
        found = examine(path, name).as_dict()
        told = {name: found[name] for name in ("kind", "go")}
        if found["fault"]:
            told = {"failure": f"{what}, and {found['fault']}"}
    except (OSError, ValueError) as error:
        told = {
            "failure": f"{what}, which could not be fetched on this host with the checksum {name}_artifact_sha256 = "
            f"{request['sha256']}: {error}. Correct whichever is wrong, or copy the artifact to the controller and "
            "name its path."
        }
    print(json.dumps(told))
    return 0
