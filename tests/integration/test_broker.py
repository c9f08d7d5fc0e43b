"""The role rabbitmq on a host of its own: what it refuses, what it puts back, and what it leaves open."""

from __future__ import annotations

import contextlib
import json
import ssl
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import docker
import pika
import pytest
from cryptography import x509
from pika.exceptions import ChannelClosedByBroker

from dispatch_app import topology
from dispatch_app.settings import load
from tests.integration.conftest import booted, until
from tests.lab.ansible import Run, playbook
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import copied

# In `make test`, Molecule and test_site.py run the role. These tests boot a broker of their own, and often break it.
pytestmark = pytest.mark.long

BROKER = "lone-broker"
AMQP, AMQPS = 22651, 22652
WATCHING = "h\u00e4nde weg, \u20ac 5"  # such letters are the first that a locale alters
PLUGINS = "/etc/rabbitmq/enabled_plugins"


class Site:
    """A user's inventory with one broker."""

    def __init__(self, client: docker.DockerClient, inventory: Path, password: str) -> None:
        self.client, self.inventory, self.password = client, inventory, password
        self.tls = inventory.parent / "tls"

    def provision(self, *arguments: str, **variables: object) -> Run:
        return playbook("rabbitmq", "--extra-vars", json.dumps(variables), *arguments, inventory=self.inventory)

    def refused(self, **variables: object) -> str:
        """Provision, which has to fail; return what was said, without the line ends that only lay it out."""
        run = self.provision(**variables)
        assert run.code != 0, run.output
        assert self.password not in run.output
        return " ".join(run.output.split())

    def run(self, script: str) -> str:
        code, output = execute(self.client.containers.get(BROKER), "sh", "-c", script)
        assert code == 0, output
        return output

    @contextlib.contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        login = pika.PlainCredentials("roboshop", self.password)
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", AMQP, credentials=login))
        try:
            yield connection.channel()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("broker")
    lab = Lab("lone", directory / ".lab", (Host(BROKER, "rabbitmq", 22601, ((5672, AMQP), (5671, AMQPS))),))
    with booted(lab) as client:
        password = uuid.uuid4().hex
        (lab.state / "amqp_password").write_text(password + "\n")
        broker = Site(client, copied(lab, directory, BROKER), password)
        run = broker.provision("-vvv", "--diff")
        assert run.code == 0, run.output
        assert password not in run.output
        yield broker


def test_a_second_run_changes_nothing_and_guest_is_gone(site: Site) -> None:
    run = site.provision()
    assert (run.code, run.changed) == (0, 0), run.output
    users = site.run("rabbitmqctl --quiet list_users").splitlines()[1:]
    assert [line.split()[0] for line in users] == ["roboshop"]


def test_a_preview_tells_what_would_change_and_changes_nothing(site: Site) -> None:
    definitions, process = "rabbitmqctl --quiet export_definitions -", "systemctl show rabbitmq-server -p MainPID"
    look = f"cat {PLUGINS}; ls -R /etc/rabbitmq; {definitions}; {process}"
    before = site.run(look)
    other = {
        "rabbitmq_plugins": ["rabbitmq_management"],
        "rabbitmq_user_tags": "management",
        "rabbitmq_remove_guest": False,
    }
    run = site.provision("--check", "--diff", **other, rabbitmq_password="of-a-preview")  # noqa: S106 - never set
    assert (run.code, run.changed) == (0, 2), run.output
    assert "+[rabbitmq_management]." in run.output
    assert "of-a-preview" not in run.output
    assert site.run(look) == before


def test_the_user_may_do_what_payment_and_dispatch_do_and_nothing_else(site: Site) -> None:
    for exchange in ("robot-shop", "roboshop"):
        settings = load({"AMQP_HOST": BROKER, "AMQP_PASS": "unused", "AMQP_EXCHANGE": exchange})
        with site.channel() as channel:
            topology.declare_exchange(channel, settings)
            for name, arguments in topology.queues(settings).items():
                channel.queue_declare(name, durable=True, arguments=arguments)
            channel.queue_bind(settings.queue, exchange, settings.routing_key)
            channel.confirm_delivery()
            channel.basic_publish(exchange, "orders", b"an order", mandatory=True)
            channel.basic_publish("", topology.retry_queue(settings, 0), b"an order", mandatory=True)
            channel.basic_publish("", topology.dead_queue(settings), b"an order", mandatory=True)
            channel.basic_get("orders", auto_ack=True)
    with site.channel() as channel, pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel.queue_declare("catalogue")
    with site.channel() as channel, pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel.exchange_declare("ship", "direct")


def test_a_plugin_that_rabbitmq_does_not_know_is_refused_before_anything_changes(site: Site) -> None:
    before = site.run(f"cat {PLUGINS}; systemctl show rabbitmq-server -p MainPID")
    said = site.refused(rabbitmq_plugins=["rabbitmq_managment", "rabbitmq_prometheus"])
    assert "Did you mean rabbitmq_management?" in said
    assert site.run(f"cat {PLUGINS}; systemctl show rabbitmq-server -p MainPID") == before


def test_a_broker_that_does_not_boot_gets_back_the_configuration_that_ran(site: Site) -> None:
    before = site.run(f"cat {PLUGINS}")
    site.run("systemd-run --unit=taken python3 -m http.server 1883")
    until(lambda: ":1883 " in site.run("ss -Hltn"))
    try:
        said = site.refused(rabbitmq_plugins=["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_mqtt"])
    finally:
        site.run("systemctl stop taken")
    assert "the previous one is back and RabbitMQ runs with it" in said
    assert "eaddrinuse" in said or "address already in use" in said
    assert site.run(f"cat {PLUGINS}") == before
    assert site.run("rabbitmqctl --quiet list_users | grep -c roboshop") == "1"


def test_a_password_that_rabbitmq_refuses_is_told_with_its_own_words(site: Site) -> None:
    module = "rabbit_credential_validator_min_password_length"
    site.run(f"rabbitmqctl eval 'application:set_env(rabbit, credential_validator, [{{validation_backend, {module}}},"
             " {min_length, 40}]).'")  # fmt: skip
    try:
        said = site.refused(rabbitmq_password="too-short-for-it")  # noqa: S106 - refused, for a test
    finally:
        site.run("rabbitmqctl eval 'application:unset_env(rabbit, credential_validator).'")
    assert "rabbitmqctl change_password failed. RabbitMQ says:" in said
    assert "minimum required password length is 40" in said
    assert "too-short-for-it" not in said


def test_a_node_that_rabbitmqctl_can_t_reach_is_told_with_the_next_step(site: Site) -> None:
    site.run("cd /var/lib/rabbitmq && cp -p .erlang.cookie /root/kept && chmod u+w .erlang.cookie &&"
             " printf ANOTHER > .erlang.cookie && chmod u-w .erlang.cookie")  # fmt: skip
    try:
        said = site.refused()
    finally:
        site.run("cp -p /root/kept /var/lib/rabbitmq/.erlang.cookie")
    assert "another Erlang cookie" in said
    assert "systemctl restart rabbitmq-server" in said


def test_a_renamed_host_is_named_before_an_empty_node_looks_healthy(site: Site) -> None:
    with site.channel() as channel:
        channel.queue_declare("orders", durable=True)
    site.run("hostname renamed && grep -q renamed /etc/hosts || echo 127.0.0.1 renamed >> /etc/hosts")
    try:
        said = site.refused()
        assert f"RabbitMQ runs as rabbit@{BROKER}, but by this host's name it is rabbit@renamed" in said
        # The node of the old name is stopped by that name: rabbitmqctl would look for the new one.
        site.run("systemctl kill --signal=TERM rabbitmq-server; systemctl restart rabbitmq-server")
        said = site.refused()
        assert f"holds the queues of rabbit@{BROKER}" in said
        assert f"hostnamectl set-hostname {BROKER}" in said
    finally:
        site.run(f"systemctl stop rabbitmq-server; hostname {BROKER} && systemctl restart rabbitmq-server")
    with site.channel() as channel:
        channel.queue_declare("orders", passive=True)


def test_erlang_is_upgraded_under_a_broker_of_its_own_and_no_order_is_lost(site: Site) -> None:
    madison = site.run("apt-get --quiet --quiet update; apt-cache madison erlang-base").splitlines()
    newest, *older = dict.fromkeys(line.split("|")[1].strip() for line in madison)
    if not older:
        pytest.skip(f"the package sources have no other Erlang than {newest}")
    names = site.run(
        "dpkg-query --show --showformat='${source:Package} ${Package}\\n' | sed -n 's/^erlang //p'"
    ).split()
    specs = " ".join(f"{name}={older[-1]}" for name in names)
    site.run(f"DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --allow-downgrades {specs}")
    site.run("systemctl restart rabbitmq-server")
    with site.channel() as channel:
        channel.queue_declare("orders", durable=True)
        channel.queue_purge("orders")
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"waits", pika.BasicProperties(delivery_mode=2), mandatory=True)
    wanted = {"rabbitmq_version": "3.10.8", "rabbitmq_erlang_version": newest}
    run = site.provision(**wanted)
    assert run.code == 0, run.output
    assert site.run("dpkg-query --show --showformat='${Version}' erlang-base") == newest
    assert site.provision(**wanted).changed == 0
    with site.channel() as channel:
        assert channel.basic_get("orders", auto_ack=True)[2] == b"waits"
    # The host is held to them until somebody says otherwise.
    assert "Pin: version" in site.run("cat /etc/apt/preferences.d/roboshop-rabbitmq.pref")
    assert site.provision().changed == 1
    assert f"rabbitmq_erlang_version is {older[-1]}, older than the {newest}" in site.refused(
        rabbitmq_erlang_version=older[-1]
    )


def test_with_tls_the_clear_ports_close_and_our_own_certificates_are_renewed(site: Site) -> None:
    site.tls.mkdir()
    wanted = {
        "rabbitmq_tls": True,
        "rabbitmq_tls_directory": str(site.tls),
        "rabbitmq_clear_listener": False,
        "rabbitmq_management_address": "127.0.0.1",
        "rabbitmq_prometheus_address": "127.0.0.1",
        "rabbitmq_monitoring_user": "watch",
        "rabbitmq_monitoring_password": WATCHING,
    }
    with site.channel() as channel:
        channel.queue_declare("orders", durable=True)
    run = site.provision(**wanted)
    assert run.code == 0, run.output
    assert WATCHING not in run.output
    listening = {line.split()[3] for line in site.run("ss -Hltn").splitlines()}
    assert not [address for address in listening if address.endswith(":5672")]
    assert {"127.0.0.1:15672", "127.0.0.1:15692"} <= listening
    assert not listening & {"*:15672", "0.0.0.0:15672", "*:15692", "0.0.0.0:15692"}

    # The monitoring user sees what there is, and may use nothing.
    for path in ("overview", "nodes", "queues/%2F/orders"):
        site.run(f"curl --silent --show-error --fail -u 'watch:{WATCHING}' http://127.0.0.1:15672/api/{path}")
    assert site.run("rabbitmqctl --quiet list_user_permissions watch").split()[-4:] == ["/", "^$", "^$", "^$"]

    served, process = certificate(site), site.run("systemctl show rabbitmq-server -p MainPID")
    assert served.not_valid_after_utc > datetime.now(timezone.utc) + timedelta(days=800)
    run = site.provision(**wanted, rabbitmq_tls_names=[BROKER, "broker.shop.internal"])
    assert run.code == 0, run.output
    names = certificate(site).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [BROKER, "broker.shop.internal"]
    assert site.run("systemctl show rabbitmq-server -p MainPID") == process

    (site.tls / f"{BROKER}.pem").write_text("none")
    assert f"{BROKER}.pem holds nothing that can be read as PEM" in site.refused(**wanted)


def certificate(site: Site) -> x509.Certificate:
    """The certificate that the broker serves, verified against the CA in the user's directory."""
    context = ssl.create_default_context(cafile=str(site.tls / "ca.pem"))
    parameters = pika.ConnectionParameters(
        "127.0.0.1",
        AMQPS,
        credentials=pika.PlainCredentials("roboshop", site.password),
        ssl_options=pika.SSLOptions(context, BROKER),
    )
    pika.BlockingConnection(parameters).close()
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", AMQPS)).encode())
