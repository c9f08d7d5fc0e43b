"""The hook: is the shop's function called, and does it return?"""

from __future__ import annotations

from ..case import Case
from ..table import ERROR, Check, Finding
from . import needs
from .fixes import provision

_WHY = {
    "hook-failed": "The hook raises",
    "hook-timeout": "The hook does not return within DISPATCH_HOOK_SECONDS",
    "hook-died": "The hook's process dies",
}


def hook_broken(case: Case) -> Finding | None:
    if not case.broker.settings.hook or not case.process.counters.get("dispatch_effect_held_seconds"):
        return None
    _, said = case.process.ask("/readyz")
    return provision(said.strip(), "The hook could be imported when the service started, and can't any more; the play "
                     "puts the release and its settings right.")  # fmt: skip


def failing(case: Case, hook: str, seen: str) -> Finding:
    """Tell of orders that wait because the hook fails over them, with how it does."""
    counts = {reason: case.process.counters.get(_counter(reason), 0.0) for reason in _WHY}
    told = ", ".join(f"{count:.0f} {reason}" for reason, count in counts.items() if count)
    why = _WHY[max(counts, key=counts.__getitem__)] if told else "The hook fails"
    return provision(f"{seen}; DISPATCH_HOOK is {hook}" + (f"; this process counts {told}" if told else ""),
                     f"{why}, so orders are tried again and again. The journal shows what it prints. Mend it in the "
                     "artifact, or take it out of the inventory; the play then brings that here, and the orders come "
                     "back.")  # fmt: skip


def _counter(reason: str) -> str:
    return f'dispatch_effects_total{{effect="hook",outcome="{reason}"}}'


CHECKS = (Check("hook-broken", "flow", ERROR, "the hook can be called", hook_broken, needs.ACTIVE),)
