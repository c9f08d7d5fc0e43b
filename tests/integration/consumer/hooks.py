"""Hooks that the service under test calls for each order."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dispatch_app.orders import Order

AWAY = "TEST_AWAY"  # names a variable with the path of a file that exists while the courier is away


def nothing(_: Order) -> None:
    """Take every order."""


def deadly(order: Order) -> None:
    """Do what orders are named after."""
    print("the hook has", order.id)
    if order.id == "hang":
        time.sleep(3600)
    elif order.id == "die":
        os._exit(7)


def courier(_: Order) -> None:
    """Fail as long as a file exists."""
    if Path(os.environ[AWAY]).exists():
        raise ConnectionError("the courier is away")


def gate(order: Order) -> None:
    """Wait as long as a file exists, and then fail once over some orders."""
    while Path(os.environ[AWAY]).exists():
        time.sleep(0.02)
    if order.id.startswith("failing") and order.id not in _failed:
        _failed.add(order.id)
        raise ConnectionError("the courier is away")


_failed: set[str] = set()
