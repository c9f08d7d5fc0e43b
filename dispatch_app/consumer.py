"""What happens to each delivery of one connection: check, record, acknowledge.

A new consumer is made for every connection. Delivery tags are valid only on the channel
they came from (AMQP 0-9-1, 1.8.3.13), so what an old consumer still held is dropped; the
broker delivers it again and the ledger recognises what was recorded.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import Any

from pika import exceptions

from . import deadletter, topology, tracing
from .ledger import DATA_ERRORS, Ledger, Row
from .logs import fields, log
from .orders import Order, parse
from .outbox import Outbox, Parcel
from .properties import RawProperties, correlation_id
from .settings import Settings
from .state import State

BATCH = 500  # orders a commit; beyond that the sync's share of the cost hardly falls
LINGER = 0.004  # seconds an order waits for others to share its commit
HOOK_SLICE = 0.1  # seconds of hook calls between two looks at the network
HOOK_TRIES = 3  # at once, before an order goes to a retry queue
LOG_ORDERS = 250  # orders a log line, which keeps it below journald's LineMax= of 48 KiB

Hook = Callable[[Order], object]
Delivery = tuple[Any, bytes, bytes]  # pika's Basic.Deliver, property list, body


class Prefix:
    """The highest delivery tag up to which every delivery is done with."""

    def __init__(self) -> None:
        self.tag = 0
        self._ahead: set[int] = set()

    def complete(self, tags: Iterable[int]) -> bool:
        """Mark deliveries as done; say whether the prefix grew."""
        ahead, tag = self._ahead, self.tag
        ahead.update(tags)
        while tag + 1 in ahead:
            tag += 1
            ahead.remove(tag)
        grew, self.tag = tag > self.tag, tag
        return grew


class Consumer:
    """Consumes the order queue on one open connection until that is lost or drained."""

    def __init__(
        self,
        conn: Any,
        host: str,
        settings: Settings,
        ledger: Ledger,
        state: State,
        hook: Hook | None,
        tracer: tracing.Tracer | None,
        lost: Callable[[Exception], None],
    ) -> None:
        """Start on pika's `conn`; `lost` is called when this consumer can't go on."""
        self._connection = conn
        self._settings = settings
        self._ledger = ledger
        self._state = state
        self._hook = hook
        self._tracer = tracer
        self._lost = lost
        self._channel: Any = None
        self._tag = ""
        self._prefix = Prefix()
        self._waiting: deque[Delivery] = deque()
        self._ready: list[tuple[Row, Delivery]] = []
        self._oldest = 0.0  # time.monotonic() of the oldest delivery waiting
        self._scheduled = False
        self._held = False  # the ledger failed; a timer will try again
        self._fault_delay = 0.0
        self._prepared: set[str] = set()  # orders the hook took that are not recorded yet
        self._closed = False
        self._drained: Callable[[], None] | None = None
        self._outbox = Outbox(conn, settings, host, lambda text: state.set("outbox", text))
        conn.channel(on_open_callback=self._on_open)

    def close(self) -> None:
        """Forget everything: the connection is gone."""
        self._closed = True
        for part in ("ledger", "outbox", "blocked"):
            self._state.set(part, None)
        self._state.in_flight = 0

    def drain(self, done: Callable[[], None]) -> None:
        """Take no more deliveries, finish those at hand, then call `done`."""
        self._drained = done
        if self._tag and self._channel.is_open and not self._held:
            self._channel.basic_cancel(self._tag, callback=lambda _: self._work())
        else:
            done()

    # -- the channel ------------------------------------------------------------------

    def _on_open(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _, error: self._closed or self._lost(error))
        channel.add_on_cancel_callback(
            lambda _: self._lost(exceptions.ConsumerCancelled("the broker cancelled the consumer"))
        )
        topology.declare(channel, self._settings)
        channel.basic_qos(prefetch_count=self._settings.prefetch)
        self._tag = channel.basic_consume(
            self._settings.queue, self._on_message, callback=lambda _: self._on_consuming()
        )

    def _on_consuming(self) -> None:
        self._state.set("broker", None)
        log.info("waiting for messages", extra=fields(queue=self._settings.queue))

    def _on_message(self, _channel: Any, method: Any, props: RawProperties, body: bytes) -> None:
        waiting = self._waiting
        if not waiting:
            self._oldest = time.monotonic()
        waiting.append((method, props.raw, body))
        if not self._scheduled:
            self._schedule(LINGER)
        elif len(waiting) >= BATCH and not self._hook:
            self._work()

    def _schedule(self, delay: float) -> None:
        self._scheduled = True
        self._connection.ioloop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._scheduled = False
        self._work()

    # -- the work ---------------------------------------------------------------------

    def _work(self) -> None:
        """Check what waits, record it in one commit, acknowledge."""
        if self._closed or self._held:
            return
        try:
            self._check()
            if self._ready:
                self._commit()
        except sqlite3.Error as error:
            self._hold(error)
        self._state.in_flight = len(self._waiting) + len(self._ready) + len(self._outbox)
        if self._held:
            return
        if self._waiting:
            self._schedule(0)
        elif self._drained and not self._outbox:
            drained, self._drained = self._drained, None
            drained()

    def _check(self) -> None:
        waiting, ready, state = self._waiting, self._ready, self._state
        prepare = self._prepare if self._hook or self._tracer else None
        until = time.monotonic() + HOOK_SLICE
        while waiting and len(ready) < BATCH:
            method, raw, body = delivery = waiting[0]
            if deadletter.MARK in raw:
                raw, body, _ = deadletter.unwrap(raw, body)
            try:
                order = parse(body)
            except Exception as error:  # whatever reading a body may raise, the body caused it
                self._bury(delivery, getattr(error, "reason", "unreadable"), error)
            else:
                if prepare is None or prepare(order, raw, delivery):
                    row = (*order[:4], correlation_id(raw), int(method.redelivered))
                    ready.append((row, delivery))
            waiting.popleft()  # only now: a fault of the ledger above leaves it in its place
            state.received += 1
            if prepare and time.monotonic() > until:
                break

    def _prepare(self, order: Order, raw: bytes, delivery: Delivery) -> bool:
        """Trace the order and give it to the hook; say whether it can be recorded.

        Raises sqlite3.Error.
        """
        if order.id in self._prepared or self._ledger.known(order.id):
            return True  # the ledger will call it a duplicate
        problem: Exception = RuntimeError("the hook was never called")
        for _ in range(HOOK_TRIES):
            try:
                with self._tracer(order.id, raw) if self._tracer else nullcontext():
                    if self._hook:
                        self._hook(order)
            except Exception as error:  # the hook is not ours: anything may come out of it
                problem = error
            else:
                self._prepared.add(order.id)
                return True
        self._defer(delivery, order.id, problem)
        return False

    def _commit(self) -> None:
        """Make the ready orders durable, then acknowledge them. Raises sqlite3.Error."""
        ready = self._ready
        rows = [row for row, _ in ready]
        try:
            duplicates = self._ledger.record(rows)
        except DATA_ERRORS as error:
            self._isolate(error)
            return
        self._ready = []
        self._prepared.clear()
        if self._fault_delay:
            self._fault_delay = 0.0
            self._state.set("ledger", None)
            log.info("the ledger works again")
        self._acknowledge([method.delivery_tag for _, (method, _, _) in ready])
        self._state.committed(len(rows), len(duplicates), time.monotonic() - self._oldest)
        if duplicates:
            _report("already dispatched, acknowledged again", [rows[index] for index in duplicates])
            for index in reversed(duplicates):
                del rows[index]
        _report("dispatched", rows)

    def _isolate(self, error: Exception) -> None:
        """Find the order whose data the ledger refuses, and bury that one only."""
        ready, self._ready = self._ready, []
        if len(ready) == 1:
            self._bury(ready[0][1], "refused-by-ledger", error, ready[0][0][0])
            return
        for index, item in enumerate(ready):
            self._ready = [item]
            try:
                self._commit()
            except sqlite3.Error:
                self._ready = ready[index:]
                raise

    def _hold(self, error: sqlite3.Error) -> None:
        """Keep everything unacknowledged while this host can't write.

        The prefetch limit stops further deliveries, so nothing is lost or moved around.
        """
        self._fault_delay = min(30.0, self._fault_delay * 2 or 0.1)
        text = f"the ledger can't be written ({error}); orders are held"
        self._state.set("ledger", text)
        log.error("%s; free its disk or its lock, trying again in %.1f s", text, self._fault_delay)
        self._held = True
        self._connection.ioloop.call_later(self._fault_delay, self._try_again)
        if self._drained:
            self._drained()

    def _try_again(self) -> None:
        self._held = False
        self._work()

    def _acknowledge(self, tags: Iterable[int]) -> None:
        if not self._closed and self._channel.is_open and self._prefix.complete(tags):
            self._channel.basic_ack(self._prefix.tag, multiple=True)

    # -- what can't be recorded -------------------------------------------------------

    def _bury(
        self, delivery: Delivery, reason: str, error: Exception, order_id: str | None = None
    ) -> None:
        self._post(delivery, topology.dead_queue(self._settings), reason, error, order_id)

    def _defer(self, delivery: Delivery, order_id: str, error: Exception) -> None:
        """Send an order to the next retry queue, or bury it after the last."""
        attempt = _attempt(deadletter.unwrap(*delivery[1:])[2])
        if attempt >= len(topology.RETRY_DELAYS):
            self._bury(delivery, "hook-failed", error, order_id)
        else:
            queue = topology.retry_queue(self._settings, attempt + 1)
            self._post(delivery, queue, "hook-failed", error, order_id)

    def _post(
        self, delivery: Delivery, queue: str, reason: str, error: Exception, order_id: str | None
    ) -> None:
        method, raw, body = delivery
        raw, body, before = deadletter.unwrap(raw, body)
        dead = queue == topology.dead_queue(self._settings)
        notes = {
            "id": uuid.uuid4().hex,
            "reason": reason,
            "exception-type": type(error).__name__,
            "exception-message": deadletter.note(error),
            "attempt": _attempt(before) + 1,
            "first-seen": deadletter.note(before.get("first-seen") or _now(), 40),
            "exchange": deadletter.note(before.get("exchange", method.exchange)),
            "routing-key": deadletter.note(before.get("routing-key", method.routing_key)),
            "queue": self._settings.queue,
        }
        if order_id:
            notes["order-id"] = order_id

        def done() -> None:
            self._state.posted(reason, dead)
            log.log(
                logging.ERROR if dead else logging.WARNING,
                "dead-lettered: %s" if dead else "will be tried again: %s",
                notes["exception-message"],
                extra=fields(
                    reason=reason, order_id=order_id, letter_id=notes["id"], queue=queue,
                    attempt=notes["attempt"], correlation_id=correlation_id(raw),
                ),
            )  # fmt: skip
            self._acknowledge((method.delivery_tag,))
            if self._drained:
                self._work()

        self._outbox.send(Parcel(queue, raw, body, notes, done))


def _attempt(notes: dict[str, Any]) -> int:
    attempt = notes.get("attempt")
    return int(attempt) if isinstance(attempt, int) and 0 <= attempt < 1000 else 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _report(what: str, rows: list[Row]) -> None:
    """Log orders, many a line: one line each would exceed journald's rate limit."""
    for start in range(0, len(rows), LOG_ORDERS):
        part = rows[start : start + LOG_ORDERS]
        orders = [
            {"id": row[0], "correlation_id": row[4]} if row[4] else {"id": row[0]} for row in part
        ]
        log.info("%s", what, extra=fields(count=len(part), orders=orders))
