"""The playbooks on controllers as they are: other strategies, paths nobody can write to, passwords with braces."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.lab.ansible import ROOT

HERE = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
    "dispatch_amqp_host": "rabbit",
}

BOOKS = ROOT / "playbooks"
PASSWORD = {"dispatch_amqp_password": "keep-this-to-yourself"}
ENCODED = base64.b64encode(PASSWORD["dispatch_amqp_password"].encode()).decode()
GROUPS = ("dispatch", "payment", "rabbitmq", "postgresql")


def said(
    book: str, directory: Path, *arguments: str, variables: Mapping[str, object] | None = None, **environ: str
) -> str:
    """Run a playbook on this machine, which is both a broker's host and Dispatch's; return what a refusal said."""
    inventory = directory / "hosts.json"
    hosts = {"hosts": {"here": {**HERE, **(variables or {})}}}
    inventory.write_text(json.dumps({"all": {"children": dict.fromkeys(GROUPS, hosts)}}))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(BOOKS / f"{book}.yml"), *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert not re.search("changed=[1-9]", done.stdout)
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("book", "strategy"),
    [
        ("dispatch", "host_pinned"),
        ("rabbitmq", "free"),
        ("postgresql", "free"),
        ("doctor", "free"),
        ("rollback", "ansible.builtin.free"),
    ],
)
def test_a_strategy_by_which_hosts_do_not_wait_is_refused(tmp_path: Path, book: str, strategy: str) -> None:
    refused = said(book, tmp_path, ANSIBLE_STRATEGY=strategy)
    assert f"The strategy is {strategy}, by which hosts do not wait for each other" in refused


@pytest.mark.parametrize("strategy", ["mitogen_linear", "debug"])
def test_a_strategy_by_which_hosts_wait_is_accepted(tmp_path: Path, strategy: str) -> None:
    # Mitogen's own is one more subclass of the same.
    (tmp_path / "mitogen_linear.py").write_text("from ansible.plugins.strategy.linear import StrategyModule\n")
    refused = said("check", tmp_path, ANSIBLE_STRATEGY=strategy, ANSIBLE_STRATEGY_PLUGINS=str(tmp_path))
    assert "dispatch_amqp_password is not set" in refused
    assert "The strategy is" not in refused


def test_a_page_that_can_t_be_written_is_a_note_below_the_findings(tmp_path: Path) -> None:
    page = "/proc/none/doctor.html"  # where nobody can write, not even root
    told = said("doctor", tmp_path, "-e", f"dispatch_doctor_page={page}")
    assert "unit-missing" in told
    assert f"The page could not be written to {page} (" in told.replace("''", "'")
    assert "Set dispatch_doctor_page to a path that you can write to" in told


def test_all_that_is_wrong_with_the_values_of_payment_is_told_at_once(tmp_path: Path) -> None:
    given = {"payment_amqp_host": "amqp://rabbit", "payment_cart_host": "", "payment_amqp_password": 1234}
    told = said("payment", tmp_path, variables=given)
    assert 'payment_amqp_host is "amqp://rabbit". Set it in the inventory to an address or name alone' in told
    assert "payment_cart_host is not set" in told
    assert "payment_user_host is not set" in told
    assert "payment_amqp_password is a number to YAML" in told
    assert "1234" not in told


def test_payment_without_an_artifact_is_refused(tmp_path: Path) -> None:
    hosts = dict.fromkeys(("payment_amqp_host", "payment_cart_host", "payment_user_host"), "shop")
    told = said("payment", tmp_path, variables={**hosts, "payment_amqp_password": "x"})
    assert "payment_artifact is not set. Set it to an artifact's path or URL" in told


def test_a_directory_of_certificates_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    given = ["-e", "rabbitmq_password=x", "-e", "rabbitmq_tls=true", "-e", "rabbitmq_tls_directory=/proc/none/tls"]
    systems = {"python_runtime_systems": this_system()}
    told = said("rabbitmq", tmp_path, *given, variables=systems)
    assert "rabbitmq_tls_directory is /proc/none/tls, which can't be made on this controller" in told.replace("''", "'")


def this_system() -> dict[str, object]:
    """This machine as a system that the roles support, so that they go on to what is tested."""
    values = platform.freedesktop_os_release()
    major = values["VERSION_ID"].partition(".")[0]
    return {f"{values['ID']}-{major}": {"interpreter": sys.executable, "packages": []}}


@pytest.mark.parametrize(
    ("book", "variable", "secret"),
    [
        ("site", "rabbitmq", "Xy{#9kQ-secret"),
        ("dispatch", "dispatch_amqp", "Xy{{ secret }}"),
        ("payment", "payment_amqp", "Xy{{ secret }}"),
        ("postgresql", "postgresql", "Xy{{ secret }}"),
        ("check", "dispatch_ledger", "Xy{{ secret }}"),
    ],
)
def test_a_password_that_ansible_takes_for_a_template_is_not_shown(
    tmp_path: Path, book: str, variable: str, secret: str
) -> None:
    file = tmp_path / "passwords.yml"
    names = ("rabbitmq", "payment_amqp", "postgresql", "dispatch_ledger")
    others = "".join(f'{name}_password: "{{{{ dispatch_amqp_password }}}}"\n' for name in names)
    file.write_text(f'dispatch_amqp_password: "{secret}"\n{others}')
    told = said(book, tmp_path, "-e", f"@{file}", "-vvv")
    assert f"{variable}_password, or a variable that it refers to, is a template that can" in told
    assert f'{variable}_password: !unsafe "…"' in told
    assert "secret" not in told


def test_a_definition_that_cannot_be_resolved_is_told_although_it_may_hold_secrets(tmp_path: Path) -> None:
    definition = {"name": "thin", "description": "{{ nowhere }}", "artifact": {}, "command": "run", "cli": "run"}
    role = {"name": "app_runbook", "tasks_from": "preflight", "rolespec_validate": False}
    task = {"ansible.builtin.import_role": role, "vars": {"app_runbook_service": definition}}
    (tmp_path / "thin.yml").write_text(json.dumps([{"hosts": "dispatch", "gather_facts": False, "tasks": [task]}]))
    assert "'nowhere' is undefined" in said(str(tmp_path / "thin"), tmp_path)


def test_what_is_wanted_is_never_shown_because_it_holds_the_password(tmp_path: Path) -> None:
    # The document is whole, but for the artifact, which is refused right after it was kept as a fact.
    refused = said("dispatch", tmp_path, "-vvv", variables={**PASSWORD, "dispatch_artifact": "/nowhere/dispatch.zip"})
    assert "there is no such file on the controller" in refused
    assert "Resolve the definition of the service" in refused
    for secret in (PASSWORD["dispatch_amqp_password"], ENCODED):
        assert secret not in refused
