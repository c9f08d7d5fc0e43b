"""What is wrong with the values of the role's variables, and what permissions follow from them. Plain functions."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Ansible loads this file by its path, and finds no other file beside it.
sys.path += [str(Path(__file__).resolve().parents[2] / role / "filter_utils") for role in ("app_runbook", "rabbitmq")]

from app_secrets import secret_faults
from certificate_names import file_faults, name_faults

_PLUGIN = re.compile(r"[a-z][a-z0-9_]*")
_APPLIES_TO = ("queues", "exchanges", "all", "classic_queues", "quorum_queues", "streams")
_DISCOVERIES = ("classic_config", "aws")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d")
_TAG = re.compile(r"[\w-]{1,128}", re.ASCII)
_VERSION = re.compile(r"(\d+:)?\d+(\.\d+)+([.+~-][\w.+~-]*)?", re.ASCII)
# What RabbitMQ's Erlang takes for a cookie: an atom (erlang.org, "Distributed Erlang").
_COOKIE = re.compile(r"[\x21-\x7e]{1,255}")
# One that Erlang made itself looks so, and Debian's package puts another in its place whenever it is installed.
_REPLACED = re.compile(r"[A-Z]{20}")
_OCTETS = 255  # of a name: AMQP 0-9-1, 4.2.5.3, short strings

Faults = Iterator[str]


def rabbitmq_faults(values: dict[str, Any], host: str, inventory: str) -> list[str]:
    """Return all that is wrong with the role's values, one sentence or two each: variable, fault, what to do.

    `values` has every variable by its full name, None where it is not set; `host` is the inventory's name for the
    host, and `inventory` is the inventory's directory.
    """
    return [
        *_name("rabbitmq_user", values["rabbitmq_user"], "Set it to the user RoboShop's services log in as, or leave "
               "it out for roboshop."),
        *_password("rabbitmq_password", values["rabbitmq_password"], "the password RoboShop's services log in with",
                   inventory),
        *_monitoring(values, inventory),
        *_tags(values["rabbitmq_user_tags"]),
        *_name("rabbitmq_vhost", values["rabbitmq_vhost"], "Set it to a virtual host's name, or leave it out for /."),
        *_cluster(values, host),
        *(_cookie(str(values["rabbitmq_cookie_file"])) if values["rabbitmq_cluster"] else ()),
        *_discovery(values),
        *_version("rabbitmq_version", values["rabbitmq_version"], "3.10.8"),
        *_version("rabbitmq_erlang_version", values["rabbitmq_erlang_version"], "25.2.3"),
        *_list("rabbitmq_names", values["rabbitmq_names"], _exchange_or_queue),
        *_list("rabbitmq_plugins", values["rabbitmq_plugins"], _plugin),
        *_list("rabbitmq_policies", values["rabbitmq_policies"], _policy),
        *_address("rabbitmq_management_address", values["rabbitmq_management_address"]),
        *_address("rabbitmq_prometheus_address", values["rabbitmq_prometheus_address"]),
        *_tls(values, host),
    ]  # fmt: skip


def rabbitmq_permissions(names: list[str]) -> dict[str, str]:
    """Return the permissions a service needs for exchanges and order queues of these names.

    Regular expressions of what it may configure, write and read (rabbitmq.com, "Access Control"). They include the
    queues Dispatch names after an order queue (orders.dead, orders.retry.5s) and, for writing, the default exchange,
    by which it puts orders there.
    """
    escaped = "|".join(re.sub(r"([][\\.^$*+?(){}|])", r"\\\1", name) for name in names)
    own = rf"({escaped})(\..*)?"
    return {"configure": f"^{own}$", "write": rf"^({own}|amq\.default)$", "read": f"^{own}$"}


def _monitoring(values: dict[str, Any], inventory: str) -> Faults:
    user, password = values["rabbitmq_monitoring_user"], values["rabbitmq_monitoring_password"]
    if user == "":
        return
    yield from _name("rabbitmq_monitoring_user", user, "Set it to a user of its own, or leave it out for none.")
    if user == values["rabbitmq_user"]:
        yield (
            "rabbitmq_monitoring_user is rabbitmq_user, which would lose its permissions. Set it to another, or leave "
            "it out for none."
        )
    yield from _password(
        "rabbitmq_monitoring_password", password, "the password of rabbitmq_monitoring_user", inventory
    )


def _password(variable: str, password: object, what: str, inventory: str) -> Faults:
    if common := secret_faults(variable, password, what, inventory):
        yield from common
        return
    password = str(password)
    if any(not character.isprintable() and not character.isspace() for character in password.strip()) or any(
        ord(character) < 0x20 for character in password
    ):
        yield (
            f"{variable} holds a control character (a line end, perhaps, of a file it was read from), and "
            "RabbitMQ would get another password. Choose one without."
        )
    elif password != password.strip():
        yield (
            f"{variable} begins or ends with white space, which rabbitmqctl takes away, so that RabbitMQ would "
            "get another password. Choose one without."
        )


def _name(variable: str, name: object, remedy: str) -> Faults:
    if not isinstance(name, str):
        yield f"{variable} is {name!r}, which is no text. Put it in quotes. {remedy}"
    elif not name:
        yield f"{variable} is empty. {remedy}"
    elif name != name.strip() or not name.isprintable():
        yield f"{variable} is {name!r}, with white space around it or a control character in it. {remedy}"
    elif name.startswith("-"):
        yield f"{variable} is {name}, which rabbitmqctl would take for an option. {remedy}"
    elif len(name.encode()) > _OCTETS:
        yield f"{variable} has {len(name.encode())} octets; RabbitMQ takes {_OCTETS}. {remedy}"


def _list(variable: str, value: object, faults: Callable[[str, Any], Faults]) -> Faults:
    if not isinstance(value, list | tuple):
        yield f"{variable} is {value!r}, which is no list. Write it as a list: [first, second]"
        return
    for item in value:
        yield from faults(variable, item)


def _exchange_or_queue(variable: str, name: object) -> Faults:
    yield from _name(variable, name, "Give the names of the exchanges and of the order queues.")


def _plugin(variable: str, name: object) -> Faults:
    if not isinstance(name, str) or not _PLUGIN.fullmatch(name):
        yield (
            f"{variable} names {name!r}, and no plugin's name looks like that. Write it as `rabbitmq-plugins list` "
            "does, for example rabbitmq_management."
        )


def _tags(tags: object) -> Faults:
    if not isinstance(tags, str):
        yield f"rabbitmq_user_tags is {tags!r}, which is no text. Write the tags in one string, separated by spaces."
        return
    for tag in tags.split():
        if not re.fullmatch(r"[A-Za-z_][\w.-]*", tag):
            yield f"rabbitmq_user_tags names {tag!r}, which is no tag. Use words such as monitoring or management."


def _policy(variable: str, policy: object) -> Faults:
    if not isinstance(policy, dict):
        yield f"{variable} has {policy!r}, which is no policy. Give each a name, a pattern and a definition."
        return
    name = policy.get("name")
    yield from _name(f"a policy's name in {variable}", name, "Set it to a name of your choice.")
    if not isinstance(policy.get("pattern"), str) or policy["pattern"].startswith("-"):
        yield f"The policy {name} in {variable} has no pattern. Set it to a regular expression, such as ^orders$."
    if not isinstance(policy.get("definition"), dict) or not policy["definition"]:
        yield f"The policy {name} in {variable} defines nothing. Give its definition, such as {{max-length: 100000}}."
    if policy.get("apply_to", "queues") not in _APPLIES_TO:
        yield f"The policy {name} in {variable} applies to {policy['apply_to']}. Choose of {', '.join(_APPLIES_TO)}."
    if not isinstance(policy.get("priority", 0), int) or isinstance(policy.get("priority", 0), bool):
        yield f"The policy {name} in {variable} has the priority {policy['priority']!r}. Set it to a whole number."


def _cluster(values: dict[str, Any], host: str) -> Faults:
    cluster, hosts = values["rabbitmq_cluster"], values["rabbitmq_cluster_hosts"]
    if not isinstance(hosts, list | tuple):
        yield f"rabbitmq_cluster_hosts is {hosts!r}, which is no list. Write it as a list: [first, second]"
    elif cluster is None and len(hosts) > 1:
        yield (
            f"There are several brokers, {', '.join(hosts)}, and nothing says whether they are one. "
            "Set rabbitmq_cluster: true to make them one cluster, or false if each is a broker of its own: Dispatch "
            "then consumes from the one in dispatch_amqp_host alone."
        )
    elif cluster and host not in hosts:
        yield f"rabbitmq_cluster_hosts is {', '.join(hosts)}, without {host}. Add it, or take it out of the group."

    if not cluster and values["rabbitmq_cluster_tls"]:
        yield (
            "rabbitmq_cluster_tls is true, and rabbitmq_cluster is not, so there is no other node to speak to. Set "
            "rabbitmq_cluster: true, or leave it out; clients' TLS is rabbitmq_tls."
        )


def _cookie(file: str) -> Faults:
    """The faults of the file with the cookie, which is not shown, or of the place where it is to be made."""
    path = Path(file).expanduser()
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if there != path:
        if not os.access(there, os.W_OK) or not there.is_dir():
            yield (
                f"rabbitmq_cookie_file is {file}, which can't be made on this controller: {there} takes no file. Set "
                "it to one that you can write."
            )
        return
    try:
        cookie = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        yield f"rabbitmq_cookie_file is {file}, which can't be read ({reason}). Set it to a file that holds the cookie."
        return
    if not _COOKIE.fullmatch(cookie):
        yield (
            f"rabbitmq_cookie_file is {file}, and the {len(cookie)} characters in it are no Erlang cookie: one to 255 "
            "without white space, in ASCII. Copy the one of a running cluster there "
            "(/var/lib/rabbitmq/.erlang.cookie); for a new cluster, remove the file, and one is generated."
        )
    elif _REPLACED.fullmatch(cookie):
        yield (
            f"rabbitmq_cookie_file is {file} and holds 20 capital letters, as Erlang makes a cookie by itself. "
            "Debian's package replaces such a one on each host whenever it is installed. For a new cluster, remove the "
            "file, and another is generated."
        )


def _discovery(values: dict[str, Any]) -> Faults:
    how, region = values["rabbitmq_peer_discovery"], values["rabbitmq_aws_region"]
    tags, group = values["rabbitmq_aws_tags"], values["rabbitmq_aws_autoscaling_group"]
    if how not in _DISCOVERIES:
        yield f"rabbitmq_peer_discovery is {how!r}. Choose of {', '.join(_DISCOVERIES)}."
    elif how == "aws" and not values["rabbitmq_cluster"]:
        yield (
            "rabbitmq_peer_discovery is aws, and rabbitmq_cluster is not true, so there is no node to find. Set "
            "rabbitmq_cluster: true, or leave it out."
        )
    elif how == "aws" and bool(tags) == bool(group):
        yield (
            f"rabbitmq_peer_discovery is aws, and {'both' if group else 'neither'} rabbitmq_aws_tags and "
            "rabbitmq_aws_autoscaling_group say which instances are meant. Set one of them."
        )
    if region != "" and not (isinstance(region, str) and _REGION.fullmatch(region)):
        yield f"rabbitmq_aws_region is {region!r}, which is no region. Set it to one such as eu-central-1."
    if not isinstance(tags, dict):
        yield f"rabbitmq_aws_tags is {tags!r}, which names no tags. Write them as {{Role: rabbitmq}}."
        return
    for name, value in tags.items():
        if not isinstance(name, str) or not _TAG.fullmatch(name):
            yield (
                f"rabbitmq_aws_tags names {name!r}, and RabbitMQ's configuration can't hold that. Use tags whose names "
                "have letters, digits, dashes and underscores."
            )
        if not isinstance(value, str) or value != value.strip() or not value.isprintable() or not value or "#" in value:
            yield f"rabbitmq_aws_tags gives {name} the value {value!r}. Set it to text in one line, without # in it."


def _version(variable: str, version: object, example: str) -> Faults:
    if version == "":
        return
    if not isinstance(version, str):
        yield f'{variable} is {version!r}, a number to YAML, to which 3.10 is 3.1. Put it in quotes: "{example}".'
    elif not _VERSION.fullmatch(version):
        yield (
            f"{variable} is {version!r}, which is no version. Set it to one such as {example}, or to the package's in "
            "full, as `apt-cache madison` shows it."
        )


def _address(variable: str, address: object) -> Faults:
    if address == "":
        return
    try:
        ipaddress.ip_address(str(address))
    except ValueError:
        yield (
            f"{variable} is {address!r}, which is no IP address. Set it to one of the broker's own, such as 127.0.0.1, "
            "or leave it empty for all of them."
        )


def _tls(values: dict[str, Any], host: str) -> Faults:
    if values["rabbitmq_tls"] or values["rabbitmq_cluster_tls"]:
        yield from file_faults(host)
        yield from _list("rabbitmq_tls_names", values["rabbitmq_tls_names"], _certificate_name)
    if not values["rabbitmq_tls"]:
        if not values["rabbitmq_clear_listener"]:
            yield (
                "rabbitmq_clear_listener is false and rabbitmq_tls is false, too, so RabbitMQ would listen nowhere. "
                "Set rabbitmq_tls: true, or leave rabbitmq_clear_listener out."
            )
        if values["rabbitmq_tls_verify_clients"]:
            yield (
                "rabbitmq_tls_verify_clients is true and rabbitmq_tls is false, so no client would be verified. Set "
                "rabbitmq_tls: true, too."
            )
        return
    yield from _list("rabbitmq_tls_clients", values["rabbitmq_tls_clients"], _client)


def _certificate_name(variable: str, name: object) -> Faults:
    yield from name_faults(variable, name, "clients reach the broker")


def _client(variable: str, name: object) -> Faults:
    if not isinstance(name, str) or not re.fullmatch(r"(?!ca\Z)[\w-][\w .@-]{,99}", name):
        yield (
            f"{variable} names {name!r}, which no certificate's file can bear. Use letters, digits, dots and dashes; "
            "ca is the CA's."
        )


class FilterModule:
    """Hands the functions to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rabbitmq_faults": rabbitmq_faults, "rabbitmq_permissions": rabbitmq_permissions}
