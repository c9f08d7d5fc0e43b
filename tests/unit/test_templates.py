"""What the shared templates render, with the settings both provisioning engines render them with."""

from __future__ import annotations

import configparser
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
VARIABLES: dict[str, Any] = {
    "app_service_name": "dispatch",
    "app_service_description": "RoboShop Dispatch",
    "app_service_user": "roboshop",
    "app_service_home": "/app",
    "app_service_command": "venv/bin/python -m dispatch_app run",
    "app_service_cli": "venv/bin/python -m dispatch_app",
    "app_service_fatal_exit_codes": [65, 78],
    "app_service_stop_seconds": 30,
    "app_service_environment": {"AMQP_HOST": "10.0.1.20", "AMQP_USER": "roboshop"},
    "app_service_credentials": {"amqp_password": "not-to-be-seen"},
    "__app_service_directives": {"NoNewPrivileges": "yes", "SystemCallFilter": ["@system-service", "~@privileged"]},
    "__app_service_environment_file": "/etc/dispatch/environment",
    "__app_service_credentials_directory": "/etc/dispatch/credentials",
}


def render(template: str, **variables: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(template).render({**VARIABLES, **variables})


def unit(**variables: Any) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep case
    parser.read_string(render("app.service.j2", **variables))
    return parser


def test_the_unit_runs_the_live_release_as_its_user() -> None:
    service = unit()["Service"]
    assert service["User"] == "roboshop"
    assert service["WorkingDirectory"] == "/app/current"
    assert service["ExecStart"] == "/app/current/venv/bin/python -m dispatch_app run"


def test_the_files_in_one_are_as_each_by_itself() -> None:
    names = {"environment": "app.env.j2", "unit": "app.service.j2", "command": "app.command.j2"}
    assert json.loads(render("app.files.json.j2")) == {name: render(file) for name, file in names.items()}


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.iterdir()))
def test_no_template_renders_a_secret(template: str) -> None:
    assert "not-to-be-seen" not in render(template)


def test_every_credential_is_handed_over_by_systemd() -> None:
    text = render("app.service.j2", app_service_credentials={"b": "2", "a": "1"})
    assert "LoadCredential=a:/etc/dispatch/credentials/a\nLoadCredential=b:/etc/dispatch/credentials/b\n" in text


def test_the_operator_s_command_is_valid_shell() -> None:
    subprocess.run(["sh", "-n"], input=render("app.command.j2"), text=True, check=True)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="$`"), max_size=40))
def test_the_environment_file_keeps_any_value_as_it_is(value: str) -> None:
    # systemd.exec(5): within double quotes a backslash escapes as in a shell.
    text = render("app.env.j2", app_service_environment={"NAME": value})
    assert shlex.split(text, comments=True) == [f"NAME={value}"]


def test_the_environment_file_is_in_one_order() -> None:
    text = render("app.env.j2", app_service_environment={"B": 2, "A": 1})
    assert text.endswith('A="1"\nB="2"\n')
