"""What is wrong with the values of the role's variables, and the configuration they make. Plain functions."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

# Ansible loads this file by its path, and finds no other file beside it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "rabbitmq" / "filter_utils"))

from certificate_names import is_host

DISPATCH_PORT, RABBITMQ_PORT, EXPORTER_PORT, PROMETHEUS_PORT, ALERTMANAGER_PORT = 9672, 15692, 9100, 9090, 9093
INTERVAL = "15s"  # between two looks
SECRETS = "/etc/prometheus/secrets"
NOBODY = "nobody"  # the receiver where none is given: alerts are shown, and sent nowhere
_HEADER = "# Written by the role monitoring; changes made here by hand are overwritten.\n"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
# Settings of receivers that hold a secret (prometheus.io, "Alerting configuration").
_SECRET = re.compile(r"(auth_)?password|credentials|bot_token|routing_key|service_key|api_key|token|user_key")

Faults = Iterator[str]
Targets = Mapping[str, Mapping[str, str]]  # by the job, each host's name and where it is asked


def monitoring_faults(values: Mapping[str, Any]) -> list[str]:
    """Return all that is wrong with the role's values, one sentence or two each: variable, fault, what to do.

    `values` has every variable by its full name.
    """
    return [
        *_address("monitoring_address", values["monitoring_address"]),
        *_targets(values["monitoring_targets"]),
        *_receivers(values["monitoring_receivers"], values["monitoring_routes"], values["monitoring_secrets"]),
    ]


def monitoring_exporter_faults(values: Mapping[str, Any]) -> list[str]:
    """Return all that is wrong with the values for a host that is watched; as in `monitoring_faults`."""
    address = values["monitoring_exporter_address"]
    return list(_address("monitoring_exporter_address", address)) if address else []


def monitoring_targets(hosts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """Return where each host of the inventory is asked, by job and the host's name.

    `hosts` has the variables of the hosts of the group dispatch, of the group rabbitmq, and of all that have a node
    exporter, by job. A host of Dispatch's whose metrics can't be reached from elsewhere has "".
    """
    asked: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "dispatch": _dispatch,
        "rabbitmq": partial(_at, "rabbitmq_prometheus_address", RABBITMQ_PORT),
        "node": partial(_at, "monitoring_exporter_address", EXPORTER_PORT),
    }
    return {job: {_name(host): place(host) for host in hosts[job]} for job, place in asked.items() if hosts[job]}


def monitoring_prometheus(targets: Targets, name: str, address: str, queue: str, vhost: str) -> str:
    """Return prometheus.yml for the host `name`, on which Prometheus and Alertmanager listen at `address`.

    `queue` is the order queue's name, from which those of Dispatch's own queues are made.
    """
    jobs = [_job(job, hosts) for job, hosts in targets.items()]
    if "rabbitmq" in targets:
        jobs.append(_queues(targets["rabbitmq"], queue, vhost))
    own = {"prometheus": PROMETHEUS_PORT, "alertmanager": ALERTMANAGER_PORT}
    jobs += [_job(job, {name: monitoring_joined(address, port)}) for job, port in own.items()]
    alertmanager = {"static_configs": [{"targets": [monitoring_joined(address, ALERTMANAGER_PORT)]}]}
    return _written(
        {
            "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": ["rules/*.yml"],
            "alerting": {"alertmanagers": [alertmanager]},
            "scrape_configs": jobs,
        }
    )


def monitoring_alertmanager(receivers: list[Mapping[str, Any]], routes: list[Mapping[str, Any]]) -> str:
    """Return alertmanager.yml. Alerts that no route takes go to the first receiver."""
    return _written(
        {
            "route": {
                "receiver": receivers[0]["name"] if receivers else NOBODY,
                "group_by": ["alertname"],
                "group_wait": "10s",
                "group_interval": "1m",
                "repeat_interval": "4h",
                "routes": routes,
            },
            # A cause keeps what follows from it from ringing, too.
            "inhibit_rules": [
                {
                    "source_matchers": ['alertname="HostDown"'],
                    "target_matchers": ['alertname=~"(Dispatch|RabbitMQ).+"'],
                    "equal": ["instance"],
                },
                {
                    "source_matchers": ['alertname="RabbitMQDown"'],
                    "target_matchers": ['alertname=~"DispatchNotConsuming|RabbitMQQueueUnavailable"'],
                },
            ],
            "receivers": receivers or [{"name": NOBODY}],
        }
    )


def monitoring_joined(address: str, port: int) -> str:
    """Return address:port, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _job(name: str, hosts: Mapping[str, str]) -> dict[str, Any]:
    return {"job_name": name, "static_configs": _static(hosts)}


def _static(hosts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each host by its name in the inventory, so that an alert names what a play can be limited to."""
    return [{"targets": [target], "labels": {"instance": name}} for name, target in hosts.items()]


def _queues(brokers: Mapping[str, str], queue: str, vhost: str) -> dict[str, Any]:
    """The job that asks for the queues that matter, and marks each by what it is there for.

    RabbitMQ answers for each object alone where it is asked for families (rabbitmq.com, "Monitoring with Prometheus").
    """
    own = re.escape(queue)
    stages = {"orders": own, "dead": rf"{own}\.dead", "retry": rf"{own}\.retry\..+"}
    marks = [
        {"source_labels": ["queue"], "regex": regex, "target_label": "stage", "replacement": stage}
        for stage, regex in stages.items()
    ]
    kept = {"source_labels": ["__name__", "stage"], "regex": "rabbitmq_detailed_queue_.+;", "action": "drop"}
    return {
        "job_name": "rabbitmq-queues",
        "metrics_path": "/metrics/detailed",
        "params": {"vhost": [vhost], "family": ["queue_coarse_metrics", "queue_consumer_count"]},
        "static_configs": _static(brokers),
        "metric_relabel_configs": [*marks, kept],
    }


def _written(document: Mapping[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(_plain(document), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    """A value of Ansible's as one of Python's own types, which YAML writes as they are."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def _name(host: Mapping[str, Any]) -> str:
    return str(host["inventory_hostname"])


def _at(variable: str, port: int, host: Mapping[str, Any]) -> str:
    return monitoring_joined(str(host.get(variable) or _reached_at(host)), port)


def _reached_at(host: Mapping[str, Any]) -> str:
    return str(host.get("monitoring_reached_at") or host.get("ansible_host") or _name(host))


def _dispatch(host: Mapping[str, Any]) -> str:
    place = str(host.get("dispatch_metrics") or "")
    if not place or place.startswith("unix:"):
        return ""
    found = re.fullmatch(r"(?P<host>%[^:]+|\[.+\]|[^:]+)(?::(?P<port>[0-9]+))?", place)
    if not found:
        return ""  # which the role dispatch refuses
    port = int(found["port"] or DISPATCH_PORT)
    return monitoring_joined(_reached_at(host) if place.startswith("%") else found["host"].strip("[]"), port)


def _address(variable: str, address: object) -> Faults:
    if not is_host(address):
        yield f"{variable} is {address!r}, which is neither a host's name nor an address. Correct it, or leave it out."
    elif variable == "monitoring_address" and _is_wildcard(str(address)):
        yield (
            f"{variable} is {address}, which is every address of the host, and nobody has to log in there. Set it to "
            "one, or leave it out for 127.0.0.1, and reach it by ssh -L 9090:127.0.0.1:9090."
        )


def _is_wildcard(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False


def _targets(targets: object) -> Faults:
    if not isinstance(targets, Mapping) or not all(isinstance(hosts, Mapping) for hosts in targets.values()):
        yield (
            "monitoring_targets is no dictionary of dictionaries. Write it as {dispatch: {dispatch-1: "
            "'10.0.2.11:9672'}}."
        )
        return
    for job, hosts in targets.items():
        for name, target in hosts.items():
            if job == "dispatch" and not target:
                yield (
                    f"dispatch_metrics of {name} names nothing that can be reached from elsewhere. Set it in the "
                    "inventory, to the host's own address for example, and run playbooks/dispatch.yml; or say in "
                    "monitoring_targets where a proxy answers for it."
                )
            elif not re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", str(target)):
                yield f"monitoring_targets.{job}.{name} is {target!r}. Set it to address:port."


def _receivers(receivers: object, routes: object, secrets: object) -> Faults:
    lists = {"monitoring_receivers": receivers, "monitoring_routes": routes}
    for variable, value in lists.items():
        if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
            yield f"{variable} is no list of dictionaries. Write it as Alertmanager's documentation has it."
            return
    assert isinstance(receivers, list | tuple)  # noqa: S101 - as just seen
    for number, receiver in enumerate(receivers):
        if not receiver.get("name"):
            yield f"monitoring_receivers[{number}] has no name. Give it one."
        for setting in _secret_settings(receiver):
            yield (
                f"monitoring_receivers[{number}] has {setting}, which is a secret in a file that is shown. Put it into "
                f"monitoring_secrets, and its path, {SECRETS}/<name>, into {setting}_file."
            )
    if not isinstance(secrets, Mapping):
        yield "monitoring_secrets is no dictionary. Write it as {name: secret}, in a vault."
        return
    for name, secret in secrets.items():
        if not _NAME.fullmatch(str(name)) or str(name).startswith("."):
            yield f"monitoring_secrets has the name {name!r}. Take letters, digits, dots, dashes and underscores."
        elif not isinstance(secret, str) or not secret:
            yield f"monitoring_secrets.{name} is no text. Put it in quotes."


def _secret_settings(value: object) -> Iterator[str]:
    """Yield the settings of a receiver that hold a secret, and for which there is one with _file at its end."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if _SECRET.fullmatch(str(name)):
                yield str(name)
            else:
                yield from _secret_settings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _secret_settings(one)


class FilterModule:
    """Hands the functions to Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "monitoring_faults": monitoring_faults,
            "monitoring_exporter_faults": monitoring_exporter_faults,
            "monitoring_targets": monitoring_targets,
            "monitoring_prometheus": monitoring_prometheus,
            "monitoring_alertmanager": monitoring_alertmanager,
            "monitoring_joined": monitoring_joined,
        }
