"""A cluster of three brokers: made, broken and changed while orders come in, and none of them is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator

import pika
import pytest

from tests.integration.conftest import booted, order, until
from tests.integration.shop import Payment, Shop
from tests.lab import image
from tests.lab.ansible import Run
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import copied

pytestmark = pytest.mark.long

DISTRIBUTION = os.environ.get("DISPATCH_TEST_CLUSTER", image.DEFAULT)
NODES = ("cluster-broker-1", "cluster-broker-2", "cluster-broker-3")
DISPATCH = "cluster-dispatch"
PORTS = (22771, 22772, 22773)
OWN = ("orders", "orders.dead", "orders.retry.1s", "orders.retry.5s", "orders.retry.30s", "orders.retry.120s",
       "orders.retry.300s")  # fmt: skip
# A release that is not to be reached from the distribution's, and what is said of it.
FAR, FAR_REFUSED = {
    "debian12": ("3.12.0-1", "RabbitMQ gets there in steps alone: 3.11.x, then 3.12.x"),
    "debian13": ("3.13.7-1", "RabbitMQ supports no way back"),
}.get(DISTRIBUTION, ("9.1.0-1", "no supported upgrade"))
INSTALLED = "dpkg-query --show --showformat='${Version}' rabbitmq-server"
# Makes a package of the distribution's own with another version, and a source of it and of one that is not there.
PACKAGE = """set -e
mkdir -p /srv/packages && cd /srv/packages
if [ ! -e newer.deb ]; then
  apt-get --quiet update && apt-get --quiet download rabbitmq-server
  dpkg-deb --raw-extract rabbitmq-server_*.deb unpacked
  sed -i 's/^Version: .*/Version: NEWER/' unpacked/DEBIAN/control
  dpkg-deb -Znone --build unpacked newer.deb
  rm -r unpacked
fi
for version in NEWER FAR; do
  dpkg-deb --field newer.deb | sed "s/^Version: .*/Version: $version/"
  echo "Filename: ./newer.deb"
  echo "Size: $(stat -c %s newer.deb)"
  echo "SHA256: $(sha256sum newer.deb | cut -d' ' -f1)"
  echo
done > Packages
echo 'deb [trusted=yes] file:/srv/packages ./' > /etc/apt/sources.list.d/packages.list
"""
_REMARKS: list[str] = []


class Cluster(Shop):
    """One cluster of brokers with a Dispatch host."""

    def provision(self, **variables: object) -> Run:
        run = self.playbook("rabbitmq", **variables)
        assert run.code == 0, run.output
        return run

    def types(self) -> dict[str, str]:
        rows = self.ctl("list_queues", "name", "type")
        return {row["name"]: "quorum" if "quorum" in row["type"] else "classic" for row in rows}

    def homes(self) -> dict[str, str]:
        """The host on which each classic queue lives."""
        # As JSON, 4.0 tells no node: <0.1234.0>.
        rows = self.run(NODES[0], "rabbitmqctl --quiet list_queues --no-table-headers name pid").splitlines()
        return dict(re.findall(r"(\S+)\t<rabbit@([^.]+)\..*", "\n".join(rows)))

    def publish(self, *bodies: bytes) -> None:
        """Publish by a broker that is up, each until it is confirmed."""
        login = pika.PlainCredentials("roboshop", self.password)
        port = next(port for name, port in zip(NODES, PORTS, strict=True) if self.up(name))
        with contextlib.closing(
            pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, credentials=login))
        ) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("robot-shop", "orders", body, pika.BasicProperties(headers={}), mandatory=True)

    def dispatched(self) -> dict[str, float]:
        """When each order was dispatched, by its id."""
        script = (
            "import json, sqlite3; db = sqlite3.connect('file:/var/lib/dispatch/ledger.db?mode=ro', uri=True); "
            "print(json.dumps(dict(db.execute('SELECT id, dispatched_at FROM all_orders'))))"
        )
        code, output = execute(self.host(DISPATCH), "python3", "-c", script)
        assert code == 0, output
        return {key: moment / 1000 for key, moment in json.loads(output).items()}

    @contextlib.contextmanager
    def reckoned(self, what: str) -> Iterator[Payment]:
        """Publish while the block runs; afterwards every confirmed order has to be dispatched."""
        with Payment(self.password, PORTS) as payment:
            yield payment
            seen = len(payment.confirmed)
            until(lambda: len(payment.confirmed) > seen + 100, 60)
        wanted, before = set(payment.confirmed), time.monotonic()
        until(lambda: wanted <= self.dispatched().keys(), 60)
        moments = sorted(moment for key, moment in self.dispatched().items() if key in wanted)
        gap = max(later - earlier for earlier, later in itertools.pairwise(moments))
        assert self.dead() == 0
        _REMARKS.append(
            f"{DISTRIBUTION}, {what}: {len(wanted)} confirmed, 0 lost; longest gap between confirms "
            f"{payment.longest:.2f} s, between dispatches {gap:.2f} s, the last after {time.monotonic() - before:.1f} s"
        )
        print(_REMARKS[-1])

    def dead(self) -> int:
        """How many dead letters wait; none is meant to."""
        rows = self.ctl("list_queues", "name", "messages", name=next(name for name in NODES if self.up(name)))
        return next(int(row["messages"]) for row in rows if row["name"] == "orders.dead")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    brokers = (
        Host(name, "rabbitmq", 22721 + number, ((5672, port),))
        for number, (name, port) in enumerate(zip(NODES, PORTS, strict=True))
    )
    lab = Lab("cluster", directory / ".lab", (*brokers, Host(DISPATCH, "dispatch", 22729)))
    with booted(lab, DISTRIBUTION) as client:
        password = uuid.uuid4().hex
        (lab.state / "amqp_password").write_text(password + "\n")
        made = Cluster(client, lab, copied(lab, directory, ",".join(NODES), cluster=True), password)
        run = made.playbook("site", "-vvv", "--diff")
        assert run.code == 0, run.output
        cookie = (lab.state / "erlang.cookie").read_text().strip()
        assert password not in run.output
        assert cookie not in run.output
        until(lambda: made.types().keys() >= {*OWN}, 30)
        yield made
        print("\n".join(_REMARKS))


def test_three_hosts_are_one_cluster_of_quorum_queues_and_a_second_run_changes_nothing(cluster: Cluster) -> None:
    told = cluster.ctl("cluster_status")
    assert sorted(told["disk_nodes"]) == sorted(told["running_nodes"]) == [f"rabbit@{name}" for name in NODES]
    assert cluster.types() == dict.fromkeys(OWN, "quorum")
    for row in cluster.ctl("list_queues", "name", "members", "policy"):
        assert len(row["members"]) == len(NODES), row
        assert row["policy"] in ("orders-delivery-limit", "orders-own-delivery-limit"), row
    for name in NODES:
        assert cluster.run(name, "stat -c %a:%U /var/lib/rabbitmq/.erlang.cookie") == "400:rabbitmq"
    run = cluster.playbook("site")
    assert (run.code, run.changed) == (0, 0), run.output


def test_some_hosts_without_the_others_are_refused(cluster: Cluster) -> None:
    run = cluster.playbook("rabbitmq", "--limit", NODES[1])
    assert run.code != 0
    said = " ".join(run.output.split())
    assert f"{NODES[0]}, {NODES[2]} of the same cluster are not in this play" in said


def test_a_broker_is_killed(cluster: Cluster) -> None:
    leader = cluster.ctl("list_queues", "name", "leader")
    node = next(row["leader"] for row in leader if row["name"] == "orders").partition("@")[2]
    with cluster.reckoned("the leader's broker killed, and started again") as payment:
        cluster.host(node).kill()
        seen = len(payment.confirmed)
        until(lambda: len(payment.confirmed) > seen + 300, 60)
        cluster.host(node).start()
        cluster.await_whole()


def test_a_change_of_configuration_goes_over_the_nodes_one_at_a_time(cluster: Cluster) -> None:
    more = ["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_top"]
    with cluster.reckoned("a change of configuration over all nodes"), watched(cluster) as fewest:
        run = cluster.provision(rabbitmq_plugins=more)
    assert [run.recap[name]["changed"] for name in NODES] == [1, 1, 1], run.output
    assert min(fewest) == len(NODES) - 1
    assert cluster.provision(rabbitmq_plugins=more).changed == 0
    cluster.provision()


def test_transient_messages_survive_all_brokers(cluster: Cluster) -> None:
    cluster.run(DISPATCH, "systemctl stop dispatch")
    with Payment(cluster.password, PORTS) as payment:
        until(lambda: len(payment.confirmed) > 1000, 60)
    for name in NODES:
        cluster.host(name).kill()
    for name in NODES:
        cluster.host(name).start()
    cluster.await_whole()
    cluster.run(DISPATCH, "systemctl start dispatch")
    until(lambda: {*payment.confirmed} <= cluster.dispatched().keys(), 90)
    print(f"{DISTRIBUTION} all three killed: {len(payment.confirmed)} transient orders kept, lost 0")


def test_a_node_that_runs_is_not_forgotten(cluster: Cluster) -> None:
    run = cluster.playbook("forget_broker", broker=NODES[2])
    assert run.code != 0
    assert f"rabbit@{NODES[2]} runs" in " ".join(run.output.split())


def test_a_broker_that_is_gone_is_forgotten_and_a_new_one_joins(cluster: Cluster) -> None:
    name = NODES[2]
    with cluster.reckoned("a broker gone for good, forgotten, and a new one in its place"):
        cluster.host(name).remove(force=True, v=True)
        until(lambda: len(cluster.up(NODES[0])) == len(NODES) - 1, 60)
        running = [cluster.run(node, "systemctl show -P MainPID rabbitmq-server") for node in NODES[:2]]
        for _ in range(2):
            run = cluster.playbook("forget_broker", broker=name)
            assert run.code == 0, run.output
        assert run.changed == 0
        assert len(cluster.ctl("cluster_status")["disk_nodes"]) == len(NODES) - 1
        cluster.lab.up(cluster.client, image.ensure(cluster.client, DISTRIBUTION))
        cluster.provision()
    # Another node in the inventory restarts no other.
    assert running == [cluster.run(node, "systemctl show -P MainPID rabbitmq-server") for node in NODES[:2]]
    for row in cluster.ctl("list_queues", "name", "members"):
        assert len(row["members"]) == len(NODES), row
    assert cluster.provision().changed == 0


def test_a_classic_queue_whose_node_is_down_holds_what_belongs_there_and_stops_no_order(cluster: Cluster) -> None:
    make_classic(cluster)
    while (homes := cluster.homes())["orders.dead"] == homes["orders"]:
        make_classic(cluster)
    away, published = homes["orders.dead"], order()
    cluster.host(away).kill()
    cluster.run(DISPATCH, "systemctl restart dispatch")
    cluster.publish(json.dumps(published).encode(), b"no order", json.dumps(order()).encode())
    until(lambda: published["orderid"] in cluster.dispatched(), 60)
    told = "curl --silent http://127.0.0.1:9672/readyz || true"
    until(lambda: "can't be put in orders.dead" in cluster.run(DISPATCH, told), 30)
    journal = cluster.run(DISPATCH, "journalctl -u dispatch -n 200 -o cat")
    assert "orders.dead can't be used for now" in journal
    more = order()
    cluster.publish(json.dumps(more).encode())
    until(lambda: more["orderid"] in cluster.dispatched(), 30)
    cluster.host(away).start()
    cluster.await_whole()
    until(lambda: cluster.dead() == 1, 60)
    until(lambda: cluster.run(DISPATCH, told).strip() == "consuming", 30)


def test_classic_queues_become_quorum_queues(cluster: Cluster) -> None:
    make_classic(cluster)
    assert cluster.types() == dict.fromkeys(OWN, "classic")
    warned = cluster.provision()
    assert "playbooks/quorum.yml makes them quorum queues" in " ".join(warned.output.split())
    assert warned.changed == 0
    with cluster.reckoned("classic queues become quorum queues"):
        run = cluster.playbook("quorum")
        assert run.code == 0, run.output
        _REMARKS.append(next(line.strip() for line in run.output.splitlines() if "Orders went aside" in line))
    assert cluster.types() == dict.fromkeys(OWN, "quorum")
    assert cluster.playbook("quorum").changed == 0
    assert cluster.provision().changed == 0
    assert "roboshop-migration" not in [user["user"] for user in cluster.ctl("list_users")]


def test_a_migration_that_dispatch_does_not_follow_is_undone(cluster: Cluster) -> None:
    make_classic(cluster)
    pid = cluster.run(DISPATCH, "systemctl show -P MainPID dispatch")
    with cluster.reckoned("a migration that is undone"):
        with held(cluster):
            run = cluster.playbook("quorum", rabbitmq_quorum_seconds=5)
        assert run.code != 0
        assert "Orders still wait after 5 s" in " ".join(run.output.split()), run.output
    assert cluster.types() == dict.fromkeys(OWN, "classic")
    assert cluster.run(DISPATCH, "systemctl show -P MainPID dispatch") == pid
    run = cluster.playbook("quorum")
    assert run.code == 0, run.output
    assert cluster.types() == dict.fromkeys(OWN, "quorum")


def test_a_version_that_can_t_be_had_or_reached_is_refused_before_anything_changes(cluster: Cluster) -> None:
    processes = [cluster.run(name, "systemctl show -P MainPID rabbitmq-server") for name in NODES]
    installed = offer(cluster, FAR)
    run = cluster.playbook("rabbitmq", rabbitmq_version="9.9.9")
    assert run.code != 0
    said = " ".join(run.output.split())
    assert "rabbitmq_version is 9.9.9, which this host's package sources do not have. They have" in said
    assert installed in said
    run = cluster.playbook("rabbitmq", rabbitmq_version=FAR)
    assert run.code != 0
    assert FAR_REFUSED in " ".join(run.output.split())
    assert run.changed == 0
    assert processes == [cluster.run(name, "systemctl show -P MainPID rabbitmq-server") for name in NODES]


def test_an_upgrade_goes_over_the_nodes_one_at_a_time(cluster: Cluster) -> None:
    newer = offer(cluster, "")
    with cluster.reckoned("an upgrade over all nodes"), watched(cluster) as fewest:
        run = cluster.provision(rabbitmq_version=newer)
    assert min(fewest) == len(NODES) - 1
    for name in NODES:
        assert cluster.run(name, INSTALLED) == newer
        assert run.recap[name]["changed"] > 0
    flags = cluster.ctl("list_feature_flags", "name", "state", "stability")
    assert {flag["state"] for flag in flags if flag["stability"] == "stable"} == {"enabled"}
    # Whoever else upgrades packages leaves it as it is.
    assert f"Candidate: {newer}" in cluster.run(NODES[0], "apt-cache policy rabbitmq-server")
    again = cluster.provision(rabbitmq_version=newer)
    assert again.changed == 0, again.output
    cluster.provision()
    assert cluster.run(NODES[0], INSTALLED) == newer


def test_nodes_speak_tls_to_each_other_once_all_of_them_were_stopped_together(cluster: Cluster) -> None:
    run = cluster.playbook("rabbitmq", rabbitmq_cluster_tls=True)
    assert run.code != 0
    assert "run playbooks/restart_brokers.yml, which stops all of them together" in " ".join(run.output.split())
    assert run.changed == 0
    for tls in (True, False):
        with cluster.reckoned(f"TLS between the nodes turned {'on' if tls else 'off'}"):
            run = cluster.playbook("restart_brokers", rabbitmq_cluster_tls=tls)
            assert run.code == 0, run.output
            cluster.await_whole()
        told = (
            "openssl s_client -cert broker.pem -key broker.key -CAfile ca.pem -verify_hostname {1} -connect {1}:25672"
        )
        for name in NODES:
            spoken = cluster.run(name, "rabbitmqctl eval 'init:get_argument(proto_dist).'")
            assert spoken == ('{ok,[["inet_tls"]]}' if tls else "error")
            said = cluster.run(NODES[0], f"cd /etc/rabbitmq/tls && {told.replace('{1}', name)} </dev/null 2>&1 || true")
            assert ("Verify return code: 0 (ok)" in said and "Cipher is (NONE)" not in said) == tls, said
        for book in ("restart_brokers", "rabbitmq"):
            run = cluster.playbook(book, rabbitmq_cluster_tls=tls)
            assert (run.code, run.changed) == (0, 0), run.output
        if tls:
            # One node at a time, as ever: they find each other again, and so do the tools.
            more = ["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_top"]
            cluster.provision(rabbitmq_cluster_tls=tls, rabbitmq_plugins=more)
            cluster.provision(rabbitmq_cluster_tls=tls)


def test_nodes_that_would_be_found_by_ec2_start_and_those_that_are_members_stay(cluster: Cluster) -> None:
    wanted = {"rabbitmq_peer_discovery": "aws", "rabbitmq_aws_region": "eu-central-1",
              "rabbitmq_aws_tags": {"Role": "rabbitmq", "Environment": "pre prod"}}  # fmt: skip
    cluster.provision(**wanted)
    cluster.await_whole()
    assert "rabbitmq_peer_discovery_aws" in cluster.run(NODES[0], "cat /etc/rabbitmq/enabled_plugins")
    found = cluster.run(NODES[0], "rabbitmqctl eval 'application:get_env(rabbit, cluster_formation).'")
    assert "aws_ec2_tags" in found
    assert '{"Environment","pre prod"}' in found
    assert cluster.provision(**wanted).changed == 0
    cluster.provision()


def offer(cluster: Cluster, far: str) -> str:
    """Give every node a package source with a next version of its RabbitMQ, of the same files; return that version.

    `far` is one more version, which nobody could install. Where the next one is installed, that one is returned.
    """
    installed = cluster.run(NODES[0], INSTALLED)
    newer = installed if installed.endswith("+lab1") else f"{installed}+lab1"
    for name in NODES:
        cluster.run(name, PACKAGE.replace("NEWER", newer).replace("FAR", far or newer))
    return newer


@contextlib.contextmanager
def watched(cluster: Cluster) -> Iterator[list[int]]:
    """Note how many nodes run, again and again while the block runs."""
    fewest, ends = [len(NODES)], threading.Event()

    def watch() -> None:
        while not ends.is_set():
            sizes = [len(cluster.up(name)) for name in NODES]
            # A node that is down tells nothing, and the others see one less.
            fewest.append(max(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield fewest
    finally:
        ends.set()
        watcher.join(60)


def make_classic(cluster: Cluster) -> None:
    """Make the cluster's queues what they are on a broker that was alone."""
    cluster.run(DISPATCH, "systemctl stop dispatch")
    for name in cluster.types():
        cluster.run(NODES[0], f"rabbitmqctl delete_queue {name}")
    change = 'rabbit_vhost:update_metadata(<<47>>, fun(M) -> M#{default_queue_type => <<"classic">>} end)'
    evaluated = f"rabbit_misc:execute_mnesia_transaction(fun() -> {change} end), ok."
    known = execute(cluster.host(NODES[0]), "rabbitmqctl", "help", "update_vhost_metadata")[0] == 0
    if known:
        cluster.run(NODES[0], "rabbitmqctl update_vhost_metadata / --default-queue-type classic")
    else:
        cluster.run(NODES[0], f"rabbitmqctl eval '{evaluated}'")
    cluster.run(DISPATCH, "systemctl start dispatch")
    until(lambda: cluster.types().keys() >= {*OWN}, 30)


@contextlib.contextmanager
def held(cluster: Cluster) -> Iterator[None]:
    """Hold one order, unacknowledged, on a connection of another consumer."""
    login = pika.PlainCredentials("roboshop", cluster.password)
    connection = pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", PORTS[0], credentials=login, heartbeat=0)
    )
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    taken: list[object] = []
    channel.basic_consume("orders", lambda *delivery: taken.append(delivery))
    while not taken:
        connection.process_data_events(1)
    try:
        yield
    finally:
        connection.close()
