"""What a dispatched order does beyond the ledger: small adapters, none of them used by default."""

from __future__ import annotations

from ..settings import Settings
from .port import Effect
from .rate import Nothing


def configured(settings: Settings) -> Effect | None:
    """Return the effect that each order has, ready for use, if there is one. Raises SettingsError."""
    if settings.hook:
        from .hook import Hook  # who has no hook needs none of what it imports

        return Hook(settings.hook, settings.hook_seconds)
    if settings.webhook:
        from .webhook import Webhook

        return Webhook(settings.webhook)
    return Nothing() if settings.rate else None
