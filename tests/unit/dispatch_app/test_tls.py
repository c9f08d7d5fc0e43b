"""What a certificate has to be: trusted, in time and of the right name, and no more than that."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pika import exceptions

from dispatch_app import failures, tls
from dispatch_app.amqp.connection import parameters
from dispatch_app.doctor.broker import Broker
from dispatch_app.settings import Settings, load

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM
create_default_context = ssl.create_default_context


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Yield a function that serves TLS with a certificate of a CA whose basic constraints are not critical."""
    ended = threading.Event()
    threads = []

    def serve(is_ca: bool = True, ends: datetime.datetime = NOW + DAY) -> int:
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        serial = x509.random_serial_number
        begins = NOW - 2 * DAY
        ca = (
            x509.CertificateBuilder(name("ca"), name("ca"), ca_key.public_key(), serial(), begins, NOW + DAY)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        certificate = (
            x509.CertificateBuilder(name("ca"), name("mq"), key.public_key(), serial(), begins, ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        (tmp_path / "ca.pem").write_bytes(ca.public_bytes(PEM))
        (tmp_path / "mq.pem").write_bytes(
            certificate.public_bytes(PEM)
            + key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "mq.pem")
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.1)

        def answer() -> None:
            while not ended.is_set():
                try:
                    connected, _ = listener.accept()
                    with connected:
                        connected.settimeout(5)
                        with context.wrap_socket(connected, server_side=True) as shaken:
                            shaken.recv(8)  # what is unread at the close would reset the connection, or not, by chance
                except OSError:  # nobody asks, or the client does not trust this
                    continue
            listener.close()

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield serve
    ended.set()
    for thread in threads:
        thread.join()


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python be as strict as 3.13 is."""

    def create(cafile: str | None = None) -> ssl.SSLContext:
        made = create_default_context(cafile=cafile)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", create)


def settings(tmp_path: Path, port: int) -> Settings:
    ca = {"AMQP_TLS": "true", "AMQP_TLS_CA": str(tmp_path / "ca.pem")}
    return load({"AMQP_HOST": "localhost", "AMQP_PORT": str(port), "AMQP_PASS": "p", **ca})


def shake(settings: Settings, host: str = "localhost") -> ssl.SSLCertVerificationError | None:
    """Shake hands as the consumer does; return why the certificate was refused."""
    options = parameters(settings, host).ssl_options
    with socket.create_connection(("127.0.0.1", settings.port), timeout=5) as plain:
        try:
            options.context.wrap_socket(plain, server_hostname=options.server_hostname).close()
        except ssl.SSLCertVerificationError as error:
            return error
    return None


def test_a_ca_that_is_not_marked_critical_is_trusted(tmp_path: Path, port: Callable[..., int]) -> None:
    assert shake(settings(tmp_path, port())) is None


def test_the_doctor_trusts_it_as_well(tmp_path: Path, port: Callable[..., int]) -> None:
    good = settings(tmp_path, port())
    # Only what comes after the handshake fails, because what answers is not RabbitMQ.
    assert Broker(good).login.evidence == f"localhost:{good.port} ended the TLS connection"


@pytest.mark.parametrize("lost", ["ConnectionResetError(104, 'Connection reset by peer')", "Transport indicated EOF"])
def test_however_a_connection_ends_after_the_handshake_tls_is_why(
    tmp_path: Path, port: Callable[..., int], lost: str
) -> None:
    error = exceptions.IncompatibleProtocolError(f'StreamLostError: ("Stream connection lost: {lost}",)')
    assert failures.explain(error, settings(tmp_path, port()), "mq").cause.endswith(" ended the TLS connection")


def test_the_name_the_chain_and_the_time_still_count(tmp_path: Path, port: Callable[..., int]) -> None:
    good = settings(tmp_path, port())
    error = shake(good, "elsewhere")
    assert error
    assert "AMQP_TLS_SERVER_NAME" in failures.explain(error, good, "elsewhere").remedy
    stranger = load({"AMQP_HOST": "localhost", "AMQP_PORT": str(good.port), "AMQP_PASS": "p", "AMQP_TLS": "true"})
    error = shake(stranger)
    assert error
    assert "AMQP_TLS_CA" in failures.explain(error, stranger, "localhost").remedy
    late = settings(tmp_path, port(ends=NOW - DAY))
    error = shake(late)
    assert error
    assert "clock" in failures.explain(error, late, "localhost").remedy
    assert Broker(late).login.kind == "tls-expired"


def test_a_certificate_that_no_setting_mends_is_to_be_issued_anew(tmp_path: Path, port: Callable[..., int]) -> None:
    bad = settings(tmp_path, port(is_ca=False))
    error = shake(bad)
    assert error
    assert failures.explain(error, bad, "localhost").remedy == tls.MALFORMED
    broker = Broker(bad)
    assert broker.login.kind == "tls-untrusted"
    assert broker.malformed
