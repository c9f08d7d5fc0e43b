"""The life of `dispatch run`: connect, consume, reconnect for ever, stop in order."""

from __future__ import annotations

import importlib
import random
import signal
import socket
import sqlite3
import time
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop

from . import connection, health, properties, tracing
from .consumer import Consumer, Hook
from .ledger import Ledger
from .logs import fields, log
from .settings import Settings, SettingsError
from .state import State
from .systemd import Notifier

BACKOFF = (0.2, 30.0)  # seconds before the second attempt, and at most
STOP_BUDGET = 20.0  # seconds to drain; keep TimeoutStopSec= above it
CLOSE_BUDGET = 5.0  # seconds the broker has to answer a close
RETENTION_PERIOD = 600.0  # seconds between two looks for orders to forget


def load_hook(name: str | None) -> Hook | None:
    """Import `module:function`. Raises SettingsError."""
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        hook = getattr(importlib.import_module(module), function)
    except Exception as error:  # importing runs any code
        problem = f"DISPATCH_HOOK {name} can't be imported ({error!r})"
        raise SettingsError([f"{problem}; correct it or unset it"]) from error
    if not callable(hook):
        raise SettingsError([f"DISPATCH_HOOK {name} is no function; name one that takes an order"])
    found: Hook = hook
    return found


class Service:
    """One process's work: a loop, a ledger, and one connection after the other."""

    def __init__(self, settings: Settings, ledger: Ledger, hook: Hook | None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._hook = hook
        self._tracer = tracing.tracer()
        self._state = State()
        self._notifier = Notifier()
        self._loop: Any = IOLoop()
        self._connection: Any = None
        self._consumer: Consumer | None = None
        self._failures = 0  # in a row, without consuming in between
        self._cause: Exception | None = None  # why this side closed the connection
        self._started = self._stopping = False
        self._status = ""
        self._forget_at = 0.0

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; return the exit code. Raises OSError for the HTTP port."""
        properties.install()
        server = health.serve(self._settings.http, self._state, self._ledger.size)
        self._catch_signals()
        self._tick()
        self._connect()
        self._loop.start()
        server.shutdown()
        server.server_close()
        self._ledger.close()
        log.info("stopped", extra=fields(dispatched=self._state.dispatched))
        return 0

    # -- connecting -------------------------------------------------------------------

    def _host(self) -> str:
        hosts = self._settings.hosts
        return hosts[self._failures % len(hosts)]

    def _connect(self) -> None:
        if self._stopping:
            return
        host = self._host()
        if not self._failures:
            log.info("connecting to %s", self._settings.url(host))
        try:
            self._connection = pika.SelectConnection(
                connection.parameters(self._settings, host),
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_lost,
                on_close_callback=self._on_lost,
                custom_ioloop=self._loop,
            )
        except OSError as error:  # a CA or key file that can't be used (ssl.SSLError is one)
            self._on_lost(None, error)

    def _on_open(self, conn: Any) -> None:
        host = self._host()
        self._state.connections += 1
        log.info("connected to %s", self._settings.url(host))
        conn.add_on_connection_blocked_callback(self._on_blocked)
        conn.add_on_connection_unblocked_callback(lambda *_: self._state.set("blocked", None))
        self._consumer = Consumer(
            conn, host, self._settings, self._ledger, self._state, self._hook, self._tracer,
            self._give_up,
        )  # fmt: skip

    def _on_blocked(self, _conn: Any, frame: Any) -> None:
        reason = f"the broker blocks the connection ({frame.method.reason})"
        log.warning("%s; free its memory or disk", reason)
        self._state.set("blocked", reason)

    def _give_up(self, error: Exception) -> None:
        """Close a connection whose consumer can't go on; _on_lost will follow."""
        if self._connection.is_open:
            self._cause = error
            self._connection.close()

    def _on_lost(self, _conn: Any, error: BaseException) -> None:
        if self._consumer:
            self._consumer.close()
            self._consumer = None
        cause, self._cause = self._cause or error, None
        if self._stopping:
            self._loop.stop()
            return
        consumed = "broker" not in self._state.reasons
        host = self._host()
        failure = connection.explain(cause, self._settings, host)
        self._state.connection_losses += 1
        self._state.set("broker", failure.cause)
        self._failures = 1 if consumed else self._failures + 1
        # Every host once before waiting longer; jitter keeps a fleet from coming back at once.
        round_ = self._failures // len(self._settings.hosts)
        delay = min(BACKOFF[1], BACKOFF[0] * 2 ** min(round_, 10)) * random.uniform(0.5, 1)
        log.error(
            "%s: %s", "connection lost" if consumed else "no connection", failure,
            extra=fields(host=host, failures=self._failures, retry_in_seconds=round(delay, 2)),
        )  # fmt: skip
        self._loop.call_later(delay, self._connect)

    # -- stopping ---------------------------------------------------------------------

    def _catch_signals(self) -> None:
        # A wakeup descriptor instead of work in the handler: what the loop does stays in the loop.
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._sockets = (reader, writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._loop.add_handler(reader.fileno(), self._on_signal, self._loop.READ)

    def _on_signal(self, _fd: int, _events: int) -> None:
        self._sockets[0].recv(64)
        if self._stopping:
            self._loop.stop()  # asked twice: don't drain
            return
        self._stopping = True
        log.info("stopping: finishing what has been delivered")
        self._notifier.send("STOPPING=1", "STATUS=stopping")
        self._state.set("stopping", "the service is stopping")
        self._loop.call_later(STOP_BUDGET, self._loop.stop)
        if self._consumer:
            self._consumer.drain(self._close)
        else:
            self._close()

    def _close(self) -> None:
        if self._connection and self._connection.is_open:
            self._connection.close()
            self._loop.call_later(CLOSE_BUDGET, self._loop.stop)
        else:
            self._loop.stop()

    # -- the beat ---------------------------------------------------------------------

    def _tick(self) -> None:
        """Prove to the outside that the loop turns; what is stuck here is stuck everywhere."""
        now = self._state.beat = time.monotonic()
        ready = not self._state.reasons
        status = next(iter(list(self._state.reasons.values())), f"consuming {self._settings.queue}")
        news = []
        if self._notifier.watchdog:
            news.append("WATCHDOG=1")
        if ready and not self._started:
            self._started = True
            news.append("READY=1")
        elif not self._started:
            # Type=notify: a broker that is away must not fail the start, a hang must.
            news.append("EXTEND_TIMEOUT_USEC=30000000")
        if status != self._status:
            news.append(f"STATUS={status}")
            self._status = status
        if news:
            self._notifier.send(*news)
        if self._settings.retention_days and now >= self._forget_at:
            self._forget(now)
        interval = 0.1 if not self._started else 1.0
        self._loop.call_later(min(interval, self._notifier.watchdog / 3 or interval), self._tick)

    def _forget(self, now: float) -> None:
        try:
            forgotten = self._ledger.forget(self._settings.retention_days)
        except sqlite3.Error as error:
            log.warning("old orders can't be forgotten now (%s)", error)
            forgotten = 0
        # In small bites, so that dispatching goes on in between.
        self._forget_at = now if forgotten else now + RETENTION_PERIOD
