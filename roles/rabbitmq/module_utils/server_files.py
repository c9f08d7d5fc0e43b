"""A server's files on a host: compared, placed, and put back as they were. For Python 3.9 and later."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.app_disk import sync

_PERMISSIONS = 0o7777


class RefusedError(Exception):
    """What the host's administrator has to be told, in a sentence with the next step."""


@dataclass(frozen=True)
class File:
    """One file as it is wanted or found. `content` is None where there is none; a secret is never shown."""

    path: Path
    content: bytes | None
    mode: int = 0o644
    owner: int = 0
    group: int = 0
    secret: bool = False

    @property
    def shown(self) -> str:
        """What a diff may show of it."""
        if self.content is None:
            return ""
        return "(not shown)\n" if self.secret else self.content.decode(errors="replace")


def found(wanted: File) -> File:
    """Return what stands at the path of a file that is wanted."""
    try:
        status, content = wanted.path.stat(), wanted.path.read_bytes()
    except FileNotFoundError:
        return File(wanted.path, None, secret=wanted.secret)
    return File(wanted.path, content, status.st_mode & _PERMISSIONS, status.st_uid, status.st_gid, secret=wanted.secret)


def differing(wanted: Iterable[File]) -> list[File]:
    """Return those of the files wanted that are not found as they are wanted."""
    return [file for file in wanted if not _same(file, found(file))]


def diff(due: Iterable[File]) -> list[dict[str, str]]:
    """Return what Ansible is to show of files that differ."""
    return [
        {
            "before_header": str(file.path),
            "after_header": str(file.path),
            "before": found(file).shown,
            "after": file.shown,
        }
        for file in due
    ]


def _same(wanted: File, found: File) -> bool:
    return wanted == found if wanted.content is not None else found.content is None


def place(file: File) -> None:
    """Make a file what is wanted, or remove it; whoever reads it meanwhile gets the old one or the new one whole."""
    if file.content is None:
        file.path.unlink(missing_ok=True)
        sync(file.path.parent)
        return
    staged = file.path.with_name(f".{file.path.name}.staged")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchown(stream.fileno(), file.owner, file.group)
        os.fchmod(stream.fileno(), file.mode)
        stream.write(file.content)
        stream.flush()
        os.fsync(stream.fileno())
    staged.replace(file.path)
    sync(file.path.parent)


def directory(path: Path, group: int, mode: int = 0o750) -> bool:
    """Make sure of a directory of root's and of `group`; return whether that changes anything."""
    status = path.stat() if path.exists() else None
    if status and (status.st_uid, status.st_gid, status.st_mode & _PERMISSIONS) == (0, group, mode):
        return False
    path.mkdir(exist_ok=True)
    os.chown(path, 0, group)
    path.chmod(mode)
    return True


class Previous:
    """The files that ran before, kept on the host while what took their place is unproven.

    A play that is cut short leaves them: the next one then knows that the live files were never proven, and what to
    put back where they fail.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def stands(self) -> bool:
        return self.path.exists()

    def keep(self, files: Iterable[File]) -> None:
        """Keep what stands in the place of `files`. What an unproven play has kept already stays as it is."""
        kept = {str(file.path): file for file in self.files()}
        for file in files:
            kept.setdefault(str(file.path), found(file))
        rows = [{**vars(file), "path": str(file.path), "content": _packed(file.content)} for file in kept.values()]
        place(File(self.path, json.dumps(rows).encode(), 0o600))

    def replace(self, files: list[File]) -> None:
        """Keep what stands in the place of `files`, and place them."""
        self.keep(files)
        for file in files:
            place(file)

    def files(self) -> list[File]:
        """Return the files that are kept."""
        if not self.stands:
            return []
        rows = json.loads(self.path.read_text())
        return [File(**{**row, "path": Path(row["path"]), "content": _unpacked(row["content"])}) for row in rows]

    def forget(self) -> None:
        """Drop what is kept: the live files have proven themselves, or the previous ones are back."""
        place(File(self.path, None))


def fall_back(server: str, previous: Previous, ran: bool, reason: str, restart: Callable[[], str]) -> RefusedError:
    """Put back what ran before, where a server did not start for `reason`; return the error that tells all of it.

    `ran` says whether the server did so before; `restart` starts it and returns why not, "" where it runs.
    """
    kept = previous.files()
    for file in kept:
        place(file)
    previous.forget()
    if not kept:
        return RefusedError(f"{server} does not start with the configuration it has had so far. It says:\n{reason}")
    reason_of_previous = restart()
    if not reason_of_previous:
        return RefusedError(
            f"{server} did not start with the new configuration; the previous one is back and {server} runs with it. "
            f"What it said of the new one:\n{reason}"
        )
    return RefusedError(
        f"{server} did not start with the new configuration. The previous one is back, and it does not start with that "
        f"{'any more' if ran else 'either, nor did it run before'}. What it said of the new one:\n{reason}\n"
        f"What it said of the previous one:\n{reason_of_previous}"
    )


def _packed(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _unpacked(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def user_of(name: str) -> int:
    """Return a user's number. Raises KeyError."""
    return pwd.getpwnam(name).pw_uid


def group_of(name: str) -> int:
    """Return a group's number. Raises KeyError."""
    return grp.getgrnam(name).gr_gid
