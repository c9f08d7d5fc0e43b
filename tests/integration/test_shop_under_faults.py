"""A whole shop under faults: three Dispatch hosts, three brokers and two databases fail in turn while orders come in.

On each host a second Dispatch runs, the control: it has a queue of its own, to which the same orders go, and a ledger
of the host's own. It meets the same faults at the same moments, and its doubles show what the shared ledger is for.

An effect is that a host takes an order for its own to dispatch: Dispatch logs each of these once it is recorded, and so
does the control. An order is doubled where the fleet's hosts have logged it twice, or recorded it twice, or where it
stands both in a ledger and among the dead letters.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import time

import pika
import pytest
from pika import exceptions

from tests.integration.conftest import booted, until
from tests.integration.shop import Payment, Shop
from tests.lab.hosts import Host, Lab, await_boot, execute, get
from tests.lab.inventory import copied

pytestmark = pytest.mark.long

BROKERS = ("shop-broker-1", "shop-broker-2", "shop-broker-3")
DATABASES = ("shop-db-1", "shop-db-2")
HOSTS = ("shop-dispatch-1", "shop-dispatch-2", "shop-dispatch-3")
PORTS = (22831, 22832, 22833)
SUBNET = "172.31.227.0/24"
SEED = "shop"
# The control is the unit of the role with another queue, and without the shared ledger; without its first line, which
# is the role's mark, a roll-out takes it for no service with the same home. The journal is kept on the disk, where it
# outlives the death of the host.
CONTROL = """
mkdir -p /var/log/journal && systemctl restart systemd-journald && journalctl --flush
printf 'AMQP_QUEUE=control\\nDISPATCH_LEDGER=\\nDISPATCH_HTTP=127.0.0.1:9673\\n' > /etc/control
sed -e 1d -e '/^LoadCredential=.*ledger/d' -e 's/^StateDirectory=.*/StateDirectory=control/' \\
  -e 's/^SyslogIdentifier=.*/SyslogIdentifier=control/' -e '/^EnvironmentFile=/a EnvironmentFile=/etc/control' \\
  /etc/systemd/system/dispatch.service > /etc/systemd/system/control.service
systemctl daemon-reload && systemctl enable --now control
"""
TOLD = "/var/lib/told"  # a file on a host, for what is more than a line or two
READY = "curl -fsS http://127.0.0.1:9672/readyz http://127.0.0.1:9673/readyz"
HEAD = ("confirmed", "dispatched", "dead", "lost", "doubled", "redelivered", "again", "gap of confirms",
        "of dispatches", "control: lost", "doubled")  # fmt: skip


class Scene(Shop):
    """The shop, its payments, and what has happened so far."""

    newer: Path  # an artifact to roll out

    def begin(self, payments: list[Payment]) -> None:
        self.payments, self.random = payments, Random(SEED)  # noqa: S311 - no secret
        self.begun = [("before", 0.0)]  # the faults, and when each began, in seconds since 1970

    @property
    def confirmed(self) -> dict[str, float]:
        """When each order was confirmed, in seconds since 1970."""
        return {key: moment for payment in self.payments for key, moment in dict(payment.confirmed).items()}

    def progress(self, orders: int = 200) -> None:
        """Wait until so many more orders are confirmed."""

        def confirmed() -> int:
            return sum(len(payment.confirmed) for payment in self.payments)

        enough = confirmed() + orders
        until(lambda: confirmed() >= enough, 120)

    def await_ready(self) -> None:
        """Wait until every host and its control say that they consume and can record, and the brokers say the same."""
        for name in HOSTS:
            until(lambda name=name: execute(self.host(name), "sh", "-c", READY)[0] == 0, 120)  # type: ignore[misc]
        until(lambda: self.consumers() == len(HOSTS), 120)

    def await_paused(self, *names: str) -> None:
        """Wait until brokers that see no majority of the nodes have closed their ports."""
        for name in names:
            until(lambda name=name: not self.accepts(name), 150)  # type: ignore[misc]

    def await_healed(self) -> None:
        """Wait until all brokers see each other after a cut, doing as the role's README says to one that is stuck."""

        def healed() -> bool:
            for name in filter(self.stuck, BROKERS):
                print(f"  {name} has not come back by itself, and is restarted", flush=True)
                self.run(name, "systemctl restart rabbitmq-server")
            return all(map(self.sees_all, BROKERS))

        until(healed, 600)

    def stuck(self, name: str) -> bool:
        """Whether a broker that was cut off has tried in vain to go on: RabbitMQ does so once, and may hang over it."""
        said = self.run(name, f"tail -n 20 /var/log/rabbitmq/rabbit@{name}.log")
        signs = ("do_run_outside_app_fun", "global_name_server received an unexpected message")
        return any(sign in said for sign in signs) and not self.accepts(name)

    def accepts(self, name: str) -> bool:
        """Whether a broker listens for clients."""
        return self.run(name, "ss -Hltn sport = :5672") != ""

    def come_back(self, name: str) -> None:
        """Boot a host that was killed."""
        self.host(name).start()
        await_boot(self.host(name))

    def play(self, book: str, **variables: object) -> None:
        run = self.playbook(book, **variables)
        assert run.code == 0, run.output

    @contextlib.contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        login = pika.PlainCredentials("roboshop", self.password)
        with contextlib.closing(
            pika.BlockingConnection([pika.ConnectionParameters("127.0.0.1", port, credentials=login) for port in PORTS])
        ) as connection:
            yield connection.channel()

    def consumers(self) -> int:
        """How many hosts the brokers deliver orders to, -1 where they do not answer."""
        with contextlib.suppress(exceptions.AMQPError), self.channel() as channel:
            return int(channel.queue_declare("orders", passive=True).method.consumer_count)
        return -1

    def await_dropped(self) -> None:
        """Wait until the brokers have given one host up."""
        until(lambda: self.consumers() == len(HOSTS) - 1, 60)

    def drained(self) -> bool:
        rows = self.ctl("list_queues", "name", "messages")
        return not any(row["messages"] for row in rows if not row["name"].endswith(".dead"))

    def dead(self, queue: str) -> set[str]:
        """Take all dead letters of a queue out of theirs; return the ids they say."""
        said = set()
        with self.channel() as channel:
            while (got := channel.basic_get(f"{queue}.dead", auto_ack=True))[0]:
                said.add(got[2].decode().removeprefix("no order: "))
        return said

    def logged(self, unit: str) -> tuple[Counter[str], set[str]]:
        """How often the hosts have logged each order as theirs, and which ones as dispatched before."""
        effects, again = Counter[str](), set[str]()
        for name in HOSTS:
            self.run(name, f"journalctl -u {unit} -o cat > {TOLD}")
            for line in get(self.host(name), TOLD).decode().splitlines():
                entry = json.loads(line) if line.startswith("{") else {}
                ids = [str(order["id"]) for order in entry.get("orders", ())]
                if entry.get("message") == "dispatched":
                    effects.update(ids)
                elif entry.get("message") == "dispatched before, acknowledged again":
                    again.update(ids)
        return effects, again


def a_host_is_killed(scene: Scene) -> None:
    name = scene.random.choice(HOSTS)
    scene.host(name).kill()
    scene.progress()
    scene.come_back(name)


def a_host_is_frozen(scene: Scene) -> None:
    container = scene.host(scene.random.choice(HOSTS))
    container.pause()
    # What it has been sent goes to others, while it still has it in its buffers.
    scene.await_dropped()
    scene.progress()
    container.unpause()


def a_host_is_cut_off(scene: Scene) -> None:
    name = scene.random.choice(HOSTS)
    scene.lab.cut_off(scene.client, name)
    scene.await_dropped()
    scene.progress()
    scene.lab.reconnect(scene.client, name)


def a_broker_is_killed(scene: Scene) -> None:
    name = scene.random.choice(BROKERS)
    scene.host(name).kill()
    scene.progress()
    scene.come_back(name)
    scene.await_whole()


def a_broker_is_cut_off(scene: Scene) -> None:
    name = scene.random.choice(BROKERS)
    scene.lab.cut_off(scene.client, name)
    scene.await_paused(name)
    scene.progress()
    scene.lab.reconnect(scene.client, name)
    scene.await_healed()


def most_brokers_are_cut_off(scene: Scene) -> None:
    others = scene.random.sample(BROKERS, 2)
    for name in others:
        scene.lab.cut_off(scene.client, name)
    # The third one sees no other, either.
    scene.await_paused(*BROKERS)
    for name in others:
        scene.lab.reconnect(scene.client, name)
    scene.await_healed()


def the_brokers_are_restarted_in_turn(scene: Scene) -> None:
    for name in BROKERS:
        scene.run(name, "systemctl restart rabbitmq-server")
        scene.await_whole()


def the_database_is_killed_and_its_replica_promoted(scene: Scene) -> None:
    primary, replica = DATABASES
    scene.host(primary).kill()
    run = scene.playbook("promote", host=replica)
    assert run.recap[replica]["changed"] == 1, run.output
    scene.come_back(primary)
    scene.play("postgresql", postgresql_primary=replica, postgresql_rebuild=primary)
    with (scene.inventory / "group_vars" / "all" / "faults.yml").open("a") as variables:
        variables.write(f"postgresql_primary: {replica}\n")


def a_new_release_is_rolled_out(scene: Scene) -> None:
    scene.play("dispatch", dispatch_artifact=str(scene.newer))


FAULTS = (
    a_host_is_killed,
    a_host_is_frozen,
    a_host_is_cut_off,
    a_broker_is_killed,
    a_broker_is_cut_off,
    most_brokers_are_cut_off,
    the_brokers_are_restarted_in_turn,
    the_database_is_killed_and_its_replica_promoted,
    a_new_release_is_rolled_out,
)


@dataclass
class Outcome:
    """What has become of the orders, by Dispatch or by the control."""

    confirmed: dict[str, float]  # by the order's id: when, in seconds since 1970
    rows: list[tuple[str, bool, float]]  # of all ledgers: id, redelivered, when
    effects: Counter[str]
    again: set[str]
    dead: set[str]
    dispatched: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.dispatched = {row[0] for row in self.rows}

    @property
    def lost(self) -> set[str]:
        return self.confirmed.keys() - self.dispatched - self.dead

    @property
    def doubled(self) -> set[str]:
        recorded = Counter(row[0] for row in self.rows)
        return {key for key in self.dispatched if max(self.effects[key], recorded[key]) > 1} | (
            self.dispatched & self.dead
        )

    def row(self, begin: float, end: float) -> tuple[int | str, ...]:
        """The table's cells for the orders confirmed from `begin` to `end`."""
        confirmed = {key for key, moment in self.confirmed.items() if begin <= moment < end}
        redelivered = {row[0] for row in self.rows if row[1]}
        sets = (self.dispatched, self.dead, self.lost, self.doubled, redelivered, self.again)
        moments = (self.confirmed.values(), (row[2] for row in self.rows))
        gaps = (_gap(sorted(one), begin, end) for one in moments)
        return (len(confirmed), *(len(confirmed & one) for one in sets), *gaps)


def _gap(moments: list[float], begin: float, end: float) -> str:
    """The longest time between two moments, of which the later one is from `begin` to `end`."""
    return f"{max((b - a for a, b in itertools.pairwise(moments) if begin <= b < end), default=0):.1f} s"


@pytest.fixture
def scene(tmp_path: Path, newer: Path) -> Iterator[Scene]:
    hosts = (
        *(Host(name, "rabbitmq", 22834 + number, ((5672, PORTS[number]),)) for number, name in enumerate(BROKERS)),
        *(Host(name, "postgresql", 22811 + number) for number, name in enumerate(DATABASES)),
        *(Host(name, "dispatch", 22821 + number) for number, name in enumerate(HOSTS)),
    )
    lab = Lab("shop", tmp_path / ".lab", hosts, SUBNET)
    with booted(lab) as client:
        password = uuid.uuid4().hex
        (lab.state / "amqp_password").write_text(password + "\n")
        inventory = copied(lab, tmp_path, ",".join(BROKERS), cluster=True)
        variables = "postgresql_synchronous: true\nrabbitmq_names: [robot-shop, orders, control]\n"
        (inventory / "group_vars" / "all" / "faults.yml").write_text(variables)
        made = Scene(client, lab, inventory, password)
        made.newer = newer
        made.play("site")
        for name in HOSTS:
            made.run(name, CONTROL)
        made.await_ready()
        yield made


def test_no_order_is_lost_or_doubled_whatever_fails(scene: Scene, tmp_path: Path) -> None:
    with Payment(scene.password, PORTS, 50) as one, Payment(scene.password, (*PORTS[1:], PORTS[0]), 50) as other:
        scene.begin([one, other])
        for fault in scene.random.sample(FAULTS, len(FAULTS)):
            scene.begun.append((fault.__name__.replace("_", " "), time()))
            print(scene.begun[-1][0], flush=True)
            fault(scene)
            scene.await_ready()
            scene.progress()
    until(scene.drained, 180)
    for name in HOSTS:
        scene.run(name, "systemctl stop dispatch control")

    statement = "SELECT id, redelivered, extract(epoch FROM dispatched_at)::float8 FROM dispatch.orders"
    command = f'runuser -u postgres -- psql -XAt -d dispatch -c "COPY ({statement}) TO STDOUT"'
    scene.run(DATABASES[1], f"{command} > {TOLD}")
    rows = [line.split("\t") for line in get(scene.host(DATABASES[1]), TOLD).decode().splitlines()]
    shared = [(order_id, redelivered == "t", float(moment)) for order_id, redelivered, moment in rows]
    fleet = Outcome(scene.confirmed, shared, *scene.logged("dispatch"), scene.dead("orders"))
    own = [row for name in HOSTS for row in ledger(scene, name, tmp_path / f"{name}.db")]
    control = Outcome(scene.confirmed, own, *scene.logged("control"), scene.dead("control"))
    show(scene, fleet, control)

    assert not fleet.lost
    assert not fleet.doubled
    assert fleet.confirmed.keys() == fleet.dispatched | fleet.dead
    assert fleet.again
    assert not control.lost
    assert control.doubled


def ledger(scene: Scene, name: str, copy: Path) -> list[tuple[str, bool, float]]:
    """Id, redelivered and time of every order in the ledger of a host's control, which is stopped."""
    copy.write_bytes(get(scene.host(name), "/var/lib/control/ledger.db"))
    with contextlib.closing(sqlite3.connect(copy)) as db:
        rows = db.execute("SELECT id, redelivered, dispatched_at FROM all_orders").fetchall()
    return [(order_id, bool(redelivered), moment / 1000) for order_id, redelivered, moment in rows]


def show(scene: Scene, fleet: Outcome, control: Outcome) -> None:
    """Print the table: what has become of the orders that were confirmed from one fault to the next one."""
    spans = [(name, begin, end) for (name, begin), (_, end) in itertools.pairwise([*scene.begun, ("", float("inf"))])]
    print(f"\n{'fault':48}", *(f"{name:>15}" for name in HEAD))
    for name, begin, end in (*spans, ("all", 0.0, float("inf"))):
        cells = (*fleet.row(begin, end), *control.row(begin, end)[3:5])
        print(f"{name:48}", *(f"{cell:>15}" for cell in cells))
