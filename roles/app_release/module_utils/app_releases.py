"""What a release is on a host: a directory below ``<home>/releases``, and the marks it carries.

A release is *complete* while it holds the mark `COMPLETE` and its content is what that mark says; it has been *live* if
it holds `ACTIVATED`. During a rebuild, the release to be replaced waits beside it, with the suffix `DAMAGED`. No other
module reads or writes these marks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible.module_utils.app_disk import sync

# This file has the SHA-256 of the artifact, the digest of what was built and, where the artifact's signature was
# verified, the digest of whose would have counted; a line each. Its mtime is the build's.
COMPLETE = ".complete"
# This file's mtime is when the release last took over from another one.
ACTIVATED = ".activated"
DAMAGED = ".damaged"
ID_DIGITS = 12  # of the artifact's SHA-256


@dataclass(frozen=True)
class Release:
    """A complete release: its id, and when it was built and made live (seconds since the epoch, 0 for never)."""

    id: str
    built: float
    activated: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def directory(home: Path, sha256: str, kind: str, runtime: str) -> Path:
    """The directory of an artifact's release: the same content and the same runtime make the same release.

    `runtime` is the interpreter's path for ``python``, the compiler's version for ``go``, and nothing for ``binary``.
    `kind_of` in app_kind.py reads the kind from the name again.
    """
    built_for = {"go": f"go{runtime}", "binary": "binary"}.get(kind, Path(runtime).name)
    return home / "releases" / f"{sha256[:ID_DIGITS]}-{built_for}"


def digest(release: Path) -> str:
    """One SHA-256 over the names, kinds, modes, owners and sizes of a release, in hexadecimal.

    Neither bytecode, which comes and goes, nor the marks, which are written later, count.
    """
    lines = sorted(_lines(os.fsencode(release), b""))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _lines(path: bytes, name: bytes) -> Iterator[bytes]:
    found = os.lstat(path)
    entry = b"%o %d:%d" % (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    if stat.S_ISDIR(found.st_mode):
        yield b"%s/ %s\n" % (name, entry)
        for child in os.listdir(path):  # noqa: PTH208 - a name may be any octets, and pathlib takes only str
            if child != b"__pycache__" and not child.startswith(COMPLETE.encode()) and child != ACTIVATED.encode():
                yield from _lines(path + b"/" + child, name + b"/" + child if name else child)
    else:
        target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else b""  # noqa: PTH115 - octets, as above
        yield b"%s %s %d %s\n" % (name, entry, found.st_size, target)


def stands(release: Path, sha256: str = "") -> bool:
    """Whether a release is complete and unchanged since (and, if `sha256` is given, built from that artifact)."""
    artifact, content, _ = _mark(release)
    return bool(content) and (not sha256 or artifact == sha256) and content == digest(release)


def verified(release: Path) -> str:
    """The digest of whose signature would have counted when a release's artifact was verified; "" where it was not."""
    return _mark(release)[2]


def _mark(release: Path) -> tuple[str, str, str]:
    """What the mark of a complete release says, "" for all that it doesn't."""
    try:
        if not _is_own(release / COMPLETE) or exposed(release.parent):
            return "", "", ""  # only root's mark can be trusted
        artifact, content, signers, *_ = [*(release / COMPLETE).read_text(encoding="ascii").split("\n"), "", "", ""]
    except (OSError, UnicodeDecodeError):
        return "", "", ""
    return artifact, content, signers


def exposed(directory: Path) -> Path | None:
    """The first directory, from ``/`` down to this one, in which others than root could replace a name; None if none.

    A sticky directory such as ``/tmp`` is none: there, only its owner can replace what root owns (unlink(2)). Raises
    FileNotFoundError.
    """
    real = directory.resolve(strict=True)
    for place in (*reversed(real.parents), real):
        found = place.stat()
        shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if shared or found.st_uid not in (0, os.geteuid()):
            return place
    return None


def _is_own(path: Path) -> bool:
    """Whether a file is this process's, which is root's."""
    return path.lstat().st_uid == os.geteuid()


def complete(home: Path) -> list[Release]:
    """The releases that have been built to the end, in the order of their ids; none where others could replace them."""
    marks = list((home / "releases").glob(f"*/{COMPLETE}"))
    if marks and exposed(home / "releases"):
        return []
    # What a build has put aside is not a release.
    paths = sorted(mark.parent for mark in marks if mark.parent.suffix != DAMAGED and _is_own(mark))
    return [Release(path.name, _time(path / COMPLETE), _time(path / ACTIVATED)) for path in paths]


def _time(mark: Path) -> float:
    return mark.stat().st_mtime if mark.exists() else 0.0


def live(home: Path) -> Path | None:
    """The target of ``<home>/current``, or None if that is no symbolic link."""
    current = home / "current"
    return current.readlink() if current.is_symlink() else None


def been_live(releases: Iterable[Release]) -> list[Release]:
    """Those of the releases that have been live, the most recent first."""
    return sorted((one for one in releases if one.activated), key=lambda one: one.activated, reverse=True)


def previous(releases: Iterable[Release], live_id: str) -> str:
    """The id of the release to go back to, or "" where there is none.

    That release was live before the live one and is not newer. A newer one is what an earlier rollback went back from,
    and a second rollback must not go forward to it.
    """
    releases = list(releases)
    newest = next((one.built for one in releases if one.id == live_id), float("inf"))
    return next((one.id for one in been_live(releases) if one.id != live_id and one.built <= newest), "")


def mark_live(release: Path, before: Path | None) -> None:
    """Record that a release is live from now on, unless it already was."""
    marker = release / ACTIVATED
    if before != release or not marker.exists():
        marker.touch()
        sync(release)


def prune(home: Path, keep: int) -> None:
    """Remove all complete releases but `keep` of them: the live one and those that were live most recently."""
    current = (home / "current").resolve()
    others = [one for one in complete(home) if (home / "releases" / one.id).resolve() != current]
    others.sort(key=lambda one: one.activated, reverse=True)
    for one in others[max(keep - 1, 0) :]:
        shutil.rmtree(home / "releases" / one.id)
