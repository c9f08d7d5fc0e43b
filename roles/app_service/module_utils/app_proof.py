"""Restarts a service, and proves that it is ready and stays so."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible.module_utils import app_host

# A service has to stay ready this many seconds without a restart, because some crash only after they were ready.
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.1
JOURNAL_LINES = "15"


class UnhealthyError(Exception):
    """The service is not healthy; the message says what was seen."""


@dataclass(frozen=True)
class Service:
    """A service to switch: its name and user, where its files are, and what proves its health."""

    name: str
    user: str
    home: Path
    configuration: Path
    live: dict[str, Path]  # where each staged file or directory goes
    ready_url: str
    ready_log: str  # what a line of the journal has to match once, in each start
    proofs: Mapping[str, tuple[str, str]]  # these two, by the kind of a release
    check_zip: str  # the program of the check, where the release has none
    budget: float  # seconds within which it has to be ready
    stop_seconds: float  # seconds systemd gives it to end

    @property
    def current(self) -> Path:
        return self.home / "current"

    @property
    def backup(self) -> Path:
        """The directory that keeps the previous state, which was healthy, while a switch is under way."""
        return self.configuration / "previous"

    @property
    def spare(self) -> Path:
        """A directory to put the previous state back from, made early because the disk may be full by then."""
        return self.configuration / "next.spare"


def service_of(wanted: Mapping[str, Any]) -> Service:
    """The service that the document of what is wanted describes."""
    configuration = Path(wanted["configuration"])
    # A file that only a release of another kind has is live, too, as long as that release is.
    parts = [wanted, *wanted["kinds"].values()]
    public = {name: Path(file["path"]) for part in parts for name, file in part["files"].items()}
    return Service(
        name=wanted["name"],
        user=wanted["account"]["name"],
        home=Path(wanted["home"]["path"]),
        configuration=configuration,
        live={**public, "credentials": configuration / "credentials"},
        ready_url=wanted["ready_url"],
        ready_log=wanted["ready_log"],
        proofs={kind: (part["ready_url"], part["ready_log"]) for kind, part in wanted["kinds"].items()},
        check_zip=wanted["check_zip"],
        budget=wanted["start_seconds"],
        stop_seconds=wanted["stop_seconds"],
    )


def proven_as(service: Service, kind: str) -> Service:
    """The service with what proves a release of this kind; where that is not known, systemd's word has to do."""
    ready_url, ready_log = service.proofs.get(kind, ("", ""))
    return replace(service, ready_url=ready_url, ready_log=ready_log)


def restart(service: Service, known: bool = False) -> None:
    """Restart the service and wait until it has been ready for SETTLE_SECONDS. Raises UnhealthyError, CommandError.

    A release that is `known` to work under its unit proves new settings by being ready, if it tells when it is.
    """
    settle = 0 if known and (service.ready_url or service.ready_log) else SETTLE_SECONDS
    found = properties(service)
    # Each of these makes systemd read all units again, which takes longer than the rest of a restart.
    if not known or found["NeedDaemonReload"] != "no":
        app_host.run("systemctl", "daemon-reload")
    if not app_host.enabled(service.name):
        app_host.run("systemctl", "enable", service.name)
    before = found["InvocationID"]
    app_host.run("systemctl", "restart", "--no-block", service.name)
    deadline = time.monotonic() + service.stop_seconds + service.budget
    ready_since: float | None = None
    logged = not service.ready_log
    restarts: int | None = None  # systemd still counts the restarts of the state before, if that was crashing
    while ready_since is None or time.monotonic() < ready_since + settle:
        time.sleep(POLL_SECONDS)
        state = properties(service)
        # Until the old process has ended, systemd's answers are about that one.
        started = state["InvocationID"] != before
        if started and restarts is None:
            restarts = int(state["NRestarts"])
            deadline = time.monotonic() + service.budget
        again = restarts is not None and int(state["NRestarts"]) > restarts
        if started and (again or state["SubState"] in ("failed", "auto-restart")):
            raise UnhealthyError(f"it ended by itself ({state['Result']}, exit status {state['ExecMainStatus']})")
        reason = not_ready(service, state) if started else "the process before it has not ended"
        if not reason and not logged:
            logged = has_logged(state["InvocationID"], service.ready_log)
            reason = "" if logged else f"no line of its journal matches {service.ready_log!r}"
        if not reason:
            ready_since = ready_since or time.monotonic()
            continue
        ready_since = None
        if time.monotonic() > deadline:
            raise UnhealthyError(f"it was not ready within {service.budget:.0f} s: {reason}")


def properties(service: Service) -> dict[str, str]:
    names = "ActiveState,SubState,NRestarts,Result,ExecMainStatus,StatusText,InvocationID,NeedDaemonReload"
    shown = app_host.run("systemctl", "show", service.name, f"--property={names}")
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def not_ready(service: Service, state: dict[str, str]) -> str:
    """Say why the service isn't ready; "" if it is."""
    if state["ActiveState"] != "active":
        return f"systemd says {state['ActiveState']} ({state['SubState']}) {state['StatusText']}".strip()
    reason: str = app_host.not_ready(service.ready_url)
    return reason


def has_logged(invocation: str, pattern: str) -> bool:
    """Whether a line that this run of the unit has written itself matches a regular expression.

    The journal may have been rotated since an earlier start, so this proves a start and not a service that runs.
    """
    command = ["journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat", "--no-pager", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as journal:
        found = any(re.search(pattern, line) for line in journal.stdout or ())
        journal.kill()  # the service may have written a lot since
    return found


def last_lines(service: Service) -> str:
    """The end of the journal of the process that has just failed: its own lines and systemd's lines about it."""
    try:
        return journal_of(properties(service)["InvocationID"])
    except Exception as error:  # as there
        return str(error)


def journal_of(invocation: str) -> str:
    """The last lines of one run of a unit, its own and systemd's; where they can't be read, why."""
    try:
        app_host.run("journalctl", "--sync")
        own, systemd_s = f"_SYSTEMD_INVOCATION_ID={invocation}", f"INVOCATION_ID={invocation}"
        lines: str = app_host.run(
            "journalctl", own, "+", systemd_s, "--lines", JOURNAL_LINES, "--output=cat", "--no-pager"
        )
        return lines
    except Exception as error:  # a missing journal must not stop the way back
        return str(error)
