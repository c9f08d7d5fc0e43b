"""A backup of one host in one file: what was saved, and a manifest that says what that is. For Python 3.9 and later.

The file is a tar(5) compressed by gzip. Its first member is the manifest, JSON, with the size and the SHA-256 of each
of the others; so what a disk or a network has damaged is told from what was saved.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import stat
import tarfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ansible.module_utils.server_files import RefusedError

FORMAT = 1  # of what this module writes, and the latest that it reads
SUFFIX = ".tar.gz"
MANIFEST, MANIFEST_OCTETS = "manifest.json", 1 << 20
# What a backup may hold, by the names of the members.
LEDGER, DUMP, DEFINITIONS = "ledger.db", "ledger.dump", "definitions.json"
_CHUNK = 1 << 20
_LEVEL = 1  # of zlib's nine: a ledger becomes hardly smaller by the higher ones, which take several times as long
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z" + re.escape(SUFFIX))


class DamagedError(RefusedError):  # type: ignore[misc]  # Ansible's import path hides its type
    """A backup is not what was saved; the message names its file."""


def moment_name(moment: float) -> str:
    """The name of a moment, given in seconds since 1970, in UTC: 20261127T061500Z."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def kept(directory: Path) -> list[Path]:
    """The backups in a directory, the oldest first."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))


def write(target: Path, owner: tuple[int, int], facts: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Write a new archive, which its owner alone can read, of `files` by the names of their members.

    `facts` are the manifest's other entries. Raises OSError.
    """
    manifest = {"format": FORMAT, **facts, "files": {name: _described(path) for name, path in files.items()}}
    text = json.dumps(manifest, indent=2, sort_keys=True).encode()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=_LEVEL) as tar:
            tar.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
            for name, path in files.items():
                with _opened(path) as content:
                    tar.addfile(_member(name, manifest["files"][name]["octets"]), content)
        stream.flush()
        os.fchown(stream.fileno(), *owner)
        os.fsync(stream.fileno())


def _described(path: Path) -> dict[str, Any]:
    with _opened(path) as content:
        octets, digest = _digest(content)
    return {"octets": octets, "sha256": digest}


def _opened(path: Path) -> BinaryIO:
    """A file to read, which another user has put there: a link would lead root to what that user may not see."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise RefusedError(f"{path} is no file")
    return stream


def _digest(content: BinaryIO, copy: BinaryIO | None = None) -> tuple[int, str]:
    """How many octets there are, and their SHA-256; they go to `copy`, too, where it is given."""
    octets, digest = 0, hashlib.sha256()
    while chunk := content.read(_CHUNK):
        octets += len(chunk)
        digest.update(chunk)
        if copy:
            copy.write(chunk)
    return octets, digest.hexdigest()


def _member(name: str, octets: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = octets, 0o600, int(time.time())
    return member


def verified(archive: Path) -> dict[str, Any]:
    """The manifest of an archive all of whose content is what was saved. Raises DamagedError and RefusedError."""
    return _read(archive, {})


def extract(archive: Path, name: str, target: Path, owner: tuple[int, int]) -> None:
    """Write one member of an archive to a new file of `owner` that nobody else can read. Raises RefusedError, OSError.

    What is damaged is refused, and the file that was begun taken away again.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchown(stream.fileno(), *owner)
            _read(archive, {name: stream})
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        target.unlink()
        raise


def text(archive: Path, name: str) -> str:
    """One member of an archive, as text. Raises RefusedError."""
    content = io.BytesIO()
    _read(archive, {name: content})
    return content.getvalue().decode()


def _read(archive: Path, copies: Mapping[str, BinaryIO]) -> dict[str, Any]:
    """Read an archive to its end; members go to `copies`, too, by their names. Return the manifest."""
    try:
        with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            manifest = _manifest(archive, tar)
            found = {}
            while member := tar.next():
                content = tar.extractfile(member)
                if content is None:
                    raise _damaged(archive, f"{member.name} is no file")
                octets, digest = _digest(content, copies.get(member.name))  # type: ignore[arg-type]
                found[member.name] = {"octets": octets, "sha256": digest}
            while packed.read(_CHUNK):  # to its end, where gzip's own checksum stands
                pass
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        if error.errno is None:  # gzip's word for content that is none of its own
            raise _damaged(archive, str(error)) from error
        raise RefusedError(f"The backup {archive} can't be read: {error.strerror}.") from error
    unlike = sorted(name for name in {*found, *manifest["files"]} if found.get(name) != manifest["files"].get(name))
    if unlike:
        raise _damaged(archive, f"{', '.join(unlike)} is not what was saved, by its SHA-256")
    return manifest


def _manifest(archive: Path, tar: tarfile.TarFile) -> dict[str, Any]:
    first = tar.next()
    content = tar.extractfile(first) if first and first.name == MANIFEST else None
    if content is None:
        raise _damaged(archive, f"it does not begin with {MANIFEST}")
    manifest = json.loads(content.read(MANIFEST_OCTETS))
    if not (isinstance(manifest, dict) and isinstance(manifest.get("files"), dict)):
        raise _damaged(archive, f"{MANIFEST} does not say what was saved")
    if manifest.get("format") != FORMAT:
        raise RefusedError(
            f"The backup {archive} has the format {manifest.get('format')}, and this version of the playbooks reads "
            f"format {FORMAT}. Restore it by the version that made it; nothing has changed."
        )
    return manifest


def _damaged(archive: Path, why: str) -> DamagedError:
    return DamagedError(f"The backup {archive} is damaged: {why}.")
