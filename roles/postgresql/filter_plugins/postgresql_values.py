"""What is wrong with the values of the role's variables, and the settings they make. Plain functions."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Ansible loads this file by its path, and finds no other file beside it. The role rabbitmq issues the certificates.
sys.path += [str(Path(__file__).resolve().parents[2] / role / "filter_utils") for role in ("app_runbook", "rabbitmq")]

from app_secrets import secret_faults
from certificate_names import file_faults, is_host, name_faults

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")  # which needs quotes nowhere (PostgreSQL documentation, 4.1.1)
_SETTING = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
# What the role sets by its own variables, or must not be without.
_OURS = re.compile(
    r"ssl|ssl_(ca|cert|key)_file|hba_file|ident_file|primary_conninfo|cluster_name|port|data_directory|include\w*"
)

Faults = Iterator[str]


def postgresql_faults(values: Mapping[str, Any], host: str, inventory: str) -> list[str]:
    """Return all that is wrong with the role's values, one sentence or two each: variable, fault, what to do.

    `values` has every variable by its full name, None where it is not set; `host` is the inventory's name for the
    host, and `inventory` is the inventory's directory.
    """
    return [
        *_names(values),
        *_password("postgresql_password", values["postgresql_password"], "Dispatch logs in with", inventory),
        *_servers(values, host, inventory),
        *_clients(values["postgresql_clients"]),
        *_address("postgresql_address", values["postgresql_address"]),
        *_settings(values["postgresql_settings"]),
        *_certificate(values["postgresql_tls_names"], host),
        *_artifact(values["postgresql_artifact"]),
    ]


def postgresql_settings(settings: Mapping[str, object]) -> str:
    """Return settings as postgresql.conf has them (PostgreSQL documentation, 20.1.2)."""
    lines = [f"{name} = '{_escaped(_written(value))}'\n" for name, value in settings.items()]
    return "# Written by the role postgresql; changes made here by hand are overwritten.\n" + "".join(lines)


def postgresql_reached_at(host: Mapping[str, Any]) -> str:
    """Return the address, or else the name, at which a host is reached, by its variables."""
    return str(host.get("postgresql_address") or host.get("ansible_host") or host["inventory_hostname"])


def _written(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "''")


def _names(values: Mapping[str, Any]) -> Faults:
    variables = ("postgresql_database", "postgresql_user", "postgresql_owner", "postgresql_replication_user")
    for variable in variables:
        name = values[variable]
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("pg_"):
            yield (
                f"{variable} is {name!r}. Set it to small letters, digits and underscores that begin with no "
                "digit and not with pg_, or leave it out."
            )
    roles = [*(values[variable] for variable in variables[1:]), "postgres"]
    if len(set(roles)) < len(roles):
        yield (
            "postgresql_user, postgresql_owner, postgresql_replication_user and the superuser, postgres, are not all "
            "different, so that one would have the rights of another. Give each a name of its own, or leave them out."
        )


def _password(variable: str, password: object, what: str, inventory: str) -> Faults:
    if common := secret_faults(variable, password, f"the password {what}", inventory):
        yield from common
    elif any(ord(character) < 0x20 or ord(character) == 0x7F for character in str(password)):
        yield (
            f"{variable} holds a control character (a line end, perhaps, of a file it was read from). Choose one "
            "without."
        )


def _servers(values: Mapping[str, Any], host: str, inventory: str) -> Faults:
    hosts, primary, rebuild = (values[f"postgresql_{name}"] for name in ("hosts", "primary", "rebuild"))
    if not isinstance(hosts, list | tuple) or host not in hosts:
        yield f"postgresql_hosts is {hosts!r}, which is no list with {host}. Set it to the servers of one ledger."
        return
    if primary not in hosts:
        yield (
            f"postgresql_primary is {primary}, which is none of these servers: {', '.join(hosts)}. Set it to the one "
            "that takes writes."
        )
    if len(hosts) > 1:
        password = values["postgresql_replication_password"]
        yield from _password("postgresql_replication_password", password, "replicas log in with", inventory)
    elif values["postgresql_synchronous"]:
        yield (
            "postgresql_synchronous is true, and no replica is there for a commit to wait for. Leave it out, or add "
            "a server to the group postgresql."
        )
    if rebuild and (rebuild not in hosts or rebuild == primary):
        yield f"postgresql_rebuild is {rebuild}, which is no replica of {primary}. Set it to the name of one."


def _clients(clients: object) -> Faults:
    if not isinstance(clients, list | tuple):
        yield f"postgresql_clients is {clients!r}, which is no list. Write it as a list: [10.0.2.11, 10.0.2.12]"
        return
    for client in clients:
        try:
            ipaddress.ip_network(str(client), strict=False)
        except ValueError:
            yield from _address("postgresql_clients", client)


def _address(variable: str, address: object) -> Faults:
    if not is_host(address):
        yield f"{variable} has {address!r}, which is neither a host's name nor an address. Correct it, or leave it out."


def _settings(settings: object) -> Faults:
    if not isinstance(settings, Mapping):
        yield "postgresql_settings is not a dictionary. Set it to settings by name, such as {max_connections: 200}."
        return
    for name, value in settings.items():
        if not _SETTING.fullmatch(str(name)):
            yield f"postgresql_settings has {name!r}, and no setting is named like that. Write it as the manual does."
        elif _OURS.fullmatch(str(name)):
            yield f"postgresql_settings has {name}, which this role sees to itself. Leave it out."
        elif not isinstance(value, str | int | float) or re.search(r"[\r\n\0]", str(value)):
            yield f"postgresql_settings.{name} is no value of one line. Set it to a number, true, false or a text."


def _certificate(names: object, host: str) -> Faults:
    yield from file_faults(host)
    if not isinstance(names, list | tuple):
        yield f"postgresql_tls_names is {names!r}, which is no list. Write it as a list: [first, second]"
        return
    for name in names:
        yield from name_faults("postgresql_tls_names", name, "Dispatch reaches the server")


def _artifact(path: object) -> Faults:
    if not Path(str(path)).is_file():
        yield f"postgresql_artifact is {path}, and there is no such file. Build dist/dispatch.zip by `make artifact`."


class FilterModule:
    """Hands the functions to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "postgresql_faults": postgresql_faults,
            "postgresql_settings": postgresql_settings,
            "postgresql_reached_at": postgresql_reached_at,
        }
