"""Orders under way while a host changes: ``load.py publish`` sends them, ``load.py report`` says what became of them.

Runs on the Dispatch host, with the interpreter of a release, which has pika, and the settings of the service.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pika
from pika import exceptions


def publish(host: str, log: Path, rate: float) -> None:
    """Publish `rate` orders a second to `host` until SIGTERM; log the id of each that the broker confirmed."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    password = Path(os.environ["CREDENTIALS_DIRECTORY"], "amqp_password").read_text()
    parameters = pika.ConnectionParameters(host, credentials=pika.PlainCredentials(os.environ["AMQP_USER"], password))
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()
    due = time.monotonic()
    with log.open("a") as confirmed:
        while not ended:
            due += 1 / rate
            connection.sleep(max(0.0, due - time.monotonic()))
            order = str(uuid.uuid4())
            body = {"orderid": order, "user": "load", "cart": {"items": [], "total": 1, "tax": 0}}
            try:
                channel.basic_publish(
                    "robot-shop", "orders", json.dumps(body), pika.BasicProperties(headers={}), mandatory=True
                )
            except exceptions.UnroutableError:
                continue
            confirmed.write(order + "\n")
            confirmed.flush()
    connection.close()


def report(log: Path, ledger: Path, marks: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare what was confirmed with the ledger, the dead letters and the journal.

    `marks` are windows, {"name", "start", "end"} in seconds since the epoch; each gets the longest time in it during
    which nothing was dispatched, in seconds.
    """
    confirmed = {order for part in log.parent.glob(f"{log.name}*") for order in part.read_text().split()}
    rows = sqlite3.connect(ledger).execute("select id, dispatched_at from orders order by dispatched_at").fetchall()
    dispatched = {order for order, _ in rows}
    moments = [at / 1000 for _, at in rows]
    dead = subprocess.run(["dispatch", "dead", "list", "--json"], capture_output=True, text=True, check=True)
    return {
        "confirmed": len(confirmed),
        "dispatched": len(confirmed & dispatched),
        "dead": len(dead.stdout.splitlines()),
        "lost": len(confirmed - dispatched),
        "doubled": sum(count > 1 for count in effects().values()),
        "gaps": {mark["name"]: round(longest_gap(moments, mark["start"], mark["end"]), 2) for mark in marks},
    }


def effects() -> Counter[str]:
    """How often the journal says that each order was dispatched: evidence besides the ledger, whose key is unique."""
    journal = subprocess.run(
        ["journalctl", "--unit", "dispatch", "--output", "cat"], capture_output=True, text=True, check=True
    )
    counts: Counter[str] = Counter()
    for line in journal.stdout.splitlines():
        if '"message": "dispatched"' in line:
            counts.update(order["id"] for order in json.loads(line)["orders"])
    return counts


def longest_gap(moments: list[float], start: float, end: float) -> float:
    # From the last one before the window, for the gap may begin there.
    inside = [max((at for at in moments if at < start), default=start)]
    inside += [at for at in moments if start <= at <= end]
    return max((after - before for before, after in itertools.pairwise(inside)), default=end - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["publish", "report"])
    parser.add_argument("--host", help="the broker to publish to")
    parser.add_argument(
        "--log", type=Path, required=True, help="file of confirmed ids; for report, how such files' names begin"
    )
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--ledger", type=Path, default=Path("/var/lib/dispatch/ledger.db"))
    arguments = parser.parse_args()
    if arguments.verb == "publish":
        publish(arguments.host, arguments.log, arguments.rate)
    else:
        print(json.dumps(report(arguments.log, arguments.ledger, json.load(sys.stdin))))


if __name__ == "__main__":
    main()
