"""The end of ``make lab``: pays for carts as the shop's page does, and shows where the orders were dispatched."""

from __future__ import annotations

import json
import time

import docker

from dispatch_app import publish
from tests.lab import LabError, shop
from tests.lab.hosts import Lab, execute

ORDERS = 20
DISPATCH_SECONDS = 30

WHERE_NEXT = """
Where to look next (each host is a container; ssh works, too, see inventories/lab):
  the service      docker exec {host} systemctl status dispatch
  its journal      docker exec {host} journalctl -u dispatch -e
  its ledger       docker exec {host} dispatch orders
  payment          docker exec payment-1 systemctl status payment
  one more order   curl -d '{{"items": [{{"sku": "HAL-1", "qty": 1}}], "total": 2001}}' http://127.0.0.1:{port}/pay/dave
  the broker       http://127.0.0.1:15672, user roboshop, password in {state}/amqp_password
"""

WHERE_WATCHED = """  targets, rules   http://127.0.0.1:{prometheus}/targets, and /alerts
  what rings       http://127.0.0.1:{alertmanager}
  the dashboard    templates/monitoring/dashboard.json, for a Grafana that asks http://127.0.0.1:{prometheus}
"""


def show_orders(client: docker.DockerClient, lab: Lab, port: int, of_ours: bool) -> None:
    """Pay for carts at `port` of this machine, and print which host dispatched each order.

    `of_ours` says whether Dispatch is this project's own, with a ledger; another one is taken at its journal's word.
    Raises LabError if an order is not dispatched after DISPATCH_SECONDS.
    """
    carts = [json.loads(publish.sample())["cart"] for _ in range(ORDERS)]
    orders = {shop.pay(port, f"user-{number}", cart): cart for number, cart in enumerate(carts)}

    hosts = [host.name for host in lab.hosts if host.group == "dispatch"]
    deadline = time.monotonic() + DISPATCH_SECONDS
    while True:
        told = {host: (_ledger if of_ours else _journal)(client, host) for host in hosts}
        dispatched = {order: host for host in hosts for order in orders if order in told[host]}
        missing = len(orders) - len(dispatched)
        if not missing:
            break
        if time.monotonic() > deadline:
            raise LabError(
                f"{missing} of {ORDERS} orders are not dispatched after {DISPATCH_SECONDS} s; "
                f"see `docker exec {hosts[0]} journalctl -u dispatch -e`"
            )
        time.sleep(0.5)

    print(f"  {'order':36}  {'items':>5}  {'total':>9}  dispatched by")
    for order, cart in orders.items():
        print(f"  {order}  {len(cart['items']):>5}  {cart['total']:>9.2f}  {dispatched[order]}")
    print(f"  {len(orders)} orders paid for at payment-1, {len(dispatched)} dispatched")
    print(WHERE_NEXT.format(host=hosts[0], state=lab.state, port=port))


def _ledger(client: docker.DockerClient, host: str) -> str:
    code, output = execute(client.containers.get(host), "dispatch", "orders", "--json", "--limit", str(ORDERS))
    if code:
        raise LabError(f"`dispatch orders` failed on {host}: {output}")
    # Hosts that share a ledger all tell of every order, and which host dispatched it.
    return "\n".join(line for line in output.splitlines() if json.loads(line).get("host", host) == host)


def _journal(client: docker.DockerClient, host: str) -> str:
    command = ("journalctl", "--unit=dispatch", "--output=cat", "--since=-5min")
    return execute(client.containers.get(host), *command)[1]
