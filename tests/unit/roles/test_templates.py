"""What both engines render: the unit, the environment file and the operator's command."""

from __future__ import annotations

import configparser
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import app_wanted
import pytest
from ansible.module_utils import app_comparison, app_host
from hypothesis import given
from hypothesis import strategies as st

VERSION = app_host.systemd_version  # of this machine, which no other test asks
SERVICE: dict[str, Any] = {
    "name": "dispatch",
    "description": "RoboShop Dispatch",
    "artifact": {"faults": [], "value": "x.zip", "url": False, "source": "/x.zip", "sha256": "0" * 64},
    "command": "venv/bin/python -m dispatch_app run",
    "cli": "venv/bin/python -m dispatch_app",
    "fatal_exit_codes": [65, 78],
    "environment": {"AMQP_HOST": "10.0.1.20", "AMQP_USER": "roboshop"},
    "credentials": {"amqp_password": "not-to-be-seen"},
}


def rendered(name: str, **definition: Any) -> str:
    wanted = app_wanted.wanted({**SERVICE, **definition})
    assert wanted["faults"] == []
    return str(wanted["host"]["kinds"]["python"]["files"][name]["content"])


def unit(**definition: Any) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep case
    parser.read_string(rendered("unit", **definition))
    return parser


def test_the_unit_runs_the_live_release_as_its_user() -> None:
    service = unit()["Service"]
    assert service["User"] == "roboshop"
    assert service["WorkingDirectory"] == "/app/current"
    assert service["ExecStart"] == "/app/current/venv/bin/python -m dispatch_app run"


def test_this_machine_s_systemd_knows_every_directive(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if not verify:
        pytest.skip("this machine has no systemd that could read the unit")
    program = Path(sys.executable)
    text = app_comparison.known(rendered("unit", notify=True), VERSION())
    file = tmp_path / "dispatch.service"
    file.write_text(text.replace("/app/current/venv/bin/python", str(program)).replace("User=roboshop", "User=root"))
    done = subprocess.run([verify, "verify", "--man=no", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_a_service_that_says_so_has_to_notify_systemd() -> None:
    assert (unit()["Service"]["Type"], "WatchdogSec" in unit()["Service"]) == ("exec", False)
    notifying = unit(notify=True)["Service"]
    assert (notifying["Type"], notifying["WatchdogSec"]) == ("notify", "60")


def test_the_keys_of_an_instance_are_out_of_the_service_s_reach() -> None:
    # EC2's instance metadata service has these addresses, which docs.aws.amazon.com gives; IMDSv6 is the second.
    assert set(unit()["Service"]["IPAddressDeny"].split()) == {"169.254.169.254", "fd00:ec2::254"}
    # A hook that needs the instance's role can have it.
    assert unit(unit_overrides={"IPAddressDeny": ""})["Service"]["IPAddressDeny"] == ""


def test_another_service_has_places_of_its_own() -> None:
    text = json.dumps(app_wanted.wanted({**SERVICE, "name": "shipping", "home": "/srv/shipping"}))
    assert "/etc/shipping/environment" in text
    assert "/srv/shipping/current/venv" in text
    assert "/etc/dispatch" not in text
    assert "/app/" not in text


@pytest.mark.parametrize("name", ["environment", "unit", "command"])
def test_no_template_renders_a_secret(name: str) -> None:
    assert "not-to-be-seen" not in rendered(name)


def test_every_credential_is_handed_over_by_systemd() -> None:
    text = rendered("unit", credentials={"b": "2", "a": "1"})
    assert "LoadCredential=a:/etc/dispatch/credentials/a\nLoadCredential=b:/etc/dispatch/credentials/b\n" in text


@pytest.mark.parametrize("host_command", ["", "doctor"])
def test_the_operator_s_command_is_valid_shell(host_command: str) -> None:
    text = rendered("command", host_command=host_command)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    assert ("/usr/bin/python3" in text) is bool(host_command)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="$`"), max_size=40))
def test_the_environment_file_keeps_any_value_as_it_is(value: str) -> None:
    # systemd.exec(5): within double quotes a backslash escapes as in a shell.
    text = rendered("environment", environment={"NAME": value})
    assert shlex.split(text, comments=True) == [f"NAME={value}"]


def test_the_environment_file_is_in_one_order() -> None:
    text = rendered("environment", environment={"B": 2, "A": 1})
    assert text.endswith('A="1"\nB="2"\n')
