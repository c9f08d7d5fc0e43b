"""All checks, in the order in which causes are told: what comes first can cause what comes later."""

from __future__ import annotations

from . import database, events, flow, hook, ledger, login, memory, network, queues, release, service, settings, webhook

CHECKS = (
    *service.EXISTS,
    *release.CHECKS,
    *settings.CHECKS,
    *service.UNIT_FILE,
    *ledger.CHECKS,
    *database.CHECKS,
    *network.CHECKS,
    *login.CHECKS,
    *ledger.CLOCK,
    *queues.DECLARED,
    *memory.CHECKS,
    *service.RUNS,
    *queues.PRESENT,
    *hook.CHECKS,
    *flow.CHECKS,
    *events.CHECKS,
    *webhook.CHECKS,
)
