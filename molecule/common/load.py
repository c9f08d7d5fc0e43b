"""Orders under way while a host changes: ``load.py publish`` sends them, ``load.py report`` says what became of them.

It runs on the Dispatch host, with the service's settings and with the release's interpreter, because that has pika.
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
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pika
from pika import exceptions


def publish(host: str, log: Path, rate: float) -> None:
    """Publish `rate` orders a second to `host` until SIGTERM; log the id of each that was confirmed, and when."""
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
            confirmed.write(f"{order} {time.time():.3f}\n")
            confirmed.flush()
    connection.close()


def report(log: Path, ledger: Path, marks: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare what was confirmed with the ledger, the dead letters and the journal.

    `marks` are windows of time, {"name", "start", "end"} in seconds since the epoch. For each, the report says what
    became of the orders confirmed in it, the rate of the slowest load (orders per second), and the longest time in
    which nothing was dispatched (seconds).
    """
    loads = [read(part) for part in sorted(log.parent.glob(f"{log.name}*"))]
    confirmed = {order for load in loads for order in load}
    rows = sqlite3.connect(ledger).execute("select id, dispatched_at from all_orders order by dispatched_at").fetchall()
    dispatched = {order for order, _ in rows}
    moments = [at / 1000 for _, at in rows]
    said = journal()
    effects = Counter(order["id"] for line in said["dispatched"] for order in line["orders"])
    again = said["dispatched before, acknowledged again"]
    dead = subprocess.run(["dispatch", "dead", "list", "--json"], capture_output=True, text=True, check=True)

    def window(start: float, end: float) -> dict[str, Any]:
        inside = [{order for order, at in load.items() if start <= at <= end} for load in loads]
        orders = set().union(*inside)
        return {
            "seconds": round(end - start, 1),
            "load": min(round(len(part) / (end - start)) for part in inside),
            "gap": round(longest_gap(moments, start, end), 2),
            "lost": len(orders - dispatched),
            "doubled": sum(effects[order] > 1 for order in orders),
        }

    return {
        "confirmed": len(confirmed),
        "dispatched": len(confirmed & dispatched),
        "dead": len(dead.stdout.splitlines()),
        "lost": len(confirmed - dispatched),
        "journaled": len(confirmed & effects.keys()),
        "doubled": sum(count > 1 for count in effects.values()),
        "redelivered": sum(line.get("redelivered", 0) for line in said["dispatched"] + again),
        "acknowledged_again": sum(line["count"] for line in again),
        "windows": {mark["name"]: window(mark["start"], mark["end"]) for mark in marks},
    }


def read(log: Path) -> dict[str, float]:
    """When each order of a load was confirmed."""
    return {order: float(at) for order, at in (line.split() for line in log.read_text().splitlines())}


def journal() -> defaultdict[str, list[dict[str, Any]]]:
    """The journal's lines about orders, by message. The ledger's key is unique, so only the journal can show an order
    dispatched twice.
    """
    command = ["journalctl", "--unit", "dispatch", "--output", "cat"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = defaultdict(list)
    for line in output.splitlines():
        if '"orders": [' in line:
            entry = json.loads(line)
            lines[entry["message"]].append(entry)
    return lines


def longest_gap(moments: list[float], start: float, end: float) -> float:
    # A gap may begin before the window does.
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
