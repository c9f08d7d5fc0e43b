"""The unit and the process: does systemd run the service, as the roles set it up?"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from ..case import Case
from ..host import CONFIGURATION, UNIT
from ..table import ACTIVATED, ERROR, HOME, NAME, WARNING, Check, Finding, LookError
from . import needs
from .fixes import RESTART, provision, reinstall

_CRASHES = 2  # restarts by systemd, the last one within the minute


def unit_missing(case: Case) -> Finding | None:
    told = {"not-found": f"systemd knows no {NAME}.service", "": "systemd does not answer"}
    seen = told.get(case.host.unit["LoadState"])
    return provision(seen, "Dispatch has not been provisioned here, or was removed.") if seen else None


def unit_masked(case: Case) -> Finding | None:
    if "masked" not in (case.host.unit["LoadState"], case.host.unit["UnitFileState"]):
        return None
    seen = f"{case.host.fragment} leads to /dev/null"
    return provision(seen, "The unit is masked, so nothing can start it; the play writes it anew.")


def unit_not_reloaded(case: Case) -> Finding | None:
    if case.host.unit["NeedDaemonReload"] != "yes":
        return None
    return Finding(f"{case.host.fragment} has changed since systemd read it", "The unit was changed and not reloaded.",
                   f"systemctl daemon-reload && {RESTART}")  # fmt: skip


def unit_edited(case: Case) -> Finding | None:
    if not case.host.ours:
        return None
    if case.host.overriding:
        return _overridden(case.host.overriding)
    # Every activation ends with a change of this directory, so a unit that is newer was not written by one.
    activated = case.host.release / ACTIVATED
    if not activated.exists() or UNIT.stat().st_mtime <= CONFIGURATION.stat().st_mtime:
        return None
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(UNIT.stat().st_mtime))
    return provision(f"{UNIT} was changed {moment}, after the last play", "The unit was edited by hand.")


def _overridden(drop_ins: Mapping[str, list[str]]) -> Finding:
    """Drop-ins of this unit alone can go; those for services at large stay, and are masked for this unit."""
    own = f"{UNIT}.d"
    # What a package brought and what stands in service.d stays; a file of the same name in the unit's own directory
    # hides it from this unit alone (systemd.unit(5)). `systemctl revert` would take the roles' own drop-in away, too.
    stay = [path for path, names in drop_ins.items() if names or not path.startswith(("/etc/", "/run/"))]
    fix = [f"rm -f {shlex.quote(path)}" for path in drop_ins if path not in stay]
    if stay:
        fix += [f"mkdir -p {own}", *(f"ln -sf /dev/null {shlex.quote(f'{own}/{Path(path).name}')}" for path in stay)]
    fix += ["systemctl daemon-reload"]
    seen = (f"{path} ({', '.join(names)})" if names else path for path, names in drop_ins.items())
    return Finding(f"{', '.join(seen)} change the unit", "The unit is overridden by hand.",
                   " && ".join([*fix, RESTART]))  # fmt: skip


def restart_pending(case: Case) -> Finding | None:
    if not case.host.active or not case.host.stale:
        return None
    return Finding(f"changed since process {case.host.pid} was started: {', '.join(case.host.stale)}",
                   "The service still runs with the configuration that it was started with.", RESTART)  # fmt: skip


def unit_disabled(case: Case) -> Finding | None:
    if case.host.unit["UnitFileState"] != "disabled":
        return None
    return Finding(f"systemctl is-enabled {NAME} says disabled", "The service will not start at the next boot.",
                   f"systemctl enable {NAME}")  # fmt: skip


def service_stopped(case: Case) -> Finding | None:
    if case.host.unit["ActiveState"] != "inactive":
        return None
    return Finding(f"systemctl is-active {NAME} says inactive", "The service was stopped, or never started.",
                   f"systemctl start {NAME}")  # fmt: skip


def service_failed(case: Case) -> Finding | None:
    if case.host.unit["ActiveState"] != "failed":
        return None
    seen = f"result {case.host.unit['Result']}, exit code {case.host.unit['ExecMainStatus']}; {_last_words(case)}"
    return Finding(seen, "The service ended with a failure after which systemd does not start it again.", RESTART)


def crash_loop(case: Case) -> Finding | None:
    restarts = int(case.host.unit["NRestarts"] or 0)
    looping = case.host.unit["SubState"] == "auto-restart" or (restarts >= _CRASHES and case.host.uptime < 60)
    if not looping or (case.host.active and case.process.ask("/readyz")[0] == 200 and case.host.uptime > 5):
        return None
    seen = f"{restarts} restarts; {_last_words(case)}"
    cause = "The program crashes soon after each start."
    if len(list(Path(HOME, "releases").glob(f"*/{ACTIVATED}"))) > 1:
        return provision(seen, f"{cause} The release before this one is still here.", "rollback")
    return reinstall(case, seen, cause) if case.host.version else provision(seen, cause)


def _last_words(case: Case) -> str:
    """The last exception or panic in the journal."""
    named = re.compile(r"(panic: |[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b)")
    lines = [line for line in case.host.journal if named.match(line)] or case.host.journal
    return f"its journal says: {lines[-1][:300]}" if lines else "its journal is empty"


def service_hung(case: Case) -> Finding | None:
    if not case.host.ours or not case.host.active or case.host.uptime < 5:
        return None
    if case.host.foreign:
        raise LookError(needs.FOREIGN)
    status, text = case.process.ask("/livez")
    if status == 200:
        return None
    answer = f"answers {status}: {text.strip()}" if status else f"does not answer ({text})"
    return Finding(f"{case.process.http}/livez {answer}", "The process is there but does no work.", RESTART)


# Does the unit exist?
EXISTS = (
    Check("unit-missing", "service", ERROR, "the unit exists", unit_missing),
    Check("unit-masked", "service", ERROR, "the unit is not masked", unit_masked, ("unit-missing",)),
)
# Is it as the roles wrote it, and does the process follow it?
UNIT_FILE = (
    Check("unit-not-reloaded", "service", WARNING, "systemd has read the unit as it is", unit_not_reloaded, needs.UNIT),
    Check("unit-edited", "service", WARNING, "the unit is as the roles wrote it", unit_edited,
          (*needs.UNIT, "user-wrong", "unit-not-reloaded")),
    Check("restart-pending", "service", WARNING, "the process runs with what is configured", restart_pending,
          (*needs.SET, "unit-not-reloaded")),
    Check("unit-disabled", "service", WARNING, "the service starts at boot", unit_disabled, needs.UNIT),
)  # fmt: skip
# Does the process run? Faults of the settings, the ledger and the broker come before, for they can be the cause.
RUNS = (
    Check("service-stopped", "service", ERROR, "the service is started", service_stopped, needs.UNIT),
    Check("service-failed", "service", ERROR, "the service has not failed", service_failed,
          (*needs.UNIT, "out-of-memory"), symptom=True),
    Check("crash-loop", "service", ERROR, "the service does not crash", crash_loop,
          (*needs.UNIT, "out-of-memory"), symptom=True),
    Check("service-hung", "service", ERROR, "the process works", service_hung, needs.UNIT),
)  # fmt: skip
