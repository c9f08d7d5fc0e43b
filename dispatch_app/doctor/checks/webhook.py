"""The webhook: does the shop's endpoint take the orders?"""

from __future__ import annotations

from ..case import Case
from ..table import WARNING, Check, Finding
from . import needs
from .fixes import provision

AWAY_SECONDS = 60.0


def webhook_away(case: Case) -> Finding | None:
    webhook = case.broker.settings.webhook
    seconds = case.process.counters.get("dispatch_effect_held_seconds", 0.0)
    if not webhook or seconds < AWAY_SECONDS:
        return None
    _, said = case.process.ask("/readyz")
    return provision(f"orders have been held for {seconds / 60:.0f} minutes: {said.strip()}", "The endpoint of "
                     "DISPATCH_WEBHOOK_URL does not answer. Once it does, the orders go on by themselves. If the URL "
                     "is wrong, correct it in dispatch_environment; the play then brings it here.")  # fmt: skip


CHECKS = (Check("webhook-away", "flow", WARNING, "the webhook's endpoint answers", webhook_away, needs.ACTIVE),)
