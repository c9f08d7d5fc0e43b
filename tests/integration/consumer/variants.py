"""Dispatch with a crash or a weakness built in: `python -m tests.integration.consumer.variants NAME`.

A kill from outside can't hit one exact point of the code, so these variants crash there by themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from dispatch_app import __main__
from dispatch_app.amqp.connection import Delivery
from dispatch_app.consumer import Consumer
from dispatch_app.ledgers.sqlite import SqliteLedger

COUNTDOWN = "COUNTDOWN"  # variable: after how many passes the crash comes


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class _Countdown:
    def __init__(self) -> None:
        self._left = int(os.environ[COUNTDOWN])

    def pass_or_die(self) -> None:
        self._left -= 1
        if self._left < 0:
            _die()


def killed_after_the_effect() -> None:
    """Die where orders are in the ledger, or confirmed as dead letters, and not acknowledged."""
    countdown, acknowledge = _Countdown(), Consumer._acknowledge

    def acknowledge_or_die(self: Consumer, tags: Sequence[int]) -> None:
        countdown.pass_or_die()
        acknowledge(self, tags)

    Consumer._acknowledge = acknowledge_or_die  # type: ignore[method-assign]  # a fault, on purpose


def killed_before_the_commit() -> None:
    """Die where orders are written in a transaction that isn't committed."""
    countdown, init = _Countdown(), SqliteLedger.__init__

    class Database:
        def __init__(self, db: Any) -> None:
            self._db = db

        def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                countdown.pass_or_die()
            return self._db.execute(statement, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

    def init_over(self: SqliteLedger, *arguments: Any) -> None:
        init(self, *arguments)
        database: Any = Database(self._db)
        self._db = database

    SqliteLedger.__init__ = init_over  # type: ignore[assignment,method-assign]  # a fault, on purpose


def killed_before_it_strikes_off() -> None:
    """Die where announcements are confirmed, and their orders still on the list of those to be announced."""
    countdown, announced = _Countdown(), SqliteLedger.announced

    def strike_off_or_die(self: SqliteLedger, orders: Sequence[int]) -> None:
        countdown.pass_or_die()
        announced(self, orders)

    SqliteLedger.announced = strike_off_or_die  # type: ignore[method-assign]  # a fault, on purpose


def acknowledges_first() -> None:
    """Acknowledge on delivery, as the original does, and die as above: orders at hand are lost."""
    killed_before_the_commit()
    deliver = Consumer._on_delivery

    def acknowledge_and_deliver(self: Consumer, delivery: Delivery) -> None:
        self._channel.basic_ack(delivery[0])
        deliver(self, delivery)

    Consumer._on_delivery = acknowledge_and_deliver  # type: ignore[method-assign]  # a fault, on purpose
    Consumer._acknowledge = lambda *_: None  # type: ignore[method-assign]  # a fault, on purpose


def stuck_over_an_order() -> None:
    """Never come back from a commit."""
    SqliteLedger.record = lambda *_: time.sleep(3600)  # type: ignore[assignment,method-assign]  # a fault, on purpose


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    sys.exit(__main__.main(["run"]))
