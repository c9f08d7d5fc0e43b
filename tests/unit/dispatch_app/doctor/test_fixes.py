"""Every word that a fix takes from a host or a broker is quoted, in whichever check the fix is made."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatch_app import topology
from dispatch_app.doctor import checks
from dispatch_app.doctor.broker import Attempt
from dispatch_app.doctor.checks import fixes, flow, login, network, queues, service
from dispatch_app.doctor.table import LookError
from dispatch_app.settings import load

AWKWARD = "a b;touch x"
SETTINGS = load({"AMQP_HOST": "mq", "AMQP_PASS": "p", "AMQP_USER": AWKWARD, "AMQP_VHOST": AWKWARD, "AMQP_QUEUE": "a b"})
PROGRAMS = re.compile(
    r"(^|&& |\$\()(ansible|apt-get|aws|cd|chmod|chown|dnf|find|go|iptables|journalctl|kill|ln|mkdir|mount|mv|"
    r"rabbitmqadmin|rabbitmqctl|rm|sed|systemctl|timedatectl|useradd|venv/bin/python) "
)
# What stands in fixes unquoted: numbers, and text that has been quoted where it was made.
QUOTED = {
    "port", "found.pid", "where", "vhost", "own", "closed", "venv", "install", "remove", "add", "edit", "old", "aside",
    "mode", "find", "group", "arguments", "address", "pip", "wheels", "without", "interpreter", "allow", "fix",
    "path.name", "line", "bind", "replaced", "rule", "inode",
    "moved", "holds", "raised", "called", "pattern", "definition",
}  # fmt: skip


def unquoted(source: str) -> Iterator[str]:
    """Yield what the commands in a module's f-strings take as it is."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        if not PROGRAMS.search(text):
            continue
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                word = ast.unparse(part.value)
                if not (word.isupper() or re.match(r"(shlex\.quote|quoted|topology\.grant)\(", word) or word in QUOTED):
                    yield word


@pytest.mark.parametrize("module", sorted(Path(checks.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_no_fix_takes_a_word_as_it_is(module: Path) -> None:
    if module.stem != "flow":  # which has a test of its own
        assert list(unquoted(module.read_text())) == []


def test_a_word_that_is_taken_as_it_is_would_be_found() -> None:
    assert list(unquoted("f'chmod a+r {path} && {RESTART}'")) == ["path"]
    assert list(unquoted("f'{where} is {mode}'")) == []


def case(**broker: Any) -> Any:
    """A host whose broker says what is given."""
    host = SimpleNamespace(
        unit={"StatusText": broker.pop("told", "")}, ours=True, foreign=False, on_ec2=broker.pop("on_ec2", False)
    )
    defaults = {"settings": SETTINGS, "host": None, "own_address": AWKWARD, "address": lambda name: name}
    return SimpleNamespace(host=host, broker=SimpleNamespace(**{**defaults, **broker}))


def words(command: str) -> list[str]:
    """Split a command as a shell does, its operators apart."""
    return list(shlex.shlex(command, posix=True, punctuation_chars=True))


def missing(_: str) -> None:
    raise LookError("no management API")


def test_awkward_names_are_one_word_each() -> None:
    filtered = Attempt(AWKWARD, "broker-filtered", "")
    refused = "declared otherwise (inequivalent arg 'x' for {} 'a b;touch x' in vhost '/')"
    found = [
        network.reached("broker-filtered", case(attempts=[filtered])),
        login.logged_in("vhost-missing", case(login=Attempt("mq", "vhost-missing", ""))),
        login.permission_missing(case(login=Attempt("mq", "", ""), denied=lambda: "no")),
        queues.declared_otherwise(case(queue=lambda _: {"arguments": {"x": 1}, "durable": True, "auto_delete": False})),
        queues.declared_otherwise(case(queue=missing, told=refused.format("queue"))),
        queues.declared_otherwise(case(queue=missing, told=refused.format("exchange"))),
        service._overridden({f"/usr/lib/systemd/system/service.d/{AWKWARD}": ["User"]}),
    ]
    for finding in found:
        assert finding
        assert not {";", "touch"} & set(words(finding.command)), finding.command


def test_a_closed_security_group_is_named_on_ec2_and_the_firewall_elsewhere() -> None:
    filtered = [Attempt("10.0.0.5", "broker-filtered", "")]
    finding = network.reached("broker-filtered", case(attempts=filtered, on_ec2=True, own_address="10.0.0.9"))
    assert finding
    assert "security group" in finding.cause
    assert "Values=10.0.0.5" in finding.command
    assert finding.command.startswith("aws ec2 authorize-security-group-ingress --group-id ")
    assert finding.command.endswith("--protocol tcp --port 5672 --cidr 10.0.0.9/32")
    assert "iptables" not in finding.command
    finding = network.reached("broker-filtered", case(attempts=filtered, own_address="10.0.0.9"))
    assert finding
    rule = "INPUT -p tcp -s 10.0.0.9 --dport 5672 -j ACCEPT"
    assert finding.command == f"iptables -C {rule} || iptables -I {rule}"


def test_a_broker_beside_others_is_restarted_because_it_may_run_in_vain_and_one_alone_is_started() -> None:
    refused = [Attempt("mq-2", "broker-refused", "")]
    for finding, fix in (
        (network.address_idle(case(attempts=refused, host="mq-1")), "systemctl restart rabbitmq-server"),
        (network.reached("broker-refused", case(attempts=refused)), "systemctl start rabbitmq-server"),
    ):
        assert finding
        assert finding.command == fix


@pytest.mark.parametrize(
    ("name", "arguments", "fine"),
    [
        ("a b", {"x-queue-type": "quorum"}, True),
        ("a b", {"x-queue-type": "quorum", "x-delivery-limit": -1}, True),
        ("a b", {"x-max-length": 5}, False),
        ("a b.dead", {"x-queue-type": "quorum"}, True),
        ("a b.dead", {"x-queue-type": "quorum", "x-max-length": 5}, False),
        ("a b.retry.1s", {**(topology.queues(SETTINGS)["a b.retry.1s"] or {}), "x-queue-type": "classic"}, True),
        ("a b.retry.1s", {**(topology.queues(SETTINGS)["a b.retry.1s"] or {}), "x-queue-type": "quorum"}, True),
        ("a b.retry.1s", {"x-queue-type": "quorum"}, False),
    ],
)
def test_the_doctor_refuses_what_the_service_refuses(name: str, arguments: dict[str, Any], fine: bool) -> None:
    def queue(asked: str) -> dict[str, Any]:
        given = arguments if asked == name else topology.queues(SETTINGS)[asked]
        return {"arguments": given or {}, "durable": True, "auto_delete": False}

    assert (queues.declared_otherwise(case(queue=queue)) is None) == fine


@pytest.mark.parametrize(
    ("version", "kind", "argument", "policy", "told"),
    [
        ((3, 10, 8), "quorum", None, {}, None),  # which has no limit of its own
        ((3, 10, 8), "quorum", None, {"delivery-limit": 5}, "after 5 deliveries"),
        ((4, 0, 5), "quorum", None, {}, "after 20 deliveries"),
        ((4, 0, 5), "quorum", None, {"delivery-limit": 1_000_000_000}, None),
        ((4, 0, 5), "quorum", None, {"delivery-limit": -1}, None),
        ((4, 0, 5), "quorum", 7, {}, None),  # which is wanted so
        ((4, 0, 5), "classic", None, {}, None),
    ],
)
def test_a_limit_of_deliveries_is_lifted_by_a_policy_that_keeps_what_another_sets(
    version: tuple[int, ...], kind: str, argument: int | None, policy: dict[str, Any], told: str | None
) -> None:
    def queue(name: str) -> dict[str, Any] | None:
        arguments = {} if argument is None else {"x-delivery-limit": argument}
        effective = {**policy, "dead-letter-exchange": AWKWARD}
        found = {"type": kind, "arguments": arguments, "effective_policy_definition": effective}
        return found if name == "a b.dead" else None

    finding = queues.delivery_limit(case(queue=queue, version=version))
    assert (finding and finding.evidence) == (told and f"quorum queue a b.dead gives a message up {told}")
    if finding:
        *_, pattern, definition = words(finding.command)
        assert re.match(pattern, "a b.dead")
        assert not re.match(pattern, "a bXdead")
        assert json.loads(definition) == {"delivery-limit": 1_000_000_000, "dead-letter-exchange": AWKWARD}


@pytest.mark.parametrize(
    ("free", "fix"), [(2 << 30, "rabbitmqctl set_disk_free_limit 50MB"), (20 << 20, fixes.FREE_DISK)]
)
def test_a_full_disk_of_the_broker_s_is_not_mended_by_a_limit(free: int, fix: str) -> None:
    node = {"name": "rabbit@mq", "disk_free_alarm": True, "disk_free": free, "disk_free_limit": 4 << 30}
    finding = flow.broker_alarm(case(nodes=lambda: [node]))
    assert finding
    assert finding.command == fix
