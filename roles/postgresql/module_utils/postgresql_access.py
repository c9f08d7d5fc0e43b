"""Who may log in to a server, as pg_hba.conf and pg_ident.conf say it. For Python 3.9 and later."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from typing import Any

HEADER = "# Written by the role postgresql; changes made here by hand are overwritten.\n"
_MAP = "roboshop"


class UnresolvedError(Exception):
    """A name that the host can't resolve; the message says which."""


def networks(places: Iterable[str]) -> list[str]:
    """Return addresses, networks and names as networks, each once and in order. Raises UnresolvedError.

    The server itself would look a name up at each login, and would ask for the way back, too.
    """
    return sorted({network for place in places for network in _networks(place)})


def _networks(place: str) -> list[str]:
    try:
        return [str(ipaddress.ip_network(place, strict=False))]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(place, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnresolvedError(
            f"This host can't resolve {place}, from where somebody is to log in. Correct postgresql_clients, or the "
            "host's address in the inventory, or give the name an address in /etc/hosts"
        ) from error
    return [str(ipaddress.ip_network(str(address[0]).partition("%")[0])) for *_, address in found]


def hba(wanted: Mapping[str, Any]) -> str:
    """Return who may log in (PostgreSQL documentation, 21.1): nobody else, and from elsewhere by TLS alone."""
    lines = [f"local all postgres peer map={_MAP}", f'local "{wanted["database"]}" "{wanted["owner"]}" peer map={_MAP}']
    # A replica may become the primary, so each server lets in all.
    for network in networks(wanted["clients"]):
        lines.append(f'hostssl "{wanted["database"]}" "{wanted["user"]}" {network} scram-sha-256')
    for network in networks(wanted["nodes"]):
        lines.append(f'hostssl replication "{wanted["replication_user"]}" {network} scram-sha-256')
    return HEADER + "".join(f"{line}\n" for line in lines)


def ident(wanted: Mapping[str, Any]) -> str:
    """Return which user of the host is which role of the server's; root could be anybody anyway."""
    pairs = (("postgres", "postgres"), ("root", "postgres"), ("root", wanted["owner"]))
    return HEADER + "".join(f"{_MAP} {user} {role}\n" for user, role in pairs)


def conninfo(wanted: Mapping[str, Any], ca: str) -> str:
    """Return a replica's setting of how it reaches the primary."""
    values = {
        "host": wanted["primary"], "user": wanted["replication_user"], "password": wanted["replication_password"],
        "application_name": wanted["name"], "sslmode": "verify-full", "sslrootcert": ca,
    }  # fmt: skip
    quoted = " ".join(f"{name}={_quoted(value)}" for name, value in values.items())
    return f"{HEADER}primary_conninfo = {_quoted(quoted, doubled=True)}\n"


def _quoted(text: str, doubled: bool = False) -> str:
    """Return a text in quotes, as libpq takes it (34.1.1), or with `doubled` ones as postgresql.conf does (20.1.2)."""
    escaped = text.replace("\\", "\\\\").replace("'", "''" if doubled else "\\'")
    return f"'{escaped}'"
