"""Announces dispatched orders to an exchange, at least once each.

An order comes into the ledger and onto its list of orders to be announced by one commit. It leaves that list only once
the broker has confirmed that a queue has the announcement; after a crash between the two it is announced again, under
the same message id. Of a long list only so much is at hand that memory does not grow with it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import topology
from ..health import State
from ..ledgers.desk import Desk
from ..ledgers.port import AwayError, Unannounced
from ..logs import log
from ..outbox import Connect, Outbox
from ..settings import Settings
from .event import announcement

AT_HAND = 2000  # announcements at most; RabbitMQ confirms several times a second, and each time as many as it has
LINGER = 0.05  # seconds an order waits for others, to be announced and struck off with them
AGAIN = 1.0  # seconds until a ledger that was locked is tried again
FLUSH_SECONDS = 3.0  # for the last announcements of a process that stops


class Announcer:
    """Announces on a connection of its own for as long as the consumer's connection lasts."""

    def __init__(self, connect: Connect, settings: Settings, host: str, ioloop: Any, desk: Desk, state: State) -> None:
        """Begin with what has not been announced before; `connect` opens a connection for the first announcement."""
        self._exchange, self._ioloop, self._desk, self._state = settings.event_exchange or "", ioloop, desk, state
        self._outbox = Outbox(connect, settings, host, ioloop, self._on_trouble, topology.EventExchange, AT_HAND)
        self._host = socket.gethostname()
        self._confirmed: list[int] = []  # orders to strike off the list
        self._read = 0  # the number of the last order that was read from the list
        self._scheduled = self._closed = False
        self._asking = False  # the ledger, and has no answer yet
        self._drained: Callable[[], None] | None = None
        self.wake()

    def wake(self) -> None:
        """Orders have been recorded: announce them soon."""
        if not self._scheduled:
            self._schedule(LINGER)

    def drain(self, done: Callable[[], None]) -> None:
        """Announce what can be announced at once, then close the connection and call `done`."""
        self._drained = done
        self._ioloop.call_later(FLUSH_SECONDS, self._finish)
        if self._state.event_obstacle:
            self._finish()
        elif not len(self._outbox):
            self._work()

    def close(self) -> None:
        """Drop everything at hand: the consumer's connection is gone, or about to go."""
        if not self._closed:
            self._closed, self._state.event_obstacle = True, None
            self._strike_off()
            self._outbox.abort()

    def _schedule(self, delay: float) -> None:
        self._scheduled = True
        self._ioloop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._scheduled = False
        self._work()

    def _work(self) -> None:
        """Strike off what has been announced, and announce what comes next on the list."""
        if self._closed:
            return
        if self._asking:
            self._schedule(LINGER)
            return
        if self._confirmed:
            self._asking = True
            self._strike_off(self._on_struck_off, self._on_away)
        else:
            self._read_on()

    def _on_struck_off(self) -> None:
        self._asking = False
        if not self._closed:
            self._read_on()

    def _read_on(self) -> None:
        room = AT_HAND - len(self._outbox)
        if not room:
            return
        # From its beginning where nothing is at hand: the numbers of orders that were forgotten are given again.
        after = self._read if room < AT_HAND else 0
        self._asking = True
        self._desk.ask(
            partial(self._desk.ledger.unannounced, room, after), partial(self._on_list, after), self._on_away
        )

    def _on_list(self, after: int, orders: list[Unannounced]) -> None:
        self._asking = False
        if self._closed:
            return
        self._read = after
        for order in orders:
            self._read = max(self._read, order.seq)
            done = partial(self._on_confirmed, order.seq)
            self._outbox.send(announcement(order, self._exchange, order.host or self._host, done))
        if self._drained and not len(self._outbox):
            self._finish()

    def _on_away(self, error: AwayError) -> None:
        self._asking = False
        log.warning("the ledger can't tell which orders are to be announced (%s), trying again", error)
        if not (self._closed or self._scheduled):
            self._schedule(AGAIN)

    def _on_confirmed(self, seq: int) -> None:
        self._confirmed.append(seq)
        self._state.announced += 1
        if not self._scheduled:
            self._schedule(0 if self._drained else LINGER)

    def _on_trouble(self, reason: str | None) -> None:
        self._state.event_obstacle = self._outbox.obstacle if reason else None
        if reason:
            self._strike_off()
            if self._drained:
                self._finish()

    def _strike_off(
        self, then: Callable[[], None] = lambda: None, otherwise: Callable[[AwayError], None] = lambda _: None
    ) -> None:
        """Strike off what has been announced so far, for the rest may wait for long, or be lost."""
        confirmed, self._confirmed = self._confirmed, []

        def failed(error: AwayError) -> None:
            self._confirmed = confirmed + self._confirmed
            if self._closed:
                log.warning("%d orders may be announced twice (%s)", len(confirmed), error)
            otherwise(error)

        if confirmed:
            self._desk.ask(partial(self._desk.ledger.announced, confirmed), lambda _: then(), failed)

    def _finish(self) -> None:
        done, self._drained = self._drained, None
        if done and not self._closed:
            self._closed = True
            self._strike_off()
            self._outbox.close(done)
