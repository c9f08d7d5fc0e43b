"""What happens to the deliveries of one connection: check, record, acknowledge.

Every connection gets a new consumer. Delivery tags are valid only on the channel they came from
(AMQP 0-9-1, 2.2.1), so whatever the old consumer still held is dropped: the broker delivers it
again, and the ledger knows which of it has been recorded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pika import exceptions

from . import topology
from .acknowledger import Acknowledger
from .amqp import envelope
from .amqp.connection import Connection, Delivery
from .amqp.properties import correlation_id
from .aside import Aside
from .effects.port import EffectError
from .effects.workers import Workers
from .failures import OverflowingError
from .health import UNREADABLE, State
from .ledgers.desk import Desk
from .ledgers.port import AwayError, Row
from .logs import fields, log
from .orderlog import log_orders
from .orders import parse
from .outbox import Connect, Outbox
from .settings import Settings
from .suspects import Suspects

if TYPE_CHECKING:
    from .otlp import Commit, Deliveries

BATCH = 1000  # orders per commit; smaller commits rewrite more of the id index, larger ones hardly less
LINGER = 0.004  # seconds an order waits for others to share its commit
HELD_OCTETS = 64 << 20  # of bodies at hand; the prefetch counts messages, and large ones could fill the memory
# RabbitMQ 4 answers for a classic queue on a node that is down only after most of a minute.
DECLARE_SECONDS = 3.0  # until a queue of Dispatch's own is left out that the broker has not answered for
AHEAD = 200_000  # tags remembered behind a delivery that isn't done; beyond that a new connection starts afresh

Entry = tuple[Row, Delivery]  # an order that has been checked
Checked = tuple[Entry, bytes]  # with its body, which its effect needs


class Consumer:
    """Consumes the order queue on one open connection, until the connection is lost or the consumer drained."""

    def __init__(
        self, conn: Connection, host: str, settings: Settings, desk: Desk, state: State,
        workers: Workers | None, spans: Deliveries | None, lost: Callable[[Exception], None], connect: Connect,
        suspects: Suspects, recorded: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Start on `conn`. `lost` is called when this consumer can't go on; `connect` opens the outbox's connection.

        `recorded` is called after each commit.
        """
        self._conn, self._settings, self._desk, self._state = conn, settings, desk, state
        self._workers, self._spans, self._lost = workers, spans, lost
        self._suspects, self._recorded = suspects, recorded
        self._channel: Any = None
        self._consuming = self._closed = False
        self._acknowledger: Acknowledger  # from the moment the channel is open
        self._waiting: deque[Delivery] = deque()
        self._checked: list[Checked] = []  # it has still to be asked whether they are known
        self._asking = False
        self._performing: dict[str, list[Entry]] = {}  # by the order's id, what waits for its effect
        self._ready: list[Entry] = []  # checked, but not recorded yet
        self._recording = False  # one batch; the next one is collected meanwhile
        self._performed: set[str] = set()  # ids of orders that are not recorded yet and whose effect has come about
        self._last = 0  # the highest tag delivered
        self._octets = 0  # of the bodies at hand, which are neither recorded nor put aside
        self._scheduled = self._working = False
        self._held = 0.0  # seconds between two tries while the ledger can't be written, else 0
        self._retry_at = 0.0  # time.monotonic() of the next try
        self._drained: Callable[[], None] | None = None
        self._declaration = topology.Declaration(settings)
        self._outbox = Outbox(connect, settings, host, conn.ioloop, self._on_trouble)
        self._aside = Aside(self._outbox, settings, state, suspects, self._on_aside)
        conn.channel(on_open_callback=self._on_open)

    def close(self) -> None:
        """Drop everything at hand: the connection is gone, or about to go."""
        self._closed = True
        self._drop_waiting()
        self._ready.clear()
        self._outbox.abort()
        for part in ("ledger", "outbox"):
            self._state.set(part, None)
        self._state.in_flight, self._state.oldest = 0, None

    def drain(self, done: Callable[[], None]) -> None:
        """Stop taking deliveries, finish those at hand, then call `done`."""

        def finish() -> None:
            self._outbox.close(done)

        def cancelled(_: object) -> None:
            # Only now is nothing more on its way here: the broker sends deliveries until it answers.
            if self._workers:
                self._drop_waiting()  # their turn may come late: the broker delivers them again
            if self._held:
                finish()
            else:
                self._drained = finish
                self._work()

        if self._consuming and self._channel.is_open and not self._held:
            self._channel.basic_cancel("dispatch", callback=cancelled)
        else:
            finish()

    def _drop_waiting(self) -> None:
        """Drop the orders that nobody works on."""
        self._waiting.clear()
        self._checked.clear()
        for order_id in self._workers.clear() if self._workers else ():
            self._performing.pop(order_id, None)

    # -- deliveries -------------------------------------------------------------------

    def _on_open(self, channel: Any) -> None:
        self._channel, self._acknowledger = channel, Acknowledger(channel, self._state)
        channel.add_on_close_callback(self._on_close)
        channel.add_on_cancel_callback(lambda _: self._lost(exceptions.ConsumerCancelled()))
        self._conn.ioloop.call_later(DECLARE_SECONDS, partial(self._see_declared, channel))
        self._declaration.send(channel)
        channel.basic_qos(prefetch_count=self._settings.prefetch)
        self._conn.sink_channel, self._conn.sink = channel.channel_number, self._on_delivery
        # Deliveries go to the sink, so pika never calls its own callback.
        channel.basic_consume(
            self._settings.queue, lambda *_: None, consumer_tag="dispatch",
            callback=lambda _: self._on_consuming(channel),
        )  # fmt: skip

    def _see_declared(self, channel: Any) -> None:
        """Go on without a queue that is not answered for, on another channel, which need not wait for that answer."""
        if channel is not self._channel or self._consuming or self._closed:
            return
        if self._declaration.leave_out(f"there was no answer within {DECLARE_SECONDS:.0f} s"):
            self._channel = None
            self._conn.channel(on_open_callback=self._on_open)

    def _on_close(self, channel: Any, error: Exception) -> None:
        if self._closed or channel is not self._channel:
            return
        if self._declaration.can_go_on(error):
            self._conn.channel(on_open_callback=self._on_open)
        else:
            self._lost(error)

    def _on_consuming(self, channel: Any) -> None:
        if channel is not self._channel:  # its answers came late; what was delivered on it comes again
            channel.close()
            return
        self._consuming = True
        self._state.set("broker", None)
        for name, why in self._declaration.away.items():
            log.warning("%s can't be used for now (%s); what belongs there is held until it can", name, why)
        log.info("waiting for messages", extra=fields(queue=self._settings.queue))

    def _on_delivery(self, delivery: Delivery) -> None:
        if self._closed:
            return
        waiting = self._waiting
        self._last = delivery[0]
        if not waiting:
            self._acknowledger.arrived(self._last)
        waiting.append(delivery)
        self._octets += len(delivery[4])
        if self._octets > HELD_OCTETS and (held := self._acknowledger.unacknowledged(self._last)) > 1:
            self._lost(OverflowingError(min(self._settings.prefetch, held) // 2 or 1))  # 0 would mean no limit
            return
        if not self._scheduled:
            self._schedule(LINGER)
        elif len(waiting) >= BATCH and not (self._recording or self._asking):
            self._work()

    def _schedule(self, delay: float) -> None:
        self._scheduled = True
        self._conn.ioloop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._scheduled = False
        self._work()

    # -- the work ---------------------------------------------------------------------

    def _work(self) -> None:
        """Check the waiting deliveries, record them in one commit, and acknowledge them."""
        if self._closed:
            return
        if (wait := self._retry_at - time.monotonic()) > 0:
            if not self._scheduled:
                self._schedule(wait)
            return
        self._working = True
        try:
            self._check()
        finally:
            self._suspects.leave()
        retry_at = self._retry_at
        if self._checked and not self._asking:
            self._look_up()
        if self._ready and not self._recording and self._retry_at == retry_at:
            self._commit()
        self._working = False
        self._go_on()

    def _go_on(self) -> None:
        """Count what is at hand, and see to it that it is worked on, or that a drain ends."""
        self._count()
        asked = self._asking or self._recording  # whose answer has the work go on
        if (self._waiting or self._ready or self._checked) and not (self._scheduled or asked):
            self._schedule(0)
        at_hand = self._waiting or self._checked or self._performing or self._ready or asked or len(self._outbox)
        if self._drained and (self._held or not at_hand):
            done, self._drained = self._drained, None
            done()

    def _check(self) -> None:
        """Turn waiting deliveries into rows."""
        waiting, ready, state, longest = self._waiting, self._ready, self._state, self._settings.max_body
        checked, spans = self._checked if self._workers else None, self._spans
        for _ in range(min(len(waiting), BATCH - len(ready) - len(self._checked))):
            _, redelivered, _, raw, body = delivery = waiting[0]
            if envelope.MARK in raw:
                raw, body, _ = envelope.unwrap(raw, body)
            try:
                if redelivered:
                    self._suspects.take(delivery[4])
                order = parse(body, longest)
            except Exception as error:  # whatever parsing raises, this body is the cause
                reason = getattr(error, "reason", UNREADABLE)
                if spans:
                    spans.begin(delivery[0], raw, None, None)
                    spans.fail(delivery[0], reason)
                self._aside.bury(delivery, reason, error)
            else:
                entry = (*order[:4], correlation_id(raw), redelivered), delivery
                if spans:
                    spans.begin(delivery[0], raw, order.id, entry[0][4])
                if checked is None:
                    ready.append(entry)
                else:
                    checked.append((entry, body))
            waiting.popleft()
            if redelivered:
                self._suspects.leave()
            state.received += 1
            state.redelivered += redelivered

    def _look_up(self) -> None:
        """Ask which of the checked orders are known; the others have their effect begun."""
        self._asking = True
        ids = [entry[0][0] for entry, _ in self._checked]
        self._desk.ask(partial(self._desk.ledger.known, ids), partial(self._on_known, len(ids)), self._on_unknown)

    def _on_known(self, count: int, known: set[str]) -> None:
        self._asking = False
        checked = self._checked[:count]  # fewer where the service stops
        del self._checked[:count]
        self._ready += [entry for entry, body in checked if self._begin(entry, body, known)]
        if not self._working:
            self._work()

    def _on_unknown(self, error: AwayError) -> None:
        self._asking = False
        self._hold(error)

    def _begin(self, entry: Entry, body: bytes, known: set[str]) -> bool:
        """Begin an order's effect; return whether it can be recorded now."""
        order_id = entry[0][0]
        if others := self._performing.get(order_id):
            others.append(entry)  # it shares the outcome
            return False
        if not self._workers or order_id in self._performed or order_id in known:
            return True  # the ledger will report it as a duplicate
        self._performing[order_id] = [entry]
        self._workers.submit(order_id, body, self._on_performed)
        return False

    def _on_performed(self, results: list[tuple[str, EffectError | None]]) -> None:
        """Record the orders whose effect has come about, and put aside those at fault."""
        if self._closed:
            return  # their deliveries are gone, and will come again
        for order_id, error in results:
            entries = self._performing.pop(order_id)
            if error is None:
                self._performed.add(order_id)
                self._ready += entries
            elif not error.away:  # one that was held is left to the broker when the service stops
                for _, delivery in entries:
                    if self._spans:
                        self._spans.fail(delivery[0], error.reason)
                    self._aside.defer(delivery, order_id, error)
        if not self._scheduled:
            self._schedule(LINGER)

    def _commit(self) -> None:
        """Have the ready orders made durable."""
        batch, self._ready, self._recording = self._ready, [], True
        rows = [row for row, _ in batch]
        span = self._spans.commit([delivery[0] for _, delivery in batch]) if self._spans else None
        done, failed = partial(self._on_recorded, batch, rows, span), partial(self._on_unrecorded, batch, span)
        self._desk.ask(partial(self._desk.ledger.record, rows), done, failed)

    def _on_recorded(self, batch: list[Entry], rows: list[Row], span: Commit | None, duplicates: list[int]) -> None:
        """Acknowledge what is durable now; it counts even where its connection has been lost meanwhile."""
        state, self._recording = self._state, False
        if self._performed:
            self._performed.difference_update(row[0] for row in rows)
        if self._recorded:
            self._recorded()
        if self._held:
            self._held = 0.0
            state.set("ledger", None)
            log.info("the ledger can be written again")
        self._octets -= sum(len(delivery[4]) for _, delivery in batch)
        self._acknowledge([delivery[0] for _, delivery in batch])
        if span:
            span.succeed(duplicates)
        state.dispatched += len(rows) - len(duplicates)
        state.duplicates += len(duplicates)
        state.batch.observe(len(rows))
        log_orders("dispatched before, acknowledged again", [rows[index] for index in duplicates])
        for index in reversed(duplicates):
            del rows[index]
        log_orders("dispatched", rows)
        if not self._working:
            self._work()

    def _on_unrecorded(self, batch: list[Entry], span: Commit | None, error: AwayError) -> None:
        """Have all orders of a batch stay ready."""
        self._recording = False
        if span:
            span.fail(error)
        self._ready = batch + self._ready
        self._hold(error)

    def _hold(self, error: AwayError) -> None:
        """Hold all orders, unacknowledged, while this host can't write its ledger: none of them is at fault.

        Meanwhile the prefetch limit stops further deliveries.
        """
        if self._closed:
            return
        self._held = min(self._desk.ledger.most_held, self._held * 2 or 0.1)
        reason = f"the ledger can't be written ({error}); orders are held"
        self._state.set("ledger", reason)
        log.error("%s: %s; trying again in %.1f s", reason, error.remedy, self._held)
        self._retry_at = time.monotonic() + self._held
        if not self._working:
            self._go_on()

    def _acknowledge(self, tags: Sequence[int]) -> None:
        if self._closed:
            return
        self._acknowledger.acknowledge(tags)
        if self._acknowledger.ahead > AHEAD:
            self._lost(OverflowingError(self._settings.prefetch))

    def _count(self) -> None:
        state, acknowledger = self._state, self._acknowledger
        state.in_flight = 0 if self._closed else acknowledger.unacknowledged(self._last)
        state.oldest = None if self._closed else acknowledger.oldest(self._last)

    def _on_trouble(self, reason: str | None) -> None:
        """Keep an order that can't be put aside from holding back all those after it, up to the prefetch limit."""
        self._state.set("outbox", reason)
        if reason and not self._closed:
            self._acknowledger.overtake()

    def _on_aside(self, delivery: Delivery) -> None:
        """Acknowledge what is durable in another queue."""
        self._octets -= len(delivery[4])
        self._acknowledge([delivery[0]])
        self._count()
        if self._drained:
            self._work()
