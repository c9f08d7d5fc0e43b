"""Hooks that the service under test calls for each order."""

from __future__ import annotations

import http.client
import os
import time
from contextlib import closing
from pathlib import Path

from dispatch_app.orders import Order

AWAY = "TEST_AWAY"  # names a variable with the path of a file that exists while the courier is away
ENDPOINT = "TEST_ENDPOINT"  # names a variable with a port of this machine


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


def notify(order: Order) -> None:
    """Tell an endpoint of each order, as a webhook does."""
    with closing(http.client.HTTPConnection("127.0.0.1", int(os.environ[ENDPOINT]), timeout=5)) as client:
        client.request("POST", "/", headers={"Idempotency-Key": order.id, "Content-Length": "0"})
        if (status := client.getresponse().status) != 204:
            raise ConnectionError(f"the endpoint answers {status}")


def gate(order: Order) -> None:
    """Wait as long as a file exists, and then fail once over some orders."""
    while Path(os.environ[AWAY]).exists():
        time.sleep(0.02)
    if order.id.startswith("failing") and order.id not in _failed:
        _failed.add(order.id)
        raise ConnectionError("the courier is away")


_failed: set[str] = set()
