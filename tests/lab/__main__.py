"""``python -m tests.lab``: what ``make lab``, ``make lab-down``, ``make molecule`` and the Molecule scenarios call."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.lab import LabError, engine, image, matrix, shop
from tests.lab.ansible import ROOT, playbook
from tests.lab.demo import WHERE_WATCHED, show_orders
from tests.lab.hosts import Host, Lab

STATE = ROOT / ".lab"
PAYMENT_PORT, PROMETHEUS_PORT, ALERTMANAGER_PORT = 18080, 19090, 19093


def lab(dispatch_hosts: int, brokers: int = 1, ledger: str = "sqlite", monitoring: bool = False) -> Lab:
    """The lab of ``inventories/lab``: as many brokers and Dispatch hosts as asked for, and one host of payment.

    With the ledger postgresql, the Dispatch hosts share one, in a database on a host of its own. With `monitoring`,
    another host watches them all.
    """
    broker = Host("broker", "rabbitmq", 22200, ((5672, 5672), (15672, 15672)))
    others = (Host(f"broker-{n}", "rabbitmq", 22180 + n) for n in range(2, brokers + 1))
    payment = Host("payment-1", "payment", 22199, ((8080, PAYMENT_PORT),))
    hosts = (Host(f"dispatch-{n}", "dispatch", 22200 + n) for n in range(1, dispatch_hosts + 1))
    databases = (Host("db-1", "postgresql", 22191),) if ledger == "postgresql" else ()
    ports = ((9090, PROMETHEUS_PORT), (9093, ALERTMANAGER_PORT))
    watching = (Host("monitoring-1", "monitoring", 22192, ports),) if monitoring else ()
    return Lab("lab", STATE, (broker, *others, *databases, *hosts, payment, *watching))


def up(wanted: Lab, distribution: str, artifact: str) -> None:
    started = time.monotonic()
    print("1/4 container engine and host image", flush=True)
    client = engine.connect(STATE)
    tag = image.ensure(client, distribution)
    print("2/4 hosts", flush=True)
    others = wanted.made_of_others(client, tag)
    if others:
        raise LabError(f"{', '.join(others)} stand already, made of another image than {tag}; first `make lab-down`.")
    wanted.up(client, tag)
    shop.write_artifact(STATE / "payment.zip")
    watched = any(host.group == "monitoring" for host in wanted.hosts)
    books = ["playbooks/payment.yml", *(["playbooks/monitoring.yml"] if watched else [])]
    if artifact:
        books += ["-e", json.dumps({"dispatch_artifact": str(Path(artifact).absolute())})]
    print("3/4 ansible-playbook -i inventories/lab playbooks/site.yml", *books, flush=True)
    run = playbook("site", *books, watch=lambda line: print(line, end="", flush=True))
    if run.code:
        raise LabError("the playbook failed; mend what it says above and run the command again")
    print("4/4 orders", flush=True)
    show_orders(client, wanted, PAYMENT_PORT, of_ours=not artifact)
    if watched:
        print(WHERE_WATCHED.format(prometheus=PROMETHEUS_PORT, alertmanager=ALERTMANAGER_PORT))
    if run.changed == 0:
        print("Nothing had to change: every host already is as the inventory describes it.")
    print(f"Done in {time.monotonic() - started:.0f} s.")


def down() -> None:
    client = engine.running()
    if not client:
        print("  no Docker engine runs here, so there are no hosts and images of the lab's to remove")
    else:
        for name in lab(0).down(client):
            print(f"  removed {name}")
        image.remove(client)
        client.close()
    if engine.stop(STATE):
        print("  stopped the Docker engine the lab had started")
    for file in sorted(STATE.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    if STATE.is_dir():
        STATE.rmdir()
    print("The lab is gone. Packages it installed on this machine (docker.io, mmdebstrap) stay.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    names = ", ".join(image.DISTRIBUTIONS)
    commands = parser.add_subparsers(dest="command", required=True)
    boot = commands.add_parser("up", help="boot the hosts, provision them, send orders and show them dispatched")
    boot.add_argument("--hosts", type=int, default=1, metavar="N", help="how many Dispatch hosts (default: 1)")
    boot.add_argument("--brokers", type=int, default=1, metavar="N", help="how many brokers: 1, or a cluster of 3 or 5")
    boot.add_argument("--distribution", default=image.DEFAULT, metavar="NAME", help=f"{names} (default: %(default)s)")
    boot.add_argument(
        "--ledger", choices=("sqlite", "postgresql"), default="sqlite", help="each host's own, or a shared one"
    )
    boot.add_argument("--monitoring", action="store_true", help="one more host, which watches all others")
    boot.add_argument("--artifact", default="", metavar="PATH", help="another artifact for Dispatch")
    commands.add_parser("down", help="remove the hosts, their network, image, key and secrets")
    images = commands.add_parser("image", help="make sure of the engine and of host images, and print their tags")
    images.add_argument("distributions", nargs="*", default=[image.DEFAULT], metavar="NAME", help=names)
    scenarios = commands.add_parser("matrix", help="run Molecule's scenario default on each of some distributions")
    scenarios.add_argument("distributions", nargs="+", metavar="NAME", help=names)
    scenarios.add_argument("--first", action="store_true", help="run on the first that can be had here, and no other")
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            wanted = lab(arguments.hosts, arguments.brokers, arguments.ledger, arguments.monitoring)
            up(wanted, arguments.distribution, arguments.artifact)
        elif arguments.command == "down":
            down()
        elif arguments.command == "matrix":
            return 0 if matrix.run(engine.connect(STATE), arguments.distributions, arguments.first) else 1
        else:
            client = engine.connect(STATE)
            for name in dict.fromkeys(arguments.distributions):
                print(image.ensure(client, name))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
