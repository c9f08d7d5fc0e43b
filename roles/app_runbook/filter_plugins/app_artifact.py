"""Looks at an artifact on the controller, and says what is wrong with it."""

from __future__ import annotations

import functools
import hashlib
import re
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHA256 = re.compile(r"[0-9a-f]{64}")


def artifact(value: object, sha256: object, variable: str) -> dict[str, Any]:
    """Describe the artifact that a variable names: a path on the controller, or an http(s) URL.

    A relative path starts from the directory the play was started in. Returns ``value``, ``url`` (whether it is one),
    ``source`` (the URL or the absolute path), ``sha256`` (in hexadecimal) and ``faults``: each is a sentence that names
    `variable`, what is wrong and what to do.
    """
    text, digest = str(value or ""), str(sha256 or "")
    is_url = re.match(r"https?://", text) is not None
    source = text if is_url else str(Path.cwd() / Path(text).expanduser())
    described = {"value": text, "url": is_url, "source": source, "sha256": digest}
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
    digest, damage, names = _read(path, found.st_mtime_ns, found.st_size)
    if sha256 and sha256 != digest:
        fault = (
            f"{text} has the SHA-256 {digest}, but {variable}_sha256 says {sha256}. Take the artifact that belongs "
            "to the checksum, or correct the variable."
        )
        return {"faults": [fault]}
    return {"sha256": digest, "faults": zip_faults(text, damage, names, variable)}


@functools.lru_cache(maxsize=8)
def _read(path: Path, mtime: int, size: int) -> tuple[str, str, tuple[str, ...]]:
    """An artifact's SHA-256, the reason why it can't be unpacked ("" for none), and the names in it."""
    del mtime, size  # they are here for the cache, to tell one state of the file from the next
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (digest, *look(path))


def look(path: Path) -> tuple[str, tuple[str, ...]]:
    """The reason why a zip can't be unpacked ("" for none), and the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            return f"{damaged} is damaged" if damaged else "", tuple(archive.namelist())
    except Exception as error:  # zipfile has a dozen kinds of them, by what is damaged
        return traceback.format_exception_only(error)[-1].strip(), ()


def zip_faults(text: str, damage: str, names: tuple[str, ...] | list[str], variable: str) -> list[str]:
    """The faults of a zip, worked out from what `look` returns."""
    if damage:
        return [
            f"{variable} is {text}, and that is not a readable zip file ({damage}). Build it with `make artifact`, or "
            "set the variable to another artifact."
        ]
    if "requirements.txt" not in names:
        return [
            f"{variable} is {text}, and that zip has no requirements.txt at its root. Put the packages the service "
            "needs there, one to a line (an empty file where it needs none), and zip it again."
        ]
    return []


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_artifact": artifact, "app_zip_faults": zip_faults}
