"""The network: can RabbitMQ be reached?"""

from __future__ import annotations

import shlex
from functools import partial

from ..broker import Attempt
from ..case import Case
from ..table import BROKER, ERROR, WARNING, Check, Finding
from . import needs
from .fixes import provision


def reached(kind: str, case: Case) -> Finding | None:
    """An address that does not work; where another one of AMQP_HOST does, that is for the check `address-idle`."""
    if case.broker.host is not None:
        return None
    first = case.broker.attempts[0]
    return _network(case, first) if first.kind == kind else None


def address_idle(case: Case) -> Finding | None:
    failed = [attempt for attempt in case.broker.attempts if attempt.kind]
    return _network(case, failed[0]) if failed and case.broker.host else None


def _network(case: Case, attempt: Attempt) -> Finding:
    port = case.broker.settings.port
    if attempt.kind == "broker-refused":
        if case.broker.host:
            # As a member of a cluster it may run and yet accept nothing, for which a start would do nothing.
            cause = "RabbitMQ does not run there, or was cut off from the other brokers and has not come back."
            return Finding(attempt.evidence, cause, "systemctl restart rabbitmq-server", BROKER)
        return Finding(attempt.evidence, "RabbitMQ does not run there, or listens on another port.",
                       "systemctl start rabbitmq-server", BROKER)  # fmt: skip
    if attempt.kind == "broker-filtered":
        if case.host.on_ec2:
            cause = "RabbitMQ's security group, the first of that address, has to let this host in"
            return Finding(attempt.evidence, f"{cause} on port {port}; the fix takes credentials for AWS.",
                           _authorize(case, attempt.host), BROKER)  # fmt: skip
        rule = f"INPUT -p tcp -s {shlex.quote(case.broker.own_address)} --dport {port} -j ACCEPT"
        allow = f"iptables -C {rule} || iptables -I {rule}"
        cause = "A firewall is in the way, or no host has that address; on EC2 RabbitMQ's security group has to let "
        return Finding(attempt.evidence, f"{cause}this host in on port {port}.", allow, BROKER)
    if attempt.kind == "broker-unresolvable":
        return provision(attempt.evidence, "The name in AMQP_HOST does not exist for this host: "
                          "correct dispatch_amqp_host in the inventory, or this host's DNS.")  # fmt: skip
    return provision(attempt.evidence, "No route leads there: correct dispatch_amqp_host in the inventory.")


def _authorize(case: Case, host: str) -> str:
    """Let this host in; where the rule is there already, EC2 refuses a second one and nothing changes."""
    own, port = case.broker.own_address, case.broker.settings.port
    address = shlex.quote(f"Name=addresses.private-ip-address,Values={case.broker.address(host)}")
    find = f"aws ec2 describe-network-interfaces --filters {address} --output text"
    group = f"$({find} --query 'NetworkInterfaces[0].Groups[0].GroupId')"
    allow = f'aws ec2 authorize-security-group-ingress --group-id "{group}" --protocol tcp --port {port}'
    return f"{allow} --cidr {shlex.quote(f'{own}/32')}"


def not_amqp(case: Case) -> Finding | None:
    found = case.broker.login
    if found.kind != "not-amqp":
        return None
    return provision(found.evidence, "What answers there is not RabbitMQ, or TLS is on at one end only.")


CHECKS = (
    Check("broker-unresolvable", "network", ERROR, "AMQP_HOST can be looked up",
          partial(reached, "broker-unresolvable"), needs.SET),
    Check("broker-unreachable", "network", ERROR, "a route leads to the broker",
          partial(reached, "broker-unreachable"), needs.SET),
    Check("broker-filtered", "network", ERROR, "no firewall is in the way", partial(reached, "broker-filtered"),
          needs.SET),
    Check("broker-refused", "network", ERROR, "RabbitMQ accepts connections", partial(reached, "broker-refused"),
          needs.SET),
    Check("address-idle", "network", WARNING, "every address of AMQP_HOST works", address_idle, needs.REACH),
    Check("not-amqp", "network", ERROR, "what answers is RabbitMQ", not_amqp, needs.REACH),
)  # fmt: skip
