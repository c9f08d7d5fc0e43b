"""What the role payment wants of a host, as Ansible works it out."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zipfile
from typing import Any

import pytest
from app_values import host_faults

from tests.lab.ansible import ROOT

ROLE = ROOT / "roles" / "payment"
HIDDEN = 'not "to" be\\ seen'


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a payment that the inventory describes."""
    directory = tmp_path_factory.mktemp("payment")
    with zipfile.ZipFile(directory / "payment.zip", "w") as archive:
        archive.writestr("requirements.txt", "Flask\n")
    shown = {
        "content": "{{ payment_service | app_wanted | to_json }}",
        "dest": str(directory / "wanted.json"),
        "mode": "0600",
    }
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults" / "main.yml"), str(ROLE / "vars" / "main.yml")],
        "tasks": [{"ansible.builtin.copy": shown}],
    }
    given = {
        "ansible_python_interpreter": sys.executable,
        "payment_artifact": str(directory / "payment.zip"),
        "payment_amqp_host": "rabbit",
        "payment_amqp_password": HIDDEN,
        "payment_cart_host": "cart",
        "payment_user_host": "user",
        "payment_environment": {"CART_PORT": 8080, "AMQP_HOST": "another"},
    }
    book = directory / "show.yml"
    book.write_text(json.dumps([play]))
    subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(given), book],
        env={**os.environ, "ANSIBLE_FILTER_PLUGINS": str(ROOT / "roles" / "app_runbook" / "filter_plugins")},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    document: dict[str, Any] = json.loads((directory / "wanted.json").read_text())
    assert (document["faults"], document["artifact_faults"]) == ([], [])
    return document


def test_its_settings_stand_in_the_environment_under_roboshop_s_names(wanted: dict[str, Any]) -> None:
    lines = wanted["host"]["kinds"]["python"]["files"]["environment"]["content"].splitlines()[2:]
    assert lines == [
        'AMQP_HOST="rabbit"',
        'AMQP_USER="roboshop"',
        'CART_HOST="cart"',
        'CART_PORT="8080"',
        'USER_HOST="user"',
    ]


def test_its_password_stands_where_root_alone_can_read_it(wanted: dict[str, Any]) -> None:
    private = base64.b64decode(wanted["host"]["credentials"]["python"]["environment"]).decode()
    assert private == 'AMQP_PASS="not \\"to\\" be\\\\ seen"\n'
    unit = wanted["host"]["kinds"]["python"]["files"]["unit"]["content"]
    assert "EnvironmentFile=/etc/payment/credentials/environment\n" in unit
    for file in wanted["host"]["kinds"]["python"]["files"].values():
        assert "be\\" not in file["content"]


def test_uwsgi_is_told_after_payment_s_own_settings_how_systemd_runs_it(wanted: dict[str, Any]) -> None:
    unit = wanted["host"]["kinds"]["python"]["files"]["unit"]["content"].splitlines()
    assert "ExecStart=/app/current/venv/bin/uwsgi --ini payment.ini --ini fd://0" in unit
    given = [line.partition("=")[2] for line in unit if line.startswith("StandardInputText=")]
    assert given == ["[uwsgi]", "die-on-term = true", "uid = 0", "gid = 0"]
    assert wanted["host"]["kinds"]["python"]["ready_url"] == "http://127.0.0.1:8080/health"
    assert wanted["require_hashes"] is False


def test_it_is_a_thin_role() -> None:
    files = [file for file in ROLE.rglob("*.yml") if file.is_file()]
    assert sum(len(file.read_text().splitlines()) for file in files) < 100
    assert not [file for file in files if "dispatch" in file.read_text()]


@pytest.mark.parametrize("value", ["", "http://cart", "cart service", "cart/", 'cart"'])
def test_what_is_no_host_is_refused_by_the_variable_s_name(value: str) -> None:
    (fault,) = host_faults({"CART_HOST": value, "USER_HOST": "10.0.1.20", "AMQP_USER": value}, "payment")
    said = f'"{value}"' if value else "not set"
    assert fault.startswith(f"payment_cart_host is {said}. Set it ")


@pytest.mark.parametrize("value", ["cart", "10.0.1.20", "fd00::1", "cart.shop.example.com"])
def test_an_address_or_a_name_is_accepted(value: str) -> None:
    assert host_faults({"CART_HOST": value}, "payment") == []
