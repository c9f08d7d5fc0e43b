"""Certificates on the controller: generated, generated anew before they end, or refused with what is wrong."""

from __future__ import annotations

import importlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

certificates = importlib.import_module("roles.rabbitmq.filter_plugins.rabbitmq_certificates")

NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
NAMES = ["broker", "10.0.1.20"]


@dataclass
class Directory:
    """A user's directory of certificates."""

    path: Path

    def key(self, name: str, password: bytes | None = None) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        kept = BestAvailableEncryption(password) if password else NoEncryption()
        (self.path / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept))
        return key

    def certificate(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        signer: tuple[str, ec.EllipticCurvePrivateKey],
        *,
        names: list[str] | None = None,
        days: float = 400,
        begins: float = -1,
        uses: tuple[x509.ObjectIdentifier, ...] = (),
    ) -> None:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer[0])]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=min(begins, days - 1)))
            .not_valid_after(NOW + timedelta(days=days))
        )
        if names:
            borne: list[x509.GeneralName] = [
                x509.IPAddress(ipaddress.ip_address(other)) if other[0].isdigit() else x509.DNSName(other)
                for other in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(borne), False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False)
        made = builder.sign(signer[1], hashes.SHA256())
        (self.path / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))

    def ca(self, days: float = 3000, file: str = "ca") -> tuple[str, ec.EllipticCurvePrivateKey]:
        signer = (file, self.key(file))
        self.certificate(file, signer[1], signer, days=days)
        return signer

    def our_ca(self, days: float) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """A CA as the role makes it."""
        signer = ("RoboShop RabbitMQ CA", self.key("ca"))
        self.certificate(signer[0], signer[1], signer, days=days)
        (self.path / f"{signer[0]}.pem").rename(self.path / "ca.pem")
        return signer

    def judged(
        self,
        names: list[str] = NAMES,
        clients: tuple[str, ...] = (),
        reached_by: tuple[str, ...] = (),
        peers_call_it: str = "",
    ) -> Any:
        return certificates.rabbitmq_certificates(
            str(self.path), "broker", names, list(clients), list(reached_by), now=NOW, peers_call_it=peers_call_it
        )


@pytest.fixture
def folder(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_all_is_generated_where_there_is_nothing(folder: Directory) -> None:
    assert folder.judged(clients=("dispatch",)) == {
        "faults": [],
        "generate_ca": True,
        "due": [
            {"name": "broker", "alt_names": ["DNS:broker", "IP:10.0.1.20"], "stands": False},
            {"name": "dispatch", "alt_names": [], "stands": False},
        ],
    }


def test_one_of_ours_that_fits_stays(folder: Directory) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=NAMES, days=31)
    assert folder.judged() == {"faults": [], "generate_ca": False, "due": []}


@pytest.mark.parametrize(
    ("days", "names"), [(-1, NAMES), (29, NAMES), (400, ["broker"]), (400, ["broker", "10.0.1.21"]), (400, None)]
)
def test_one_of_ours_that_ends_or_lacks_a_name_is_made_anew(
    folder: Directory, days: float, names: list[str] | None
) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=names, days=days)
    judged = folder.judged()
    assert judged["faults"] == []
    assert judged["due"] == [{"name": "broker", "alt_names": ["DNS:broker", "IP:10.0.1.20"], "stands": True}]


def test_a_client_s_of_ours_that_ends_is_made_anew(folder: Directory) -> None:
    signer = folder.ca()
    folder.certificate("broker", folder.key("broker"), signer, names=NAMES)
    folder.certificate("dispatch", folder.key("dispatch"), signer, days=3)
    assert [due["name"] for due in folder.judged(clients=("dispatch",))["due"]] == ["dispatch"]


@pytest.mark.parametrize(
    ("days", "begins", "names", "said"),
    [
        (-1, -100, NAMES, "The certificate broker.pem ended on 2026-04-30. Put its successor there."),
        (400, 2, NAMES, "The certificate broker.pem begins on 2026-05-03 only."),
        (400, -1, ["elsewhere"], "The certificate broker.pem is not one for broker, 10.0.1.20; it bears elsewhere."),
        (400, -1, None, "it bears no name"),
    ],
)
def test_one_that_somebody_else_signed_is_refused_where_it_can_t_work(
    folder: Directory, days: float, begins: float, names: list[str] | None, said: str
) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=names, days=days, begins=begins)
    (folder.path / "ca.key").unlink()
    judged = folder.judged()
    (fault,) = judged["faults"]
    assert said in fault
    assert judged["due"] == []


def test_one_that_somebody_else_signed_is_taken_near_its_end_and_under_any_name_that_clients_use(
    folder: Directory,
) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=["*.shop.internal"], days=5)
    (folder.path / "ca.key").unlink()
    assert folder.judged(reached_by=("broker", "mq.shop.internal"))["faults"] == []
    assert folder.judged(reached_by=("broker", "mq.eu.shop.internal"))["faults"] != []


def test_a_key_that_is_another_s_is_refused(folder: Directory) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=NAMES)
    folder.key("broker")
    (folder.path / "ca.key").unlink()
    (fault,) = folder.judged()["faults"]
    assert fault == "The certificate broker.pem does not fit its key: broker.key is another's. Put the right one there."


def test_an_encrypted_key_is_refused(folder: Directory) -> None:
    folder.certificate("broker", folder.key("broker", b"phrase"), folder.ca(), names=NAMES)
    (fault,) = folder.judged()["faults"]
    assert "broker.key is encrypted" in fault


def test_a_file_that_is_no_certificate_is_refused(folder: Directory) -> None:
    folder.ca()
    (folder.path / "broker.pem").write_text("none")
    (fault,) = folder.judged()["faults"]
    assert fault.startswith(f"{folder.path}/broker.pem holds nothing that can be read as PEM.")


def test_a_missing_certificate_that_nobody_here_can_sign_is_refused(folder: Directory) -> None:
    folder.ca()
    (folder.path / "ca.key").unlink()
    (fault,) = folder.judged()["faults"]
    assert fault.startswith(f"{folder.path}/broker.pem is missing, and there is no {folder.path}/ca.key")


def test_a_ca_that_ended_or_whose_key_is_another_s_is_refused(folder: Directory) -> None:
    folder.ca(days=-2)
    folder.key("ca")
    said = " ".join(folder.judged()["faults"])
    assert "ca.key is not the key of" in said
    assert "ca.pem ended on 2026-04-29" in said


@pytest.mark.parametrize(("days", "due"), [(-2, True), (364, True), (366, False)])
def test_our_own_ca_is_made_anew_and_what_it_signed_stays(folder: Directory, days: float, due: bool) -> None:
    folder.certificate("broker", folder.key("broker"), folder.our_ca(days), names=NAMES)
    assert folder.judged() == {"faults": [], "generate_ca": due, "due": []}


def test_one_of_that_name_whose_key_is_not_here_is_refused_once_it_ended(folder: Directory) -> None:
    folder.certificate("broker", folder.key("broker"), folder.our_ca(days=-2), names=NAMES)
    (folder.path / "ca.key").unlink()
    judged = folder.judged()
    assert not judged["generate_ca"]
    assert "ca.pem ended on 2026-04-29. Put its successor there." in judged["faults"][0]


def test_one_that_no_ca_of_ca_pem_signed_is_refused(folder: Directory) -> None:
    folder.ca()
    folder.certificate("broker", folder.key("broker"), folder.ca(file="other"), names=NAMES)
    (fault,) = folder.judged()["faults"]
    assert fault.startswith("The certificate broker.pem is signed by no CA of ca.pem")
    with (folder.path / "ca.pem").open("ab") as trusted:
        trusted.write((folder.path / "other.pem").read_bytes())
    assert folder.judged()["faults"] == []


def test_one_whose_file_holds_the_chain_to_the_ca_is_taken(folder: Directory) -> None:
    root, between = folder.ca(), folder.key("between")
    folder.certificate("between", between, root)
    folder.certificate("broker", folder.key("broker"), ("between", between), names=NAMES)
    assert "signed by no CA" in folder.judged()["faults"][0]
    with (folder.path / "broker.pem").open("ab") as chain:
        chain.write((folder.path / "between.pem").read_bytes())
    assert folder.judged()["faults"] == []


def test_another_role_s_variable_is_named_where_it_asks(folder: Directory) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=["elsewhere"])
    (folder.path / "ca.key").unlink()  # somebody else's CA
    judged = certificates.rabbitmq_certificates(
        str(folder.path), "broker", NAMES, [], [], now=NOW, asked_by="postgresql"
    )
    assert any("or set postgresql_tls_names to the names" in fault for fault in judged["faults"])
    assert "rabbitmq_tls_names" not in str(judged)


def test_one_of_ours_bears_the_name_by_which_other_nodes_know_the_host(folder: Directory) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=NAMES)
    judged = folder.judged(peers_call_it="ip-10-0-1-20")
    assert judged["faults"] == []
    assert judged["due"][0]["alt_names"] == ["DNS:broker", "IP:10.0.1.20", "DNS:ip-10-0-1-20"]
    assert folder.judged(peers_call_it="broker")["due"] == []


BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.mark.parametrize(
    ("names", "uses", "said"),
    [
        (["shop.internal"], BOTH, "is not one for mq-1, by which the other nodes of the cluster know the host"),
        (["shop.internal", "mq-1"], BOTH[:1], "is not one for both a server and a client"),
        (["shop.internal", "mq-1"], BOTH, ""),
        (["shop.internal", "mq-1"], (), ""),
    ],
)
def test_one_that_is_given_has_to_serve_between_nodes_too(
    folder: Directory, names: list[str], uses: tuple[x509.ObjectIdentifier, ...], said: str
) -> None:
    folder.certificate("broker", folder.key("broker"), folder.ca(), names=names, uses=uses)
    (folder.path / "ca.key").unlink()
    assert folder.judged(reached_by=("shop.internal",))["faults"] == []
    faults = folder.judged(reached_by=("shop.internal",), peers_call_it="mq-1")["faults"]
    assert (len(faults), said in "".join(faults)) == (bool(said), True)
