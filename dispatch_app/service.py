"""The life of `dispatch run`: it connects, consumes, reconnects for as long as it takes, and stops cleanly."""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pika.adapters.select_connection import IOLoop

from . import backupmark, health, probes, tracing
from .amqp import properties
from .amqp.connection import Connection, parameters
from .amqp.resolver import Services
from .consumer import Consumer
from .effects.announcer import Announcer
from .effects.port import Effect
from .effects.rate import Rate
from .effects.workers import Workers
from .failures import OverflowingError, explain
from .ledgers import desk
from .ledgers.port import AwayError, ClockError, Ledger, Remote
from .logs import fields, log
from .route import Route
from .settings import Settings
from .suspects import Suspects
from .systemd import Notifier

if TYPE_CHECKING:
    from .ledgers.watch import Watch

# Limits for a broker that answers heartbeats, and perhaps nothing else.
SETUP_SECONDS = 30.0  # from the open connection to consuming
CLOSE_SECONDS = 10.0  # to close a connection properly
FORGET_PERIOD = 600.0  # seconds between two searches for orders past their retention


class Service:
    """The work of one process: a loop, a ledger, and one connection after another."""

    def __init__(self, settings: Settings, ledger: Ledger, effect: Effect | None, directory: Path) -> None:
        """Prepare to run; `directory` keeps what the next process has to know of this one's death."""
        self._settings, self._ledger = settings, ledger
        self._tracer = tracing.configured(settings)
        self._suspects = Suspects(directory)
        self._state = health.State(f"{settings.exchange}:{settings.routing_key}")
        self._state.directory = directory
        self._state.last_backup = partial(backupmark.last_success, directory)
        if settings.event_exchange:
            self._state.backlog = ledger.backlog
        self._notifier = Notifier()
        self._loop: Any = IOLoop()
        wake = self._loop.add_callback_threadsafe
        self._desk, self._watch = self._desk_of(ledger, wake)
        rate = Rate(settings.rate) if settings.rate else None
        self._workers = Workers(effect, self._state, wake, rate) if effect else None
        self._conn: Any = None
        self._setup: Any = None  # the timer that sees whether the connection comes to consuming
        self._consumer: Consumer | None = None
        self._announcer: Announcer | None = None
        self._route = Route(settings.hosts, socket.gethostname())
        self._given_up = False  # this side has decided to close the connection
        self._delay = 0.0  # seconds, before the next attempt
        self._prefetch = settings.prefetch
        self._started = self._stopping = False
        self._status = ""
        self._forget_at = 0.0  # time.monotonic()
        self._clock_told = False

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; return the exit code. Raises LedgerError where the ledger is found damaged."""
        properties.install()
        probes.serve("DISPATCH_HTTP", self._settings.http, self._state, self._ledger.size)
        if self._settings.metrics:
            probes.serve("DISPATCH_METRICS", self._settings.metrics, self._state, self._ledger.size)
        self._catch_signals()
        self._tick()
        self._connect()
        self._loop.start()
        if self._workers:
            self._workers.close()
        self._desk.close()
        if self._tracer:
            self._tracer.close()
        log.info("stopped", extra=fields(dispatched=self._state.dispatched))
        if damage := self._ledger.damage:
            raise damage
        return 0

    def _desk_of(self, ledger: Ledger | Remote, wake: Callable[..., None]) -> tuple[desk.Desk, Watch | None]:
        """Return where to ask the ledger, and what watches one on the network."""
        if not isinstance(ledger, Remote):
            return desk.AtOnce(ledger), None
        from .ledgers.watch import Watch

        thread = desk.InThread(ledger, wake)
        return thread, Watch(ledger, thread, self._state, self._wake_announcer)

    # -- connecting -------------------------------------------------------------------

    def _connect(self) -> None:
        if self._stopping:
            return
        if not self._route.failures:
            log.info("connecting to %s", self._settings.url(self._route.host))
        try:
            self._conn = self._open("dispatch", self._on_open, self._on_lost)
        except OSError as error:  # a TLS file can't be used
            self._on_lost(None, error)

    def _open(self, name: str, opened: Callable[[Any], None], lost: Callable[[Any, Exception], None]) -> Connection:
        """Begin to connect to the host whose turn it is. Raises OSError for TLS files that can't be used."""
        return Connection(
            parameters(self._settings, self._route.host, name),
            on_open_callback=opened,
            on_open_error_callback=lost,
            on_close_callback=lost,
            custom_ioloop=Services(self._loop),
        )

    def _on_open(self, conn: Any) -> None:
        log.info("connected to %s", self._settings.url(self._route.host))
        self._state.connections += 1
        self._state.certificate_end = conn.certificate_end
        if self._settings.event_exchange:
            opening = partial(self._open, "dispatch-events")
            self._announcer = Announcer(opening, self._settings, self._route.host, conn.ioloop, self._desk, self._state)
        spans = self._tracer.deliveries(self._route.host) if self._tracer else None
        self._consumer = Consumer(
            conn, self._route.host, replace(self._settings, prefetch=self._prefetch), self._desk, self._state,
            self._workers, spans, self._give_up, partial(self._open, "dispatch-outbox"), self._suspects,
            self._announcer.wake if self._announcer else None,
        )  # fmt: skip
        self._setup = self._loop.call_later(SETUP_SECONDS, self._see_consuming)

    def _see_consuming(self) -> None:
        if "broker" in self._state.reasons:
            self._give_up(TimeoutError())

    def _give_up(self, error: Exception) -> None:
        """Close a connection whose consumer can't go on: a new one starts from a known state."""
        conn = self._conn
        if self._given_up or not conn.is_open:
            return
        self._given_up = True
        if not self._stopping:
            self._note_loss(error)
        self._drop_work()
        conn.close()
        self._loop.call_later(CLOSE_SECONDS, lambda: conn.is_closed or conn.abort(error))

    def _on_lost(self, _conn: Any, error: BaseException) -> None:
        self._drop_work()
        if self._setup:
            self._loop.remove_timeout(self._setup)
        self._conn = self._consumer = self._announcer = self._setup = None
        if self._stopping:
            self._loop.stop()
            return
        if not self._given_up:
            self._note_loss(error)
        self._given_up = False
        self._loop.call_later(self._delay, self._connect)

    def _drop_work(self) -> None:
        for worker in (self._consumer, self._announcer):
            if worker:
                worker.close()

    def _note_loss(self, error: BaseException) -> None:
        """Log why there is no connection, and decide when and how to try again."""
        consumed = "broker" not in self._state.reasons
        host = self._route.host
        failure = explain(error, self._settings, host)
        self._prefetch = error.prefetch if isinstance(error, OverflowingError) else self._settings.prefetch
        self._state.losses += 1
        self._state.set("broker", failure.cause)
        self._delay = self._route.go_on(consumed)
        log.error("%s: %s", "connection lost" if consumed else "no connection", failure, extra=fields(
            host=host, failures=self._route.failures, retry_in_seconds=round(self._delay, 2)))  # fmt: skip

    # -- stopping ---------------------------------------------------------------------

    def _catch_signals(self) -> None:
        # Signals wake the loop through a descriptor, so that they never interrupt one of its steps.
        self._wakeup, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._loop.add_handler(self._wakeup.fileno(), self._on_signal, self._loop.READ)

    def _on_signal(self, _fd: int, _events: int) -> None:
        self._wakeup.recv(64)
        if self._stopping:
            self._loop.stop()  # a second signal means now: the broker delivers the rest again
            return
        self._stopping = True
        log.info("stopping: finishing what has been delivered")
        self._notifier.send("STOPPING=1", "STATUS=stopping")
        self._state.set("stopping", "the service is stopping")
        self._loop.call_later(self._settings.stop_seconds, self._loop.stop)
        if self._consumer:
            self._consumer.drain(partial(self._announcer.drain, self._close) if self._announcer else self._close)
        else:
            self._loop.stop()

    def _close(self) -> None:
        if self._conn.is_open:
            self._conn.close()  # and _on_lost stops the loop
        else:
            self._loop.stop()

    # -- the beat ---------------------------------------------------------------------

    def _tick(self) -> None:
        """Prove to the watchdog and to /livez that the loop still turns."""
        now = self._state.beat = time.monotonic()
        if self._ledger.damage:
            self._loop.stop()  # whatever has not been acknowledged is delivered again
            return
        reasons = list(self._state.reasons.values())
        news = ["WATCHDOG=1"] if self._notifier.watchdog else []
        started = self._started or not reasons
        if not self._started and started:
            news.append("READY=1")
        elif not started:
            # Type=notify waits for READY=1: an absent broker must not make the start fail, but a hang must.
            news.append("EXTEND_TIMEOUT_USEC=30000000")
        if reasons:
            status = reasons[0]
        elif self._state.held:
            status = self._state.held[0]
        else:
            status = f"consuming {self._settings.queue}"
        status = "; ".join((status, *self._state.unserved.values()))
        if status != self._status and not self._stopping:
            news.append(f"STATUS={status}")
        if not news or self._notifier.send(*news):  # what could not be told is told by the next beat
            self._started, self._status = started, status
        if self._watch:
            self._watch.tick(now)
        if self._settings.retention_days and now >= self._forget_at:
            self._forget()
        interval = 1.0 if self._started else 0.1  # seconds
        self._loop.call_later(min(interval, self._notifier.watchdog / 3 or interval), self._tick)

    def _wake_announcer(self) -> None:
        """Orders of other hosts may have become this one's to announce."""
        if self._announcer:
            self._announcer.wake()

    def _forget(self) -> None:
        self._forget_at = math.inf  # until it is known whether there is more
        work = partial(self._ledger.forget, self._settings.retention_days)
        self._desk.ask(work, self._on_forgotten, self._on_not_forgotten)

    def _on_forgotten(self, forgotten: int) -> None:
        # Each look deletes a few thousand orders at most, so that dispatching goes on in between.
        self._forget_at = time.monotonic() + (0 if forgotten else FORGET_PERIOD)

    def _on_not_forgotten(self, error: AwayError) -> None:
        if not isinstance(error, ClockError):
            log.warning("old orders can't be deleted now (%s)", error)
        elif not self._clock_told:
            log.error("no order is deleted: %s; %s", error, error.remedy)
            self._clock_told = True
        self._on_forgotten(0)
