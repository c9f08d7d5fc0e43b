"""The end of ``make lab``: publishes orders as payment does, and shows where they were dispatched."""

from __future__ import annotations

import json
import time
from typing import Any

import docker

from dispatch_app import publish, settings
from dispatch_app.amqp import connection
from tests.lab import LabError
from tests.lab.hosts import Lab, execute

ORDERS = 20
DISPATCH_SECONDS = 30

WHERE_NEXT = """
Where to look next (each host is a container; ssh works, too, see inventories/lab):
  the service      docker exec {host} systemctl status dispatch
  its journal      docker exec {host} journalctl -u dispatch -e
  its ledger       docker exec {host} dispatch orders
  the broker       http://127.0.0.1:15672, user roboshop, password in {state}/amqp_password
"""


def show_orders(client: docker.DockerClient, lab: Lab) -> None:
    """Publish orders to the lab's broker and print which host dispatched each.

    Raises LabError if an order is in no ledger after DISPATCH_SECONDS.
    """
    environment = {"AMQP_HOST": "127.0.0.1", "AMQP_PASS": (lab.state / "amqp_password").read_text().strip()}
    wire = settings.load(environment)
    bodies = [publish.sample() for _ in range(ORDERS)]
    publish.publish(wire, connection.parameters(wire, "127.0.0.1"), iter(bodies), 0)
    orders = [json.loads(body) for body in bodies]

    hosts = [host.name for host in lab.hosts if host.group == "dispatch"]
    deadline = time.monotonic() + DISPATCH_SECONDS
    while True:
        dispatched = {order["id"]: host for host in hosts for order in _ledger(client, host)}
        missing = [order for order in orders if order["orderid"] not in dispatched]
        if not missing:
            break
        if time.monotonic() > deadline:
            raise LabError(
                f"{len(missing)} of {ORDERS} orders are not dispatched after {DISPATCH_SECONDS} s; "
                f"see `docker exec {hosts[0]} journalctl -u dispatch -e`"
            )
        time.sleep(0.5)

    print(f"  {'order':36}  {'items':>5}  {'total':>9}  dispatched by")
    for order in orders:
        cart = order["cart"]
        print(f"  {order['orderid']}  {len(cart['items']):>5}  {cart['total']:>9.2f}  {dispatched[order['orderid']]}")
    print(f"  {len(orders)} orders published, {len(orders)} dispatched")
    print(WHERE_NEXT.format(host=hosts[0], state=lab.state))


def _ledger(client: docker.DockerClient, host: str) -> list[dict[str, Any]]:
    code, output = execute(client.containers.get(host), "dispatch", "orders", "--json", "--limit", str(ORDERS))
    if code:
        raise LabError(f"`dispatch orders` failed on {host}: {output}")
    return [dict(json.loads(line)) for line in output.splitlines()]
