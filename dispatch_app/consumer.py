"""What happens to the deliveries of one connection: check, record, acknowledge.

Every connection gets a new consumer. Delivery tags are valid only on the channel they came from
(AMQP 0-9-1, 2.2.1), so what an old consumer still held is dropped: the broker delivers it again,
and the ledger knows what has been recorded.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from typing import Any

from pika import exceptions

from . import deadletter, topology
from .connection import OverflowingError
from .health import State
from .ledger import Ledger, Row
from .logs import fields, log
from .orders import Order, parse
from .outbox import Connect, Outbox, Parcel
from .properties import correlation_id
from .settings import Settings
from .tracing import Tracer
from .wire import Connection, Delivery

BATCH = 1000  # orders per commit; the id index makes smaller commits write more, larger hardly less
LINGER = 0.004  # seconds an order waits for others to share its commit
HOOK_SLICE = 0.1  # seconds of hook calls between two looks at the network
HOOK_TRIES = 3  # at once, before an order goes to a retry queue
HELD_OCTETS = 64 << 20  # of bodies at hand; a count alone would let large ones fill the memory
AHEAD = 200_000  # tags to remember behind one that can't be acknowledged; a new connection begins anew
LOG_ORDERS = 250  # orders per log line, which keeps it below journald's LineMax= of 48 KiB

Hook = Callable[[Order], object]


class Prefix:
    """The highest delivery tag up to which all deliveries are done."""

    def __init__(self) -> None:
        self.tag = 0
        self.ahead: set[int] = set()  # done, behind one that isn't

    def complete(self, tags: Iterable[int]) -> bool:
        """Mark deliveries as done; say whether the prefix grew."""
        ahead, tag = self.ahead, self.tag
        ahead.update(tags)
        while tag + 1 in ahead:
            tag += 1
            ahead.remove(tag)
        grew, self.tag = tag > self.tag, tag
        return grew


class Consumer:
    """Consumes the order queue on one open connection until that is lost or drained."""

    def __init__(
        self, conn: Connection, host: str, settings: Settings, ledger: Ledger, state: State,
        hook: Hook | None, tracer: Tracer | None, lost: Callable[[Exception], None], connect: Connect,
    ) -> None:  # fmt: skip
        """Start on `conn`; `lost` is called when this consumer can't go on, `connect` opens the outbox's connection."""
        self._conn, self._settings, self._ledger, self._state = conn, settings, ledger, state
        self._hook, self._tracer, self._lost = hook, tracer, lost
        self._channel: Any = None
        self._consuming = self._closed = False
        self._prefix = Prefix()
        self._waiting: deque[Delivery] = deque()
        self._ready: list[tuple[Row, Delivery]] = []  # checked, not recorded
        self._prepared: set[str] = set()  # ids of those the hook has taken
        self._last = 0  # the highest tag delivered
        self._octets = 0  # of the bodies at hand, neither recorded nor put aside
        self._arrivals: deque[tuple[int, float]] = deque()  # from which tag on, since when (time.monotonic())
        self._scheduled = False
        self._held = 0.0  # seconds between tries while the ledger can't be written, else 0
        self._retry_at = 0.0  # time.monotonic() of the next try
        self._drained: Callable[[], None] | None = None
        self._outbox = Outbox(connect, settings, host, conn.ioloop, self._on_trouble)
        self._singly = False  # how deliveries are acknowledged
        conn.channel(on_open_callback=self._on_open)

    def close(self) -> None:
        """Forget everything: the connection is gone, or about to go."""
        self._closed = True
        self._waiting.clear()
        self._ready.clear()
        self._outbox.abort()
        for part in ("ledger", "outbox"):
            self._state.set(part, None)
        self._state.in_flight = 0

    def drain(self, done: Callable[[], None]) -> None:
        """Take no more deliveries, finish those at hand, then call `done`."""

        def finish() -> None:
            self._outbox.close(done)

        def cancelled(_: object) -> None:
            # Not before: until the broker has answered, deliveries are still on their way here.
            if self._held:
                finish()
            else:
                self._drained = finish
                self._work()

        if self._consuming and self._channel.is_open and not self._held:
            self._channel.basic_cancel("dispatch", callback=cancelled)
        else:
            finish()

    # -- deliveries -------------------------------------------------------------------

    def _on_open(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _, error: self._closed or self._lost(error))
        channel.add_on_cancel_callback(lambda _: self._lost(exceptions.ConsumerCancelled()))
        topology.declare(channel, self._settings)
        channel.basic_qos(prefetch_count=self._settings.prefetch)
        self._conn.sink_channel, self._conn.sink = channel.channel_number, self._on_delivery
        # Deliveries go to the sink; pika has none left to call anybody for.
        channel.basic_consume(
            self._settings.queue, lambda *_: None, consumer_tag="dispatch", callback=lambda _: self._on_consuming()
        )

    def _on_consuming(self) -> None:
        self._consuming = True
        self._state.set("broker", None)
        log.info("waiting for messages", extra=fields(queue=self._settings.queue))

    def _on_delivery(self, delivery: Delivery) -> None:
        if self._closed:
            return
        waiting = self._waiting
        self._last = delivery[0]
        if not waiting:
            self._arrivals.append((self._last, time.monotonic()))
        waiting.append(delivery)
        self._octets += len(delivery[4])
        if self._octets > HELD_OCTETS and (held := self._last - self._prefix.tag) > 1:
            self._lost(OverflowingError(held // 2))
            return
        if not self._scheduled:
            self._schedule(LINGER)
        elif len(waiting) >= BATCH and not self._hook:
            self._work()

    def _schedule(self, delay: float) -> None:
        self._scheduled = True
        self._conn.ioloop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._scheduled = False
        self._work()

    # -- the work ---------------------------------------------------------------------

    def _work(self) -> None:
        """Check what waits, record it in one commit, acknowledge."""
        if self._closed:
            return
        if (wait := self._retry_at - time.monotonic()) > 0:
            if not self._scheduled:
                self._schedule(wait)
            return
        try:
            self._check()
            if self._ready:
                self._commit()
        except sqlite3.Error as error:
            self._hold(error)
        self._count()
        if (self._waiting or self._ready) and not self._scheduled:
            self._schedule(0)
        if self._drained and (self._held or not (self._waiting or self._ready or len(self._outbox))):
            done, self._drained = self._drained, None
            done()

    def _check(self) -> None:
        """Turn what waits into rows. Raises sqlite3.Error; the delivery then still waits."""
        waiting, ready, state = self._waiting, self._ready, self._state
        prepare = self._prepare if self._hook or self._tracer else None
        until = time.monotonic() + HOOK_SLICE
        while waiting and len(ready) < BATCH:
            _, redelivered, _, raw, body = delivery = waiting[0]
            if deadletter.MARK in raw:
                raw, body, _ = deadletter.unwrap(raw, body)
            try:
                order = parse(body)
            except Exception as error:  # whatever reading a body raises, that body caused
                self._bury(delivery, getattr(error, "reason", "unreadable"), error)
            else:
                if prepare is None or prepare(order, raw, delivery):
                    ready.append(((*order[:4], correlation_id(raw), redelivered), delivery))
            waiting.popleft()
            state.received += 1
            state.redelivered += redelivered
            if prepare and time.monotonic() > until:
                break

    def _prepare(self, order: Order, raw: bytes, delivery: Delivery) -> bool:
        """Give the order to the hook, in a span; say whether it can be recorded. Raises sqlite3.Error."""
        if order.id in self._prepared or self._ledger.known(order.id):
            return True  # and the ledger will call it a duplicate
        for attempt in range(1, HOOK_TRIES + 1):
            try:
                with self._tracer(order.id, raw) if self._tracer else nullcontext():
                    if self._hook:
                        self._hook(order)
            except BaseException as error:  # the hook is someone else's: anything may come out, CancelledError, too
                if attempt == HOOK_TRIES:
                    self._defer(delivery, order.id, error)
            else:
                self._prepared.add(order.id)
                return True
        return False

    def _commit(self) -> None:
        """Make the ready orders durable, then acknowledge them. Raises sqlite3.Error."""
        ready, state = self._ready, self._state
        rows = [row for row, _ in ready]
        duplicates = self._ledger.record(rows)
        self._ready = []
        self._prepared.clear()
        if self._held:
            self._held = 0.0
            state.set("ledger", None)
            log.info("the ledger can be written again")
        self._octets -= sum(len(delivery[4]) for _, delivery in ready)
        self._acknowledge([delivery[0] for _, delivery in ready])
        state.dispatched += len(rows) - len(duplicates)
        state.duplicates += len(duplicates)
        state.batch.observe(len(rows))
        _report("dispatched before, acknowledged again", [rows[index] for index in duplicates])
        for index in reversed(duplicates):
            del rows[index]
        _report("dispatched", rows)

    def _hold(self, error: sqlite3.Error) -> None:
        """Keep everything, unacknowledged, while this host can't write: no order is at fault.

        The prefetch limit stops further deliveries meanwhile.
        """
        self._held = min(30.0, self._held * 2 or 0.1)
        reason = f"the ledger can't be written ({error}), orders are held"
        self._state.set("ledger", reason)
        log.error("%s; see to its disk or its lock, trying again in %.1f s", reason, self._held)
        self._retry_at = time.monotonic() + self._held

    def _acknowledge(self, tags: Sequence[int]) -> None:
        if self._closed or not self._channel.is_open:
            return
        first = self._prefix.tag + 1
        grew = self._prefix.complete(tags)
        if self._singly:
            for tag in tags:
                self._channel.basic_ack(tag)
            self._singly = "outbox" in self._state.reasons or bool(self._prefix.ahead)
            if len(self._prefix.ahead) > AHEAD:
                self._lost(OverflowingError(self._settings.prefetch))
                return
        elif grew:
            self._channel.basic_ack(self._prefix.tag, multiple=True)
        if grew:
            arrivals = self._arrivals
            while len(arrivals) > 1 and arrivals[1][0] <= first:
                arrivals.popleft()
            self._state.ack.observe(time.monotonic() - arrivals[0][1])

    def _count(self) -> None:
        acknowledged = self._prefix.tag + (len(self._prefix.ahead) if self._singly else 0)
        self._state.in_flight = 0 if self._closed else self._last - acknowledged

    def _on_trouble(self, reason: str | None) -> None:
        """Don't let what can't be put aside hold back all that comes after it, until the prefetch limit ends it."""
        self._state.set("outbox", reason)
        if reason and not self._singly and not self._closed and self._channel.is_open:
            self._singly = True
            for tag in self._prefix.ahead:
                self._channel.basic_ack(tag)

    # -- what can't be recorded -------------------------------------------------------

    def _bury(self, delivery: Delivery, reason: str, error: BaseException, order_id: str | None = None) -> None:
        self._post(delivery, topology.dead_queue(self._settings), reason, error, order_id)

    def _defer(self, delivery: Delivery, order_id: str, error: BaseException) -> None:
        """Put an order in the next retry queue, or bury it after the last."""
        attempt = _attempt(deadletter.unwrap(*delivery[3:])[2])
        if attempt < len(topology.RETRY_DELAYS):
            self._post(delivery, topology.retry_queue(self._settings, attempt), "hook-failed", error, order_id)
        else:
            self._bury(delivery, "hook-failed", error, order_id)

    def _post(self, delivery: Delivery, queue: str, reason: str, error: BaseException, order_id: str | None) -> None:
        tag, _, origin, raw, body = delivery
        raw, body, before = deadletter.unwrap(raw, body)
        key_at = 1 + origin[0]
        notes = {
            "id": uuid.uuid4().hex,
            "reason": reason,
            "exception-type": type(error).__name__,
            "exception-message": deadletter.text(error),
            "attempt": _attempt(before) + 1,
            "first-seen": before.get("first-seen", _now()),
            "exchange": before.get("exchange", origin[1:key_at].decode("utf-8", "replace")),
            "routing-key": before.get("routing-key", origin[key_at + 1 :].decode("utf-8", "replace")),
            "queue": self._settings.queue,
            **({"order-id": order_id} if order_id else {}),
        }
        # Some come from the message, where anyone may have put anything: as text they fit.
        notes = {name: note if name == "attempt" else deadletter.text(note) for name, note in notes.items()}
        dead = queue == topology.dead_queue(self._settings)

        def done() -> None:
            (self._state.dead if dead else self._state.retried)[reason] += 1
            level, what = (logging.ERROR, "dead-lettered") if dead else (logging.WARNING, "to be tried again")
            log.log(level, "%s: %s", what, notes["exception-message"], extra=fields(
                reason=reason, queue=queue, order_id=order_id, correlation_id=correlation_id(raw),
                letter_id=notes["id"], attempt=notes["attempt"]))  # fmt: skip
            self._octets -= len(delivery[4])
            self._acknowledge([tag])
            self._count()
            if self._drained:
                self._work()

        self._outbox.send(Parcel(queue, raw, body, notes, done))


def _attempt(notes: dict[str, Any]) -> int:
    attempt = notes.get("attempt")
    return attempt if isinstance(attempt, int) and 0 <= attempt < 1000 else 0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _report(what: str, rows: list[Row]) -> None:
    """Log orders, many per line: a line each would run into journald's rate limit."""
    for start in range(0, len(rows), LOG_ORDERS):
        part = rows[start : start + LOG_ORDERS]
        orders = [{"id": row[0], "correlation_id": row[4]} if row[4] else {"id": row[0]} for row in part]
        redelivered = sum(row[5] for row in part) or None
        log.info(what, extra=fields(count=len(part), redelivered=redelivered, orders=orders))
