"""Looks at an artifact on the controller, and says what is wrong with it."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

# Ansible loads this file by its path. A host tells what an artifact is, and whether it is signed, by the same code.
sys.path.append(str(Path(__file__).resolve().parents[2] / "app_release" / "module_utils"))

from app_kind import Artifact, examine  # only now it can be found
from app_signature import SUFFIX, Signers, beside, refusal

SHA256 = re.compile(r"[0-9a-f]{64}")
# A public key as authorized_keys has it (sshd(8)), and a line of allowed_signers (ssh-keygen(1)).
KEY = r"(ssh|ecdsa|sk)-[\w.@-]+ +AAAA[A-Za-z0-9+/=]+( .*)?"
LINES = {"signers": re.compile(rf"[^ ]+ +(.* )?{KEY}"), "revoked": re.compile(KEY)}
EXAMPLES = {"signers": "release ssh-ed25519 AAAA…", "revoked": "ssh-ed25519 AAAA…"}


def artifact(
    value: object, sha256: object, variable: str, signers: object = "", revoked: object = ""
) -> dict[str, Any]:
    """Describe the artifact that a variable, ``<service>_artifact``, names: a path on the controller or an http(s) URL.

    A relative path starts from the directory the play was started in. `signers` says who may sign it, as
    ``<service>_artifact_signers``, and `revoked` which public keys don't count, as ``<service>_artifact_revoked``;
    without `signers` it needs no signature.

    Returns ``value``, ``url`` (whether it is one), ``source`` (the URL or the absolute path), ``signature`` (that of
    its signature), ``signers`` and ``revoked``, ``sha256`` (in hexadecimal), ``kind`` (``python``, ``go`` or
    ``binary``, and "" for a URL, which only a host can tell of once it has fetched it), ``go`` (the version that its
    go.mod asks for, or ""), ``installer`` (whether it is known to carry pip) and ``faults``: each is a sentence that
    names `variable`, what is wrong and what to do.
    """
    text, digest = str(value or ""), str(sha256 or "")
    is_url = re.match(r"https?://", text) is not None
    source = text if is_url else str(Path.cwd() / Path(text).expanduser())
    trusted = Signers(variable.removesuffix("_artifact"), str(signers or ""), str(revoked or ""))
    described = {
        "value": text, "url": is_url, "source": source, "signature": _signature(source, is_url), "sha256": digest,
        "signers": trusted.allowed, "revoked": trusted.revoked, **Artifact().described(),
    }  # fmt: skip
    wrong = _signers_faults(trusted, variable)
    if wrong:
        return {**described, "faults": wrong}
    if not text:
        return {**described, "faults": [f"{variable} is not set. Set it to an artifact's path or URL."]}
    if (digest and not SHA256.fullmatch(digest)) or (is_url and not digest):
        return {**described, "faults": [
            f'{variable}_sha256 is "{digest}". Set it to the 64 hexadecimal digits that `sha256sum` prints for the '
            f"artifact: they are required where {variable} is a URL ({text})."
        ]}  # fmt: skip
    if is_url:
        return {**described, "faults": []}
    return {**described, **_local(Path(source), text, digest, variable, trusted)}


def _signature(source: str, is_url: bool) -> str:
    """Where the signature of an artifact is: beside it. A URL's query, where it has one, stays behind the path."""
    if not is_url:
        return source + SUFFIX
    parts = urlsplit(source)
    return urlunsplit(parts._replace(path=parts.path + SUFFIX))


def _signers_faults(signers: Signers, variable: str) -> list[str]:
    found = []
    for name, text in (("signers", signers.allowed), ("revoked", signers.revoked)):
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
        keys = [(number, line) for number, line in lines if line and not line.startswith("#")]
        wrong = [number for number, line in keys if not LINES[name].fullmatch(line.replace("\t", " "))]
        # A line is not shown, because it may be of a private key.
        if wrong or (text and not keys):
            what = f"line {wrong[0]} of it is none" if wrong else "has no line"
            found.append(f"{variable}_{name} is set, and {what} such as {EXAMPLES[name]} Correct it (ssh-keygen(1)).")
    if signers.revoked and not signers.allowed:
        found.append(
            f"{variable}_revoked is set, but not {variable}_signers, without which no signature is asked for. Set "
            "both, or neither."
        )
    return found


def _local(path: Path, text: str, sha256: str, variable: str, signers: Signers) -> dict[str, Any]:
    if not path.is_file():
        looked = "" if str(path) == text else f" (looked for: {path})"
        fault = (
            f"{variable} is {text}, and there is no such file on the controller{looked}. Build it with `make "
            "artifact`, or set the variable to an artifact's path or URL."
        )
        return {"faults": [fault]}
    signature = beside(path)
    states = tuple((one.stat().st_mtime_ns, one.stat().st_size) for one in (path, signature) if one.is_file())
    digest, told = _read(path, signature, signers, states)
    if sha256 and sha256 != digest:
        fault = (
            f"{text} has the SHA-256 {digest}, but {variable}_sha256 says {sha256}. Take the artifact that belongs "
            "to the checksum, or correct the variable."
        )
        return {"faults": [fault]}
    faults = [f"{variable} is {text}, and {told.fault}"] if told.fault else []
    return {"sha256": digest, **told.described(), "faults": faults}


@functools.lru_cache(maxsize=8)
def _read(path: Path, signature: Path, signers: Signers, states: tuple[tuple[int, int], ...]) -> tuple[str, Artifact]:
    """An artifact's SHA-256, and what it is if its signature counts, where one is asked for."""
    del states  # they are here for the cache, to tell one state of the files from the next
    content = path.read_bytes()
    refused = refusal(content, signature, signers)
    told = Artifact(fault=refused) if refused else examine(path, signers.service)
    return hashlib.sha256(content).hexdigest(), told


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_artifact": artifact}
