"""Who may log in to the database, as its files say it: those who are named, from elsewhere by TLS alone."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from ansible.module_utils import postgresql_access as access

WANTED: dict[str, Any] = {
    "database": "dispatch",
    "user": "dispatch",
    "owner": "dispatch_owner",
    "clients": ["10.0.2.12", "10.0.2.11", "10.0.2.11/32", "2001:db8::5"],
    "replication_user": "replicator",
    "replication_password": r"it's \ a ''secret''",
    "nodes": ["10.0.4.11"],
    "name": "db-2",
    "primary": "10.0.4.11",
}


def test_nobody_may_log_in_who_is_not_named_and_nobody_in_clear() -> None:
    first, *rest = access.hba(WANTED).splitlines()
    assert f"{first}\n" == access.HEADER
    assert rest == [
        "local all postgres peer map=roboshop",
        'local "dispatch" "dispatch_owner" peer map=roboshop',
        'hostssl "dispatch" "dispatch" 10.0.2.11/32 scram-sha-256',
        'hostssl "dispatch" "dispatch" 10.0.2.12/32 scram-sha-256',
        'hostssl "dispatch" "dispatch" 2001:db8::5/128 scram-sha-256',
        'hostssl replication "replicator" 10.0.4.11/32 scram-sha-256',
    ]


def test_root_and_the_superuser_alone_are_known_by_who_they_are() -> None:
    assert access.ident(WANTED).splitlines()[1:] == [
        "roboshop postgres postgres",
        "roboshop root postgres",
        "roboshop root dispatch_owner",
    ]


def test_a_name_is_resolved_once_and_one_that_can_t_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if name != "dispatch-1":
            raise socket.gaierror("no such name")
        addresses = ("10.0.2.11", "10.0.2.11", "fe80::1%eth0")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert access.networks(["dispatch-1"]) == ["10.0.2.11/32", "fe80::1/128"]
    with pytest.raises(access.UnresolvedError, match="can't resolve dispatch-2, from where somebody is to log in"):
        access.networks(["dispatch-1", "dispatch-2"])


def test_a_replica_s_way_to_the_primary_is_read_as_it_is_meant() -> None:
    line = access.conninfo(WANTED, "/etc/tls/ca.pem").splitlines()[1]
    name, _, value = line.partition(" = ")
    assert name == "primary_conninfo"
    # As the server reads its configuration, and then libpq what that says.
    read = value[1:-1].replace("''", "'").replace("\\\\", "\\")
    library = pytest.importorskip("psycopg.conninfo", reason="install libpq5", exc_type=ImportError)
    assert library.conninfo_to_dict(read) == {
        "host": "10.0.4.11",
        "user": "replicator",
        "password": WANTED["replication_password"],
        "application_name": "db-2",
        "sslmode": "verify-full",
        "sslrootcert": "/etc/tls/ca.pem",
    }
