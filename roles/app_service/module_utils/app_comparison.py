"""Compares what is wanted of a service with what is found: its files, its release, how it runs. It only reads.

What is wanted comes as one document; DOCUMENTATION in library/app_state.py describes it.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils import app_host, app_label
from ansible.module_utils.app_releases import live

Wanted = Mapping[str, Any]
# Every file that the role renders starts with this, which tells it from a file that somebody else wrote.
OURS = "# Written by the role app_service"
POLL_SECONDS = 0.5
# Directives of the role's unit that only these versions of systemd and later know (systemd.service(5)). At each start,
# an earlier one would complain of them in the journal.
SINCE = {"RestartSteps": 254, "RestartMaxDelaySec": 254}


class UnfitError(Exception):
    """A release is not fit to go live as this service; the message says why and what to do."""


def of_kind(wanted: Wanted, kind: str) -> Wanted:
    """What is wanted where the release is of this kind: what holds for every kind, and what holds for this one.

    Raises UnfitError where the service runs no such release.
    """
    if kind not in wanted["kinds"]:
        raise UnfitError(
            f"The release is of the kind {kind}, which {wanted['name']} does not run. It runs releases of the kind "
            f"{' or '.join(wanted['kinds'])}: take one of these."
        )
    differing = wanted["kinds"][kind]
    if differing["faults"]:
        raise UnfitError("\n".join(differing["faults"]))
    credentials = (wanted["credentials"] or {}).get(kind) or {}
    return {**wanted, **differing, "kind": kind, "credentials": credentials}


def service_changes(wanted: Wanted, release: Path) -> list[str]:
    """How the service differs from what is wanted, a sentence each: its files, its directories, how it runs."""
    switched = [f"{file['path']}: {', '.join(unlike)}" for file, unlike in unlike_files(wanted)]
    current = live(Path(wanted["home"]["path"]))
    if current != release:
        switched.append(f"the live release: {current.name if current else 'none'}, wanted is {release.name}")
    if backup(wanted).exists():
        switched.append("a switch was cut short")
    return switched + keeping_changes(wanted)


def keeping_changes(wanted: Wanted) -> list[str]:
    """What needs mending but no switch: the directories, and a service that is not enabled, running and ready."""
    found = []
    for path, mode in directories(wanted).items():
        unlike = app_host.differences(path, {"mode": mode})
        if unlike:
            found.append(f"{path}: {', '.join(unlike)}")
    if app_label.missing(Path(wanted["home"]["path"])):
        found.append(f"{wanted['home']['path']}: a relabel of SELinux would take its type away")
    reason = not_running(wanted)
    return [*found, *([f"the service: {reason}"] if reason else [])]


def not_running(wanted: Wanted, within: float = 0) -> str:
    """Why the service isn't enabled, running and ready, or ""; waits at most `within` seconds for it to be ready."""
    if not app_host.BOOTED.is_dir():  # an image is being made: nothing runs there
        return "" if app_host.enabled(wanted["name"]) else "it is not enabled"
    deadline = time.monotonic() + within
    while True:
        state = app_host.unit(wanted["name"], "UnitFileState", "ActiveState")
        active = state.get("ActiveState", "nothing of it")
        reason = f"systemd says {active}" if active != "active" else app_host.not_ready(wanted["ready_url"])
        if not reason and state.get("UnitFileState") != "enabled":
            reason = f"it is {state.get('UnitFileState') or 'not enabled'}"
        if not reason or time.monotonic() >= deadline:
            return reason
        time.sleep(POLL_SECONDS)


def unlike_files(wanted: Wanted) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The files that are not as wanted, and how each differs."""
    for file in files(wanted):
        unlike = app_host.differences(Path(file["path"]), file)
        if unlike:
            yield file, unlike


def files(wanted: Wanted) -> list[dict[str, Any]]:
    """The files that are switched together: `name` below a staging directory, `path`, `mode`, `content` or `secret`."""
    directory = Path(wanted["configuration"], "credentials")
    public = [{"name": name, **file} for name, file in wanted["files"].items()]
    for unit in (file for file in public if file["name"] == "unit"):
        unit["content"] = known(unit["content"], app_host.systemd_version())
    secret = [
        {"name": f"credentials/{name}", "path": str(directory / name), "mode": "0600", "secret": value}
        for name, value in (wanted["credentials"] or {}).items()
    ]
    return public + secret


def known(unit: str, version: float) -> str:
    """The text of a unit without those of our directives that this version of systemd is too old for."""
    newer = tuple(f"{name}=" for name, since in SINCE.items() if version < since)
    return "".join(line for line in unit.splitlines(keepends=True) if not line.startswith(newer))


def directories(wanted: Wanted) -> dict[Path, str]:
    """The directories that hold those files, and their modes."""
    configuration = Path(wanted["configuration"])
    return {configuration: "0755", configuration / "credentials": "0700"}


def backup(wanted: Wanted) -> Path:
    """Where the previous state is kept while a switch is under way."""
    return Path(wanted["configuration"], "previous")


def diff(wanted: Wanted, release: Path) -> list[dict[str, str]]:
    """What a switch to `release` would change, as a module's ``diff``, without what may be a secret."""
    shown = []
    for file, unlike in unlike_files(wanted):
        path = Path(file["path"])
        sentence = f"{path}: {', '.join(unlike)}"
        if "content" in file and {"content", "missing"} & set(unlike):
            before, header = app_host.text(path), str(path)
            if _may_be_shown(before):
                shown.append(
                    {"before": before, "after": file["content"], "before_header": header, "after_header": header}
                )
                continue
            sentence += " (not shown: it was not written by this role, and may hold a password)"
        shown.append({"prepared": f"{sentence}\n"})
    current = live(Path(wanted["home"]["path"]))
    if current != release:
        shown.append({"prepared": f"the live release: {current or 'none'}, wanted is {release}\n"})
    shown += [{"prepared": f"{sentence}\n"} for sentence in keeping_changes(wanted)]
    return shown


def _may_be_shown(before: str) -> bool:
    """Whether a file can hold no secret: it doesn't exist, or one of its first two lines says the role wrote it."""
    return not before or any(line.startswith(OURS) for line in before.splitlines()[:2])


def as_text(shown: list[dict[str, str]]) -> list[str]:
    """A module's ``diff`` as lines, for an engine without Ansible to print it."""
    lines = []
    for one in shown:
        if "prepared" in one:
            lines += one["prepared"].splitlines()
        else:
            headers = one["before_header"], one["after_header"]
            texts = one["before"].splitlines(), one["after"].splitlines()
            lines += difflib.unified_diff(*texts, *headers, lineterm="")
    return lines
