"""What holds for every task of the roles and the playbooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml"), *ROOT.glob("playbooks/*.yml")])
LIBRARY = {file.stem: file.read_text() for file in ROOT.glob("roles/*/library/*.py")}
# What a task says of a secret: the variables that hold one, alone or among others, and the key beside a certificate.
SECRET = re.compile(
    r"dispatch_amqp_password|payment_amqp_password|rabbitmq_password|__rabbitmq_services|__rabbitmq_cookie|dispatch_amqp_tls_key|app_service_wanted|app_release_index_url"
    r"|monitoring_secrets|dispatch_ledger_password|postgresql_password|postgresql_replication_password"
    r"|lookup\(.*'\.key'"
)
# Modules of collections that mask an option.
MASKED = {"community.postgresql.postgresql_user": {"password"}}
INHERITED = ("delegate_to", "connection", "become")


def tasks(entries: list[dict[str, Any]], outer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every play, block and task of a file, with what it inherits from those around it."""
    for entry in entries or []:
        inherited = {key: value for key, value in outer.items() if key in INHERITED}
        task = {**inherited, **entry, "vars": {**outer.get("vars", {}), **entry.get("vars", {})}}
        yield task
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(entry.get(part, []), task)


ALL = [(file, task) for file in FILES for task in tasks(yaml.safe_load(file.read_text()), {})]


def test_nothing_on_the_controller_is_done_as_root() -> None:
    places = ("localhost", "127.0.0.1", "local", "ansible.builtin.local")
    there = [(file, task) for file, task in ALL if {task.get("delegate_to"), task.get("connection")} & {*places}]
    assert {file.stem for file, _ in there} >= {"doctor", "rollout", "certificates", "generate_ca"}
    for file, task in there:
        assert task.get("become") is False, (file, task["name"])
        # An inventory that sets this variable for all hosts outranks `become`.
        assert task["vars"].get("ansible_become") is False, (file, task["name"])


def test_no_task_hides_the_cause_of_an_error() -> None:
    told = {
        (file, part["name"])
        for file, task in ALL
        for part in task.get("block", [])
        if "ansible_failed_result.msg" in str(task.get("rescue"))
    }
    for file, task in ALL:
        assert "no_log" not in task or (file, task["name"]) in told, (file, task.get("name"))


def test_a_secret_goes_to_modules_alone_that_mask_it() -> None:
    given = [
        (module, option, file)
        for file, task in ALL
        for module, options in task.items()
        if (module in LIBRARY or "." in module) and isinstance(options, dict)
        for option, value in options.items()
        if SECRET.search(str(value))
    ]
    assert {module for module, _, _ in given} >= {
        "app_state",
        "app_switch",
        "rabbitmq_objects",
        "rabbitmq_configuration",
        "rabbitmq_node",
        "postgresql_configuration",
    }
    for module, option, file in given:
        assert module in {*LIBRARY, *MASKED}, (file, module)
        assert option in (MASKED.get(module) or masked(LIBRARY[module])), (file, module, option)


def masked(module: str) -> set[str]:
    """The options that a module masks in what it says."""
    pattern = r'"(\w+)": \{.*"no_log": True'
    document = (ROOT / "roles" / "app_service" / "module_utils" / "app_arguments.py").read_text()
    within = {"wanted"} if '"wanted": WANTED' in module and "credentials" in re.findall(pattern, document) else set()
    users = {"users"} if '"options": USER' in module and "password" in re.findall(pattern, module) else set()
    return {*re.findall(pattern, module), *within, *users}


def test_what_a_filter_of_sets_gives_is_put_in_order() -> None:
    """Two runs of Ansible order a set differently, so that the second one would change what the first has written."""
    files = [*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("playbooks/*.yml"), *ROOT.glob("inventories/**/*.yml")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    found = [line for line in lines if re.search(r"\| (union|intersect|symmetric_difference)\(", line)]
    assert found
    assert not [
        line for line in found if not re.search(r"\| (union|intersect|symmetric_difference)\(.*\| sort\b", line)
    ]
