"""Fetches an artifact from its URL onto a host, and tells what it is, for an engine that has no modules to send."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.app_kind import Artifact, examine
from ansible.module_utils.app_signature import OCTETS, Signers, beside, missing, refusal

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
        with os.fdopen(descriptor, "wb") as file, _opened(url) as answer:
            while chunk := answer.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise ValueError(f"what came has the SHA-256 {digest.hexdigest()}")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _opened(url: str) -> Any:
    # The filter app_artifact lets http and https pass alone.
    return urllib.request.urlopen(url, timeout=SECONDS)  # noqa: S310


def fetch_signature(url: str, path: Path) -> None:
    """Have what is at `url` now at `path`. Raises OSError and ValueError, and leaves nothing there then."""
    path.unlink(missing_ok=True)  # that of an earlier try
    with _opened(url) as answer:
        path.write_bytes(answer.read(OCTETS))


def told(path: Path, signers: Signers) -> Artifact:
    """What an artifact on the host is, after its signature, which is beside it, was verified where one is asked for."""
    refused = refusal(path.read_bytes(), beside(path), signers)
    return Artifact(fault=refused) if refused else examine(path, signers.service)


def main(request: Mapping[str, str]) -> int:
    """Print as JSON what the artifact is, or why it can't be had or does not count; return the exit code."""
    path, name = Path(request["path"]), request["name"]
    what = f"{name}_artifact is {request['source']}"
    try:
        fetch(request["source"], request["sha256"], path)
    except (OSError, ValueError) as error:
        answer = {
            "failure": f"{what}, which could not be fetched on this host with the checksum {name}_artifact_sha256 = "
            f"{request['sha256']}: {error}. Correct whichever is wrong, or copy the artifact to the controller and "
            "name its path."
        }
    else:
        found = _signed(path, Signers(name, request["signers"], request["revoked"]), request["signature"])
        answer = {"failure": f"{what}, and {found.fault}"} if found.fault else found.described()
    print(json.dumps(answer))
    return 0


def _signed(path: Path, signers: Signers, url: str) -> Artifact:
    try:
        if signers:
            fetch_signature(url, beside(path))
        return told(path, signers)
    except (OSError, ValueError) as error:
        return Artifact(fault=missing(signers, url, str(error)))
