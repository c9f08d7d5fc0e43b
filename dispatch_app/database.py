"""The address of a ledger that a whole fleet shares: a database of PostgreSQL's, as `DISPATCH_LEDGER` names it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

EXAMPLE = "postgresql://dispatch@db-1.example.com,db-2.example.com/dispatch"
PORT = 5432
# Those of libpq's modes that mean what they say: `allow` and `prefer` do without TLS as soon as somebody asks for it.
SSL_MODES = ("verify-full", "verify-ca", "require", "disable")
# The CAs that this host trusts, where Debian and Red Hat keep them in one file; libpq itself would look for none.
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class AddressError(ValueError):
    """An address is bad: what is wrong with it, and what to do. What may be a password is not quoted."""

    def __init__(self, wrong: str, remedy: str = f"set a URL such as {EXAMPLE}") -> None:
        super().__init__(wrong)
        self.wrong, self.remedy = wrong, remedy


@dataclass(frozen=True)
class Database:
    """Where the ledger is, and as whom to log in; no repr shows the password."""

    hosts: tuple[str, ...]  # names, addresses, or directories of Unix sockets
    ports: tuple[int, ...]
    name: str
    user: str
    sslmode: str = "verify-full"
    password: str = field(default="", repr=False)
    ca: str | None = None  # the file of the CA that signs the servers' certificates

    def __str__(self) -> str:
        """Return the address as a URL, without the password."""
        where = ",".join(f"{_written(host)}:{self.ports[place]}" for place, host in enumerate(self.hosts))
        return f"postgresql://{quote(self.user)}@{where}/{quote(self.name)}"

    @property
    def uri(self) -> str:
        """The address as other programs of PostgreSQL's take it, without the password."""
        ca = f"&sslrootcert={quote(self.ca, safe='')}" if self.ca else ""
        return f"{self}?sslmode={self.sslmode}{ca}"

    @property
    def sockets(self) -> bool:
        """Whether all hosts are Unix sockets, where the server may know the user without a password."""
        return all(host.startswith("/") for host in self.hosts)

    def as_role(self, user: str, password: str) -> Database:
        """Return the same database as another role sees it."""
        return replace(self, user=user, password=password)

    def parameters(self) -> dict[str, str]:
        """Return what libpq calls its parameters (PostgreSQL documentation, 34.1.2)."""
        given = {
            "host": ",".join(self.hosts), "port": ",".join(map(str, self.ports)), "dbname": self.name,
            "user": self.user, "sslmode": self.sslmode,
        }  # fmt: skip
        if self.password:
            given["password"] = self.password
        # `require` with a CA's file would be `verify-ca`.
        if ca := self.ca or (_bundle() if self.sslmode.startswith("verify") else None):
            given["sslrootcert"] = ca
        return given


def parse(url: str) -> Database:
    """Return what a URL of libpq's names. Raises AddressError."""
    if not url.isprintable() or " " in url:
        raise AddressError("has characters that no URL may have")
    scheme, separator, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres") or not separator:
        raise AddressError("is no URL of a PostgreSQL database")
    rest, _, query = rest.partition("?")
    where, _, name = rest.partition("/")
    login, at, places = where.rpartition("@")
    user, colon, _ = login.partition(":")
    if colon:
        raise AddressError("holds a password", "leave it out, and give it as DISPATCH_LEDGER_PASSWORD or a credential")
    if not at or not user:
        raise AddressError("names no user")
    if not name or "/" in name:
        raise AddressError("names no database", f"put its name at the end, as in {EXAMPLE}")
    found = [_place(place) for place in places.split(",")]
    hosts, ports = tuple(host for host, _ in found), tuple(port for _, port in found)
    mode = _ssl_mode(query)
    if mode == "disable" and not all(map(_local, hosts)):
        raise AddressError(
            "has sslmode=disable, and a host that is not this machine", "leave it out, or set sslmode=verify-full"
        )
    return Database(hosts, ports, unquote(name), unquote(user), mode)


def _place(text: str) -> tuple[str, int]:
    """Return host and port."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|%2[Ff][^:\[\]]*|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", text)
    if re.search("[<>]", text):
        raise AddressError(f"is still the placeholder {text}")
    if not found or not 1 <= int(found[2] or PORT) <= 65535:
        raise AddressError(
            f"has {text!r}, which is no host, or host:port",
            "an IPv6 address stands in brackets, and the directory of a socket begins with %2F",
        )
    return unquote(found[1]).strip("[]"), int(found[2] or PORT)


def _ssl_mode(query: str) -> str:
    given = dict(parse_qsl(query, keep_blank_values=True))
    mode = given.pop("sslmode", SSL_MODES[0])
    if given:
        remedy = "it may have sslmode; the CA's file is DISPATCH_LEDGER_CA, and Dispatch itself sets all else"
        raise AddressError(f"has the parameter {next(iter(given))}", remedy)
    if mode not in SSL_MODES:
        raise AddressError(f"has sslmode={mode}", f"set one of {', '.join(SSL_MODES)}")
    return mode


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.startswith("/") or host == "localhost"


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")


def _bundle() -> str | None:
    return next((path for path in _BUNDLES if Path(path).is_file()), None)
