"""Builds one release from its artifact, beside the live one, as root.

At the end there is either a complete release or what was there before. A build that is killed leaves part of a release
behind, which the next build on the host removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible.module_utils import app_build_binary, app_build_go, app_build_python
from ansible.module_utils.app_disk import remove, sync, sync_file_system
from ansible.module_utils.app_plan import BuildError, Plan, plan_of
from ansible.module_utils.app_releases import ACTIVATED, COMPLETE, DAMAGED, digest, exposed, live, stands, verified
from ansible.module_utils.app_signature import refusal

# Only root can write here. In /run/lock any user could open the lock and hold it for ever.
LOCKS = Path("/run")
FULL = 10 << 20  # octets; a disk with fewer of them free counts as full
ROOT = 0
# By kind; each makes of what has been unpacked what the service runs.
BUILDERS = {"python": app_build_python, "go": app_build_go, "binary": app_build_binary}


def build(plan: Plan) -> bool:
    """Build a release unless the host has it; return whether anything changed. Removes the artifact in any case.

    Of a release that stands, but whose artifact's signature was not verified by these signers, that is made up for.
    Raises BuildError, also where another play is building the same release.
    """
    releases = plan.release.parent
    releases.parent.mkdir(exist_ok=True)
    _require_own_directory(releases)
    with _locked(plan.release) as mine:
        if not mine:
            raise BuildError(
                f"another play is building {plan.release} on this host right now; wait for it to end, then run this "
                "one again"
            )
        try:
            _tidy(plan.release)
            if fits(plan):
                return False
            content = _checked(plan)
            if stands(plan.release, plan.sha256):
                _mark(plan, plan.release / COMPLETE)
            else:
                _build_anew(plan, content)
        finally:
            plan.artifact.unlink(missing_ok=True)
            plan.signature.unlink(missing_ok=True)
    return True


def fits(plan: Plan) -> bool:
    """Whether the release stands, and its signature, where one is asked for, was verified by these signers."""
    return stands(plan.release, plan.sha256) and (not plan.signers or verified(plan.release) == plan.signed_by.digest())


def _checked(plan: Plan) -> bytes:
    """The artifact's content, if it is the one that was meant. Raises BuildError before anything is unpacked."""
    # Another user may have put the artifact here or still have it open, so only what has been read counts from here on.
    content: bytes = plan.artifact.read_bytes()
    if hashlib.sha256(content).hexdigest() != plan.sha256:
        raise BuildError(
            f"{plan.artifact} has changed on its way to this host: its SHA-256 is not {plan.sha256}; run the play again"
        )
    refused = refusal(content, plan.signature, plan.signed_by)
    if refused:
        raise BuildError(refused)
    return content


def _require_own_directory(releases: Path) -> None:
    """Refuse directories that others could write to, because root executes what is in them. Raises BuildError."""
    if releases.is_symlink() or (releases.exists() and not releases.is_dir()):
        raise BuildError(f"{releases} is no directory; move it away, then run the play again")
    releases.mkdir(exist_ok=True, mode=0o755)
    found = releases.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise BuildError(
            f"{releases} can be written to by others than root, who may have put programs there. Look at what stands "
            f"in it, then remove it (rm -r {releases}) or make it root's alone (chown -R root: {releases}; chmod 755 "
            f"{releases}), and run the play again"
        )
    parent = exposed(releases)
    if parent:
        raise BuildError(
            f"{parent} can be written to by others than root, who could put another directory in the place of "
            f"{releases}. Make it root's alone (chown root: {parent}; chmod go-w {parent}), and run the play again"
        )


@contextmanager
def _locked(release: Path) -> Iterator[bool]:
    """Take a release's lock if it is free; yield whether it was."""
    descriptor = os.open(LOCKS / f"{release.name}.build", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _tidy(wanted: Path) -> None:
    """Clean up after builds that were killed: remove parts of releases, and put back whole ones kept beside them."""
    current = live(wanted.parent.parent)
    for path in {_whole(path) for path in wanted.parent.iterdir()}:
        if path == wanted:
            _tidy_one(path, current)
        elif _aside(path).exists() or (path.exists() and not (path / COMPLETE).exists()):
            with _locked(path) as mine:
                if mine:
                    _tidy_one(path, current)


def _tidy_one(path: Path, current: Path | None) -> None:
    aside = _aside(path)
    if (path / COMPLETE).exists():
        remove(aside)
    elif aside.exists():
        remove(path)
        aside.rename(path)
    elif not current or path.resolve() != current.resolve():
        remove(path)


def _aside(release: Path) -> Path:
    return release.with_name(release.name + DAMAGED)


def _whole(path: Path) -> Path:
    return path.with_name(path.name[: -len(DAMAGED)]) if path.name.endswith(DAMAGED) else path


def _build_anew(plan: Plan, content: bytes) -> None:
    release, aside = plan.release, _aside(plan.release)
    if release.exists():
        # This may be the live release. The service does not notice while it is away: it has its code in memory.
        release.rename(aside)
    try:
        release.mkdir(mode=0o755)
        _unpack(plan, content)
        BUILDERS[plan.kind].build(plan)
        _give_to_root(release)
        _complete(plan, aside)
    except BaseException as error:
        room = shutil.disk_usage(release.parent).free
        remove(release)
        if aside.exists():
            aside.rename(release)
        if isinstance(error, (BuildError, OSError)) and room < FULL:
            raise BuildError(
                f"the disk is full: {room >> 10} KiB are left for {release}; make room and run the play again\n{error}"
            ) from error
        if isinstance(error, OSError):
            raise BuildError(str(error)) from error
        raise
    remove(aside)


def _unpack(plan: Plan, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(plan.release)
    except OSError:
        raise
    except Exception as error:  # zipfile has a dozen kinds of them, by what is damaged
        raise BuildError(f"the artifact can't be unpacked: {str(error) or type(error).__name__}") from error
    for name in (*BUILDERS[plan.kind].made(plan), COMPLETE, ACTIVATED):
        if os.path.lexists(plan.release / name):
            raise BuildError(f"the artifact holds {name}, which is made on the host; leave it out, and zip it again")


def _give_to_root(release: Path) -> None:
    """Give every file of a release to root; everybody may read it, and only root may write."""
    for place, directories, files in os.walk(release):
        for name in (".", *directories, *files):
            path = os.path.join(place, name)  # noqa: PTH118 - thousands of paths, and pathlib is slow
            mode = os.lstat(path).st_mode
            os.chown(path, ROOT, ROOT, follow_symlinks=False)
            if not os.path.islink(path):  # noqa: PTH114 - as above
                runs = os.path.isdir(path) or mode & 0o111  # noqa: PTH112 - as above
                os.chmod(path, 0o755 if runs else 0o644)  # noqa: PTH101 - as above


def _complete(plan: Plan, aside: Path) -> None:
    """Mark a release as complete. A rebuilt one takes over the marks of the one it replaces."""
    release = plan.release
    if (aside / ACTIVATED).exists():
        shutil.copy2(aside / ACTIVATED, release / ACTIVATED)
    sync_file_system(release)  # the mark vouches for the rest, so it comes last
    _mark(plan, aside / COMPLETE)


def _mark(plan: Plan, before: Path) -> None:
    """Write a release's mark, which is as old as the one `before`, where there is that."""
    release = plan.release
    marker = release / f"{COMPLETE}.new"
    signers = f"{plan.signed_by.digest()}\n" if plan.signers else ""
    marker.write_text(f"{plan.sha256}\n{digest(release)}\n{signers}", encoding="ascii")
    with suppress(FileNotFoundError):
        # A rebuilt release keeps its age, because the releases' order in time decides where a rollback goes.
        built = before.stat()
        os.utime(marker, ns=(built.st_atime_ns, built.st_mtime_ns))
    sync(marker)
    marker.rename(release / COMPLETE)
    sync(release)


def failure(source: str, error: Exception) -> str:
    """The message about an artifact whose release could not be built; `source` is the artifact's name in messages."""
    return f"The release of {source} could not be built, and nothing else has changed: {error}"


def main(request: Mapping[str, Any]) -> int:
    """Build a ``plan``; return the exit code. ``source`` is the artifact's name in messages."""
    os.umask(0o022)
    try:
        build(plan_of(request["plan"]))
    except (BuildError, OSError) as error:
        print(failure(request["source"], error), file=sys.stderr)
        return 1
    return 0
