"""Switches a host to a release and its settings, proves that the service works, or puts everything back.

This is one program and not a list of tasks, so that it comes to an end by itself if the controller goes away in the
middle: it saves what is live, places what is wanted, and proves it, or puts back what was saved.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible.module_utils import app_comparison, app_host, app_label
from ansible.module_utils.app_check import failed_check, no_python
from ansible.module_utils.app_disk import sync, sync_tree
from ansible.module_utils.app_kind import kind_of
from ansible.module_utils.app_ownership import claim, take
from ansible.module_utils.app_placing import is_same, place
from ansible.module_utils.app_proof import (
    JOURNAL_LINES,
    Service,
    UnhealthyError,
    last_lines,
    proven_as,
    restart,
    service_of,
)
from ansible.module_utils.app_releases import live, mark_live, prune
from ansible.module_utils.app_undo import arm, disarm

LOCKS = Path("/run")
# The staged files that systemd reads when it is told to reload.
UNITS = ("unit", "drop_in", "command_drop_in")


@dataclass(frozen=True)
class Outcome:
    """How a switch ended: whether anything changed, and why what was wanted is not live, or ""."""

    failure: str = ""
    changed: bool = False
    note: str = ""  # what the user should know of a switch that went well


def switch(wanted: Mapping[str, Any], release: Path, rebuilt: bool) -> Outcome:
    """Bring a host to what is wanted, in a process that outlives this one; wait for it.

    `release` is the directory to make live; `rebuilt` says that it has just been rebuilt, so that the running process
    still has the old code.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        # When the connection is lost, sudo(8) ends every process of its session, so this one leaves it.
        os.setsid()
        os.umask(0o077)
        try:
            outcome = _switch_alone(wanted, release, rebuilt)
        except BaseException as error:  # whatever went wrong, the waiting process has to hear of it
            outcome = Outcome(f"the switch ended with {error!r}", True)
        with suppress(OSError):  # the waiting process may be gone
            os.write(writer, json.dumps(asdict(outcome)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:  # noqa: PTH123 - a descriptor, not a path
        said = answer.read()
    _, status = os.waitpid(child, 0)
    return (
        Outcome(**json.loads(said)) if said else Outcome(f"the switch was ended from outside (status {status})", True)
    )


def _switch_alone(wanted: Mapping[str, Any], release: Path, rebuilt: bool) -> Outcome:
    """Switch, unless another play is switching this service."""
    service = service_of(wanted)
    with _lock(service).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Outcome(
                f"another play is switching {service.name} on this host; wait for it to end, then run this one again"
            )
        try:
            return _switch_locked(service, wanted, release, rebuilt)
        finally:
            if wanted["check_zip"]:  # brought for this switch alone; what can't be removed is overwritten by the next
                with suppress(OSError):
                    Path(wanted["check_zip"]).unlink()


def _switch_locked(service: Service, wanted: Mapping[str, Any], release: Path, rebuilt: bool) -> Outcome:
    """Switch, or mend what needs no switch, as the only one who does."""
    if os.path.lexists(service.current) and not service.current.is_symlink():
        what = "directory" if service.current.is_dir() else "file"
        return Outcome(
            f"{service.current} is a {what}, and has to be a symbolic link; move it away, then run the play again"
        )
    claimed = claim(service)
    if not rebuilt and not differs(wanted, release):
        kept = keep(wanted)
        return replace(kept, changed=kept.changed or claimed)
    try:
        if app_label.missing(service.home):
            app_label.add(service.home)
        staged = stage(service, app_comparison.files(wanted))
    except OSError as error:
        return give_up(service, "the new settings could not be written", str(error))
    try:
        return activate(service, release, staged, wanted["check"] or "", wanted["releases_kept"], rebuilt)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _lock(service: Service) -> Path:
    """The file that a switch holds locked, and that no boot starts with."""
    return LOCKS / f"{service.name}-activate.lock"


def differs(wanted: Mapping[str, Any], release: Path) -> bool:
    """Whether there is anything to switch, or an earlier switch was cut short."""
    unlike = next(app_comparison.unlike_files(wanted), None)
    return bool(unlike) or live(Path(wanted["home"]["path"])) != release or app_comparison.backup(wanted).exists()


def keep(wanted: Mapping[str, Any]) -> Outcome:
    """Mend what needs no switch: the directories, and a service that is not enabled, running or ready."""
    changed = False
    for path, mode in app_comparison.directories(wanted).items():
        if app_host.differences(path, {"mode": mode}):
            take(path, int(mode, 8))
            changed = True
    home = Path(wanted["home"]["path"])
    if app_label.missing(home):
        app_label.add(home)
        changed = True
    name, booted = wanted["name"], app_host.BOOTED.is_dir()
    if not app_host.enabled(name):
        app_host.run("systemctl", "enable", name)
        changed = True
    if not booted:
        return Outcome(changed=changed)
    if app_host.unit(name, "ActiveState").get("ActiveState") not in ("active", "activating", "reloading"):
        app_host.run("systemctl", "start", "--no-block", name)
        changed = True
    # The service may just have started, or its broker may have restarted a moment ago, so it gets time to be ready.
    budget = wanted["start_seconds"]
    reason = app_comparison.not_running(wanted, budget)
    if not reason:
        return Outcome(changed=changed)
    journal = app_host.run("journalctl", "--unit", name, "--lines", JOURNAL_LINES, "--output=cat", "--no-pager")
    return Outcome(
        f"{name} is not ready after {budget:.0f} s: {reason}. The end of `journalctl -u {name} -e`:\n\n{journal}",
        changed,
    )


def stage(service: Service, files: list[dict[str, Any]]) -> Path:
    """Write the new files into a directory of their own, which only root can enter; return its path."""
    service.configuration.mkdir(exist_ok=True)
    service.configuration.chmod(0o755)
    sync(service.configuration.parent)
    staged = Path(tempfile.mkdtemp(prefix="next.", dir=service.configuration))
    try:
        (staged / "credentials").mkdir(mode=0o700)
        for file in files:
            path = staged / file["name"]
            path.touch(mode=0o600)
            path.write_bytes(app_host.content(file))
            path.chmod(int(file["mode"], 8))
        sync_tree(staged)
    except OSError:
        shutil.rmtree(staged)
        raise
    return staged


def activate(
    service: Service, release: Path, staged: Path, check: str, keep_releases: int, rebuilt: bool = False
) -> Outcome:
    """Make what is staged live and prove it; if that fails, put back what was live."""
    if not app_host.BOOTED.is_dir():
        # While an image is made no service runs, so there is nothing to prove and nothing to keep running.
        before = live(service.home)
        place(service, staged, release)
        app_host.run("systemctl", "enable", service.name)
        mark_live(release, before)
        forget(service)
        prune(service.home, keep_releases)
        return Outcome(changed=True)
    note = no_python(service) if check else ""
    failure = failed_check(service, release, staged, check) if check and not note else ""
    if failure:
        return give_up(service, f"`{check}` failed on this host with the new settings", failure)
    known = not rebuilt and _is_known(service, release, staged)
    try:
        save(service, staged)
    except OSError as error:
        return give_up(service, "the live state could not be kept aside", str(error))
    try:
        place(service, staged, release)
        restart(service, known)
        mark_live(release, linked(service.backup / "current"))
    except Exception as error:  # whatever went wrong, what was live has to be live again
        journal = last_lines(service)
        outcome = put_back(service)
        return Outcome(
            f"the new release or settings are not healthy: {error}\n{outcome}\nThe journal of the attempt:\n{journal}",
            True,
        )
    forget(service)
    prune(service.home, keep_releases)
    return Outcome(changed=True, note=note)


def _is_known(service: Service, release: Path, staged: Path) -> bool:
    """Whether this release has been proven under this unit, so that the settings alone are new."""
    if live(service.home) != release or service.backup.exists():
        return False
    return all(is_same(staged / name, service.live[name]) for name in UNITS if (staged / name).exists())


def give_up(service: Service, what: str, why: str) -> Outcome:
    """Leave what is live alone, unless an activation that was cut short has left it unproven."""
    if not service.backup.exists():
        return Outcome(f"{what}; nothing that is live has changed:\n{why}")
    return Outcome(
        f"{what}:\n{why}\nThe activation before this one was cut short, so what was live before it is put back. "
        f"{put_back(service)}",
        True,
    )


def linked(link: Path) -> Path | None:
    return link.readlink() if link.is_symlink() else None


def save(service: Service, staged: Path) -> None:
    """Save the live state, unless an activation that was cut short has already saved the proven one before it."""
    (service.spare / "credentials").mkdir(mode=0o700, parents=True, exist_ok=True)
    if service.backup.exists():
        arm(service, service.backup, staged, _lock(service))
        return
    half = service.backup.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        half.mkdir(mode=0o700)
        for name, path in service.live.items():
            if path.is_dir():
                shutil.copytree(path, half / name)
            elif path.exists():
                shutil.copy2(path, half / name)
        release = live(service.home)
        if release:
            (half / "current").symlink_to(release)
        sync_tree(half)
        arm(service, half, staged, _lock(service))
        half.rename(service.backup)
        sync(service.configuration)
    except OSError:
        disarm(service)
        for path in (half, service.spare):
            shutil.rmtree(path, ignore_errors=True)
        raise


def put_back(service: Service) -> str:
    """Restore the saved state; return how that went, in a sentence. It raises nothing."""
    try:
        return restore(service)
    except Exception as fault:  # the user still has to hear why the change failed
        return f"What was live could not be put back ({fault}), and is kept in {service.backup}; mend that, run again."


def restore(service: Service) -> str:
    """Put the saved state back and prove it; return how that went, in a sentence.

    Raises app_host.CommandError and OSError.
    """
    release = linked(service.backup / "current")
    had_unit = (service.backup / "unit").exists()
    if not had_unit:
        app_host.run("systemctl", "disable", "--now", service.name)
    # Hard links leave the saved state whole if this is cut short, and they need no room on a disk that may be full.
    for path in service.spare.rglob("*"):
        if not path.is_dir():
            path.unlink()
    ignored = shutil.ignore_patterns("current")
    shutil.copytree(service.backup, service.spare, ignore=ignored, copy_function=os.link, dirs_exist_ok=True)
    sync_tree(service.spare)
    place(service, service.spare, release)
    forget(service)
    if not had_unit:
        app_host.run("systemctl", "daemon-reload")
        for directory in {path.parent for path in service.live.values() if path.parent.suffix == ".d"}:
            with suppress(OSError):  # it holds other drop-ins, or is not there
                directory.rmdir()
        return "There was nothing before it to go back to; the service is removed again."
    # A service set up by hand need not answer at the URL, so systemd's word has to do.
    service = proven_as(service, kind_of(release.name) if release else "")
    what = f"Release {release.name}" if release else "The unit"
    try:
        restart(service)
    except (UnhealthyError, app_host.CommandError) as error:
        return f"{what} and its settings are back, but they are not healthy, either: {error}"
    return f"{what} and its settings are back, and healthy."


def forget(service: Service) -> None:
    """Drop the saved state, and what activations that were cut short have left staged."""
    disarm(service)
    if service.backup.exists():
        # A saved state of which a part is missing must not be taken for a whole one, so it goes in one step.
        dropped = service.configuration / "next.dropped"
        shutil.rmtree(dropped, ignore_errors=True)
        service.backup.rename(dropped)
    sync(service.configuration)
    for path in service.configuration.glob("next.*"):
        shutil.rmtree(path)
    sync(service.configuration)


def main(request: Mapping[str, Any]) -> int:
    """Switch as the request asks, whose keys are the arguments of `switch`; return the exit code."""
    release = Path(request["release"])
    try:
        wanted = app_comparison.of_kind(request["wanted"], kind_of(release.name))
        outcome = switch(wanted, release, request["rebuilt"])
    except app_comparison.UnfitError as error:
        outcome = Outcome(str(error))
    if outcome.note:
        print(outcome.note)
    if outcome.failure:
        print(outcome.failure, file=sys.stderr)
    return int(bool(outcome.failure))
