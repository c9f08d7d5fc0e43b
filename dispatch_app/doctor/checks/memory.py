"""Memory: was the service's process killed because it needed too much, and over which message?"""

from __future__ import annotations

from ...suspects import DEATHS, REASON
from ..case import Case
from ..table import ERROR, NAME, Check, Finding
from . import needs
from .fixes import RESTART, provision

_RECENT = 60.0  # seconds since the last start
# systemd's words, whole, because orders' ids stand in the journal, too. Those under OOMPolicy=continue, which goes with
# a hook, may be about the hook's process alone, so they count only where the service itself was ended by a signal.
_STOPPED = f"{NAME}.service: Failed with result 'oom-kill'."
_CONTINUED = f"{NAME}.service: A process of this unit has been killed by the OOM killer."
_SIGNALLED = f"{NAME}.service: Failed with result 'signal'."


def out_of_memory(case: Case) -> Finding | None:
    unit, journal = case.host.unit, case.host.journal
    # Result= is of the last run, and a service that runs again has none yet; of the runs before, the journal tells.
    again = case.host.active and case.host.uptime < _RECENT and int(unit["NRestarts"] or 0) > 0
    stopped = unit["Result"] == "oom-kill" or (again and _STOPPED in journal)
    signalled = unit["Result"] == "signal" or (again and _SIGNALLED in journal)
    if not stopped and not (signalled and _CONTINUED in journal):
        return None
    seen = f"{'result oom-kill' if stopped else 'killed by the OOM killer'}, {unit['NRestarts'] or 0} restarts"
    deaths = case.state.deaths()
    if deaths:
        message, count = max(deaths.items(), key=lambda entry: entry[1])
        seen += f"; {count} of its processes died over the message whose BLAKE2b-128 is {message}"
        cause = (
            "The kernel killed the service for its memory while it worked on that message. After "
            f"{DEATHS} deaths Dispatch puts it among the dead letters ({REASON}), and all other orders go on."
        )
        return Finding(seen, cause, RESTART)
    cause = "The kernel killed the service for its memory, and no message is known to be at fault"
    return provision(seen, f"{cause}: raise MemoryMax in dispatch_limits, or lower DISPATCH_PREFETCH.")


CHECKS = (Check("out-of-memory", "service", ERROR, "the service has the memory it needs", out_of_memory, needs.UNIT),)
