"""What is to be done about the certificates on the controller: made, made anew, or refused. Plain functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# One of ours that ends sooner is made anew: long enough for a play that runs once a month.
RENEWED_BEFORE = timedelta(days=30)
# The CA's certificate is made anew earlier, and with the same key, so that what it has signed stays good and every
# client has its successor long before it ends.
_CA_RENEWED_BEFORE = timedelta(days=365)
_CA_NAME = "RoboShop RabbitMQ CA"  # that tasks/generate_ca.yml gives it


@dataclass
class Pair:
    """A certificate and its key as read, None where there is none; `faults` tell of what can't be read."""

    name: str
    certificate: x509.Certificate | None = None
    others: list[x509.Certificate] = field(default_factory=list)  # that its file holds, too: those that signed it
    public_key: bytes | None = None  # that of the key's file
    faults: list[str] = field(default_factory=list)


def rabbitmq_certificates(
    directory: str,
    host: str,
    names: list[str],
    clients: list[str],
    reached_by: list[str],
    now: datetime | None = None,
    asked_by: str = "rabbitmq",
    peers_call_it: str = "",
) -> dict[str, Any]:
    """Return what is to be done about a broker's certificate and its clients': ``{"faults", "generate_ca", "due"}``.

    `names` are those a certificate of ours has to bear. One that is given has to bear them, too, unless `reached_by`
    tells names by which clients may reach the broker: then any of those will do. `due` has a dictionary for each that
    is to be made: its name, its subjectAltName, and whether it and its key stand already. `asked_by` is the role whose
    variable names a remedy. `peers_call_it` is the name by which other nodes of a cluster know the host, "" for none:
    its certificate has to bear that, one that is given, too, and to be good for a client as well.
    """
    moment, folder = now or datetime.now(timezone.utc), Path(directory)
    authority = _read(folder, "ca")
    faults = [*authority.faults]
    generate_ca = not authority.faults and _ca_due(authority, moment)
    signs = generate_ca or authority.public_key is not None
    if authority.certificate and authority.public_key not in (None, _public(authority.certificate)):
        faults.append(f"{folder}/ca.key is not the key of {folder}/ca.pem. Put the right one there, or remove it.")
    if authority.certificate and not generate_ca and authority.certificate.not_valid_after_utc <= moment:
        faults.append(
            f"The CA's certificate {folder}/ca.pem ended on {_day(authority.certificate)}. Put its successor there."
        )
    due = []
    for name in dict.fromkeys([host, *clients]):
        pair, peer = _read(folder, name), peers_call_it if name == host else ""
        ours_bears = [*names, *filter(None, [peer])] if name == host else []
        missing = pair.certificate is None and not pair.faults
        mine = _ours(pair, authority)
        # One of ours bears every name and does not end soon; of one that is given, only what can't work is refused.
        others = reached_by if name == host and not mine else []
        until = moment + RENEWED_BEFORE if mine else moment
        wrong = pair.faults or _wrong(pair, ours_bears, others, until, asked_by)
        wrong = wrong or ([] if mine else [*_distrusted(pair, authority), *_unfit_for_peers(pair, peer)])
        if (missing and signs) or (wrong and mine and not pair.faults):
            due.append(
                {
                    "name": name,
                    "alt_names": rabbitmq_alt_names(ours_bears),
                    "stands": not missing and pair.public_key is not None,
                }
            )
        elif missing:
            faults.append(
                f"{folder}/{name}.pem is missing, and there is no {folder}/ca.key to sign one with. Put the "
                "certificate and its key there."
            )
        else:
            faults += wrong
    return {"faults": faults, "generate_ca": generate_ca, "due": due}


def rabbitmq_alt_names(names: list[str]) -> list[str]:
    """Return names and addresses as subjectAltNames: an address is another kind of name (RFC 5280, 4.2.1.6)."""
    return [f"{'IP' if _address(name) else 'DNS'}:{name}" for name in dict.fromkeys(names)]


def _read(folder: Path, name: str) -> Pair:
    """Read a certificate and its key; a file of several certificates has its own first."""
    pair = Pair(name)
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    try:
        if pem.exists():
            pair.certificate, *pair.others = x509.load_pem_x509_certificates(pem.read_bytes())
        if key.exists():
            private = load_pem_private_key(key.read_bytes(), None)
            pair.public_key = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except OSError as error:
        pair.faults.append(
            f"{error.filename} can't be read ({error.strerror}). Let the user who runs the play read it."
        )
    except TypeError:
        pair.faults.append(f"{key} is encrypted, and nothing here can decrypt it. Put the decrypted key there.")
    except (ValueError, UnsupportedAlgorithm):
        broken = pem if pem.exists() and pair.certificate is None else key
        pair.faults.append(f"{broken} holds nothing that can be read as PEM. Put the right file there, or remove it.")
    return pair


def _wrong(pair: Pair, names: list[str], any_of: list[str], moment: datetime, asked_by: str) -> list[str]:
    """Return what is wrong with a certificate: its key, its time, the names it is to bear."""
    certificate = pair.certificate
    if certificate is None:
        return []
    file, found = f"The certificate {pair.name}.pem", []
    if pair.public_key is None:
        found.append(f"{file} has no key beside it. Put {pair.name}.key there.")
    elif pair.public_key != _public(certificate):
        found.append(f"{file} does not fit its key: {pair.name}.key is another's. Put the right one there.")
    if certificate.not_valid_after_utc <= moment:
        found.append(f"{file} ended on {_day(certificate)}. Put its successor there.")
    elif certificate.not_valid_before_utc > moment:
        found.append(
            f"{file} begins on {certificate.not_valid_before_utc:%Y-%m-%d} only. Look at this machine's clock."
        )
    borne = _names(certificate)
    lacking = [name for name in names if not _borne(name, borne)]
    if any(_borne(name.strip(), borne) for name in any_of):
        lacking = []
    if lacking:
        found.append(
            f"{file} is not one for {', '.join(lacking)}; it bears {', '.join(borne) or 'no name'}. Put one there that "
            f"is, or set {asked_by}_tls_names to the names by which clients reach the host."
        )
    return found


def _unfit_for_peers(pair: Pair, peer: str) -> list[str]:
    """Return what is wrong with a certificate by which servers of one cluster know each other."""
    if pair.certificate is None or not peer:
        return []
    borne = _names(pair.certificate)
    file, remedy = f"The certificate {pair.name}.pem", "Put one there that is, or set rabbitmq_cluster_tls: false."
    if not _borne(peer, borne):
        return [
            f"{file} is not one for {peer}, by which the other nodes of the cluster know the host; it bears "
            f"{', '.join(borne) or 'no name'}. {remedy}"
        ]
    try:
        uses = pair.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    if {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= {*uses}:
        return []
    return [f"{file} is not one for both a server and a client, and a node of a cluster is both. {remedy}"]


def _ca_due(authority: Pair, moment: datetime) -> bool:
    """Tell whether the CA's certificate is missing, or is one of ours that ends."""
    certificate = authority.certificate
    if certificate is None:
        return True
    own_name = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [_CA_NAME]
    own_key = authority.public_key == _public(certificate) and _signed(certificate, certificate)
    return own_name and own_key and certificate.not_valid_after_utc <= moment + _CA_RENEWED_BEFORE


def _distrusted(pair: Pair, authority: Pair) -> list[str]:
    """Return what is wrong where no CA of ca.pem has signed a certificate, directly or by the others in its file."""
    if pair.certificate is None or authority.certificate is None:
        return []
    roots, current, others = [authority.certificate, *authority.others], pair.certificate, list(pair.others)
    while not any(current == root or _signed(current, root) for root in roots):
        signers = [other for other in others if _signed(current, other)]
        if not signers:
            return [
                f"The certificate {pair.name}.pem is signed by no CA of ca.pem, so nobody who trusts those would trust "
                "it. Put the CA that signed it into ca.pem."
            ]
        current = signers[0]
        others.remove(current)
    return []


def _ours(pair: Pair, authority: Pair) -> bool:
    """Tell whether the CA whose key is here has signed a certificate."""
    if pair.certificate is None or authority.certificate is None or authority.public_key is None:
        return False
    return _signed(pair.certificate, authority.certificate)


def _signed(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _borne(name: str, borne: list[str]) -> bool:
    """Tell whether a certificate's names include one, by itself or by a wildcard for its first label (RFC 6125)."""
    if address := _address(name):
        return str(address) in borne
    lower = [other.lower() for other in borne]
    return name.lower() in lower or f"*.{name.lower().partition('.')[2]}" in lower


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _day(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"


class FilterModule:
    """Hands the function to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rabbitmq_certificates": rabbitmq_certificates}
