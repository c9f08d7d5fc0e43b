"""Puts aside what can't be recorded: into a retry queue, or among the dead letters, with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable

from . import deadletters, topology
from .amqp import envelope
from .amqp.connection import Delivery
from .amqp.properties import correlation_id
from .effects.port import EffectError
from .health import State
from .logs import fields, log
from .outbox import Outbox, Parcel
from .settings import Settings
from .suspects import REASON, Suspects


class Aside:
    """Sends deliveries to other queues; each is the consumer's no more once it is durable there."""

    def __init__(
        self, outbox: Outbox, settings: Settings, state: State, suspects: Suspects, done: Callable[[Delivery], None]
    ) -> None:
        """Send by way of `outbox`; `done` is called with each delivery that is durable in its new place."""
        self._outbox, self._settings, self._state, self._suspects = outbox, settings, state, suspects
        self._done = done

    def bury(self, delivery: Delivery, reason: str, error: BaseException, order_id: str | None = None) -> None:
        """Put a delivery among the dead letters."""
        self._post(delivery, topology.dead_queue(self._settings), reason, error, order_id)

    def defer(self, delivery: Delivery, order_id: str, error: EffectError) -> None:
        """Put an order into the next retry queue, or among the dead letters after the last one."""
        failures = deadletters.attempts(envelope.unwrap(*delivery[3:])[2])
        if failures < len(self._settings.retry_delays):
            self._post(delivery, topology.retry_queue(self._settings, failures), error.reason, error, order_id)
        else:
            self.bury(delivery, error.reason, error, order_id)

    def _post(self, delivery: Delivery, queue: str, reason: str, error: BaseException, order_id: str | None) -> None:
        _, _, origin, raw, body = delivery
        raw, body, before = envelope.unwrap(raw, body)
        notes = deadletters.annotate(before, origin, self._settings.queue, reason, error, order_id)
        dead = queue == topology.dead_queue(self._settings)

        def done() -> None:
            (self._state.dead if dead else self._state.retried)[reason] += 1
            level, what = (logging.ERROR, "dead-lettered") if dead else (logging.WARNING, "to be tried again")
            log.log(level, "%s: %s", what, notes["exception-message"], extra=fields(
                reason=reason, queue=queue, order_id=order_id, correlation_id=correlation_id(raw),
                letter_id=notes["id"], attempt=notes["attempt"]))  # fmt: skip
            if reason == REASON:
                self._suspects.forget(delivery[4])
            self._done(delivery)

        self._outbox.send(Parcel(queue, raw, body, notes, done))
