"""`dispatch check` and `dispatch run` meet each thing that can be wrong with a broker: one code, one plain sentence."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dispatch_app import failures
from tests.integration.consumer.harness import Broker, Proxy, Service, order, until

PASSWORD = "pass-of-the-poor"  # noqa: S105 - of a user made here


def refused(service: Service, code: int, *said: str, **environment: str) -> None:
    """Check with other settings; assert the exit code and the one sentence, without the password."""
    done = service.command("check", **environment)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stdout + done.stderr
    assert done.stderr.startswith("failed: ")
    for words in said:
        assert words in done.stderr
    assert service.environment["AMQP_PASS"] not in done.stdout + done.stderr
    assert environment.get("AMQP_PASS", "-none-") not in done.stdout + done.stderr


def test_a_good_broker_before_and_after_the_first_run(service: Service) -> None:
    done = service.command("check")
    assert done.returncode == 0, done.stderr
    assert "run has still to declare robot-shop, orders, orders.dead" in done.stdout
    service.start()
    service.await_ready()
    done = service.command("check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: ")


def test_an_address_that_leads_nowhere(service: Service) -> None:
    refused(service, failures.UNRESOLVABLE, "no-such-host.invalid", AMQP_HOST="no-such-host.invalid")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    refused(service, failures.REFUSED, "refuses connections", AMQP_PORT=port)
    refused(service, failures.VHOST, "no-such-vhost", AMQP_VHOST="no-such-vhost")
    refused(service, failures.CREDENTIALS, "refuses the credentials of user roboshop", AMQP_PASS="a-wrong-one")  # noqa: S106
    # AMQP_HOST may list several hosts of one broker, and one that works is enough.
    done = service.command("check", AMQP_HOST="no-such-host.invalid,127.0.0.1")
    assert done.returncode == 0
    assert "no-such-host.invalid" in done.stderr


def test_a_black_hole(service: Service, proxy: Proxy) -> None:
    proxy.silence()
    refused(service, failures.TIMED_OUT, "doesn't answer", AMQP_PORT=str(proxy.port))


def test_an_alarm_keeps_nobody_waiting(service: Service, broker: Broker) -> None:
    broker.ctl("set_vm_memory_high_watermark", "0.0001")
    try:
        done = service.command("check")
        assert done.returncode == 0, done.stderr
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")


def test_a_queue_declared_otherwise(service: Service, broker: Broker) -> None:
    with closing(broker.connect()) as other:
        other.channel().queue_declare("orders", durable=True, arguments={"x-max-length": 1000})
    refused(service, failures.DECLARED, "declared otherwise", "inequivalent arg 'x-max-length'")
    # `run` says so, too, and goes on trying until the fault is mended.
    service.start()
    assert "declared otherwise" in service.await_trouble("declared otherwise")
    broker.ctl("delete_queue", "-p", broker.vhost, "orders")
    service.await_ready()


def test_a_queue_that_is_another_connection_s_alone(service: Service, broker: Broker) -> None:
    with closing(broker.connect()) as other:
        other.channel().queue_declare("orders", durable=True, exclusive=True)
        refused(service, failures.DECLARED, "another connection's alone", "list_queues")


def test_quorum_queues_are_consumed_as_they_are(service: Service, broker: Broker) -> None:
    quorum = {"x-queue-type": "quorum"}
    with closing(broker.connect()) as other:
        channel = other.channel()
        channel.queue_declare("orders", durable=True, arguments={**quorum, "x-delivery-limit": 50})
        retry = {"x-message-ttl": 1000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "orders"}
        channel.queue_declare("orders.retry.1s", durable=True, arguments={**quorum, **retry})
        channel.queue_declare("orders.dead", durable=True, arguments=quorum)
    done = service.command("check")
    assert done.returncode == 0, done.stderr
    service.start()
    service.await_ready()
    broker.publish(order("of-a-quorum"), b"no order")
    service.await_dispatched("of-a-quorum")
    until(lambda: broker.messages()["orders.dead"] == 1)


@pytest.fixture
def poor(broker: Broker) -> Iterator[str]:
    """A user whose permissions a test sets."""
    name = f"poor-{uuid.uuid4().hex[:8]}"
    broker.ctl("add_user", name, PASSWORD)
    yield name
    broker.ctl("delete_user", name)


def test_a_missing_permission(service: Service, broker: Broker, poor: str) -> None:
    def permit(configure: str, write: str, read: str) -> None:
        broker.ctl("set_permissions", "--vhost", broker.vhost, poor, configure, write, read)

    login = {"AMQP_USER": poor, "AMQP_PASS": PASSWORD}
    refused(service, failures.PERMISSION, f"may not use the virtual host {broker.vhost}", **login)
    ours, default = r"^(orders.*|robot-shop)$", r"^(orders.*|amq\.default)$"
    for configure, write, read, missing in (
        ("^robot-shop$", default, ours, "queue 'orders'"),
        (ours, "^orders.*$", ours, "exchange 'amq.default'"),
        (ours, default, "^orders.*$", "exchange 'robot-shop'"),
        (ours, default, r"^(orders|orders\.dead|robot-shop)$", "queue 'orders.retry.1s'"),
    ):
        permit(configure, write, read)
        refused(service, failures.PERMISSION, "lacks a permission", missing, **login)
    permit(ours, r"^(orders|amq\.default)$", ours)
    done = service.command("check", **login)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A port that speaks TLS with a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mq")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=now.year + 1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mq")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                try:
                    context.wrap_socket(connected, server_side=True).close()
                except OSError:
                    continue

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_tls_that_is_not_trusted(service: Service, tls_port: int, tmp_path: Path) -> None:
    tls = {"AMQP_PORT": str(tls_port), "AMQP_TLS": "true"}
    refused(service, failures.TLS, "is not trusted", **tls)
    ca = {"AMQP_TLS_CA": str(tmp_path / "ca.pem")}
    refused(service, failures.TLS, "is not trusted", "AMQP_TLS_SERVER_NAME", **tls, **ca)  # another name in it
    # With a CA and a name that it trusts, the check goes on, and sees that this port doesn't speak AMQP.
    done = service.command("check", **tls, **ca, AMQP_TLS_SERVER_NAME="mq")
    assert "trusted" not in done.stderr
    assert done.returncode != 0
