"""The definition of a service becomes one document: what is wanted of a host, or all that can't be right."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

import app_wanted
import pytest
import yaml
from ansible.module_utils import app_arguments, app_comparison, app_proof, app_undo
from hypothesis import given
from hypothesis import strategies as st

UNSIGNED = {"signature": "/x.zip.sig", "signers": "", "revoked": ""}
SHA256 = "0d69affe422b7351fa18c44472a02542ad1421302eade9e9602a9975c5869840"
HIDDEN = "not-to-be-seen"
DEFINITION: dict[str, Any] = {
    "name": "shipping",
    "description": "RoboShop Shipping",
    "artifact": {"value": "x.zip", "url": False, "source": "/x.zip", **UNSIGNED, "sha256": SHA256, "faults": []},
    "command": "venv/bin/python -m shipping run",
    "cli": "venv/bin/python -m shipping",
}


def wanted(**given: Any) -> dict[str, Any]:
    document: dict[str, Any] = app_wanted.wanted({**DEFINITION, **given})
    return document


def of_kind(document: dict[str, Any], kind: str = "python") -> Any:
    """What the modules make of the document for a release of one kind."""
    return app_comparison.of_kind(document["host"], kind)


def unit(document: dict[str, Any], kind: str = "python") -> list[str]:
    lines: list[str] = of_kind(document, kind)["files"]["unit"]["content"].splitlines()
    return lines


def of_role(role: str, *path: str) -> Any:
    return yaml.safe_load((app_wanted.ROLES / role).joinpath(*path).read_text(encoding="utf-8"))


def test_what_a_definition_leaves_out_has_a_default() -> None:
    document = wanted()
    host = document.pop("host")
    assert document == {
        "faults": [],
        "artifact_faults": [],
        "artifact": {"value": "x.zip", "url": False, "source": "/x.zip", "signature": "/x.zip.sig"},
        "index_url": "",
        "go_proxy": "",
        "ca_bundle": "",
        "require_hashes": True,
        "cli": "/usr/bin/shipping",
        "check_zips": {"python": ""},
        "rollout": {"serial": ["1", "100%"], "max_fail_percentage": 0},
    }
    (part,) = host.pop("kinds").values()
    files = part.pop("files")
    assert part == {
        "systems": of_role("python_runtime", "defaults", "main.yml")["python_runtime_systems"],
        "packages": {},
        "check": "",
        "check_zip": "",
        "ready_url": "",
        "ready_log": "",
        "faults": [],
    }
    assert {name: (file["path"], file["mode"]) for name, file in files.items()} == {
        "environment": ("/etc/shipping/environment", "0644"),
        "unit": ("/etc/systemd/system/shipping.service", "0644"),
        "drop_in": ("/etc/systemd/system/shipping.service.d/zzzz-credentials.conf", "0644"),
        "command": ("/usr/bin/shipping", "0755"),
        "command_drop_in": ("/etc/systemd/system/shipping-command-.service.d/zzzz-credentials.conf", "0644"),
    }
    assert host == {
        "name": "shipping",
        "kind": "python",
        "go": "",
        "installer": False,
        "account": {
            "name": "roboshop",
            "comment": "RoboShop services",
            "shell": "/usr/sbin/nologin",
            "locked": True,
        },
        "home": {"path": "/app", "owner": "root", "group": "root", "mode": "0755", "setype": "usr_t"},
        "sha256": SHA256,
        "signers": "",
        "revoked": "",
        "configuration": "/etc/shipping",
        "credentials": {"python": {}},
        "start_seconds": 60,
        "stop_seconds": 30,
        "releases_kept": 3,
        "drain": None,
    }


def test_values_that_come_as_text_become_numbers() -> None:
    document = wanted(start_seconds="90", stop_seconds="5", releases_kept="2", max_fail_percentage="20", serial=2)
    kept = {name: document["host"][name] for name in ("start_seconds", "stop_seconds", "releases_kept")}
    assert kept == {"start_seconds": 90, "stop_seconds": 5, "releases_kept": 2}
    assert document["rollout"] == {"serial": ["2"], "max_fail_percentage": 20}


@pytest.mark.parametrize("name", list(DEFINITION))
def test_a_definition_without_what_it_needs_is_refused(name: str) -> None:
    (fault,) = wanted(**{name: ""})["faults"]
    assert fault.startswith(f"The definition of the service has no {name}. ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"serial": "some"}, 'shipping_serial is "some". Set it to a list'),
        ({"serial": []}, "shipping_serial is []. Set it to a list"),
        ({"serial": [1, "0%"]}, 'shipping_serial is [1, "0%"]. Set it to a list'),
        ({"serial": [0]}, "shipping_serial is [0]. Set it to a list"),
        ({"serial": ["101%"]}, 'shipping_serial is ["101%"]. Set it to a list'),
        ({"max_fail_percentage": 101}, "shipping_max_fail_percentage is 101. Set it to a percentage"),
        ({"max_fail_percentage": -1}, "shipping_max_fail_percentage is -1. Set it to a percentage"),
        ({"max_fail_percentage": "few"}, "shipping_max_fail_percentage is few. Set it to a percentage"),
        ({"releases_kept": 0}, "shipping_releases_kept is 0. Set it to 1"),
        ({"start_seconds": 0}, "shipping_start_seconds is 0. Set it to the seconds"),
        ({"start_seconds": "soon"}, "shipping_start_seconds is soon. Set it to the seconds"),
        ({"environment": "a=b"}, "shipping_environment is not a dictionary"),
        ({"environment": {"HOOK": "a\nb"}}, "shipping_environment.HOOK has a line break"),
        ({"environment": {"HOOK": "a\0b"}}, "shipping_environment.HOOK has a line break"),
        ({"environment_credentials": "a=b"}, "shipping_environment_credentials is not a dictionary"),
        (
            {"environment_credentials": {"A": "pin"}},
            "shipping_environment_credentials.A is pin, and shipping has no such",
        ),
        (
            {"environment_credentials": {"A=B": "pin"}, "credentials": {"pin": "1"}},
            "shipping_environment_credentials.A=B is no name of a variable",
        ),
        (
            {"environment_credentials": {"A": "pin"}, "credentials": {"pin": "1"}, "environment": {"A": 1}},
            "shipping_environment_credentials.A is in shipping_environment, too",
        ),
        (
            {"environment_credentials": {"A": "pin"}, "credentials": {"pin": f"{HIDDEN}\n"}},
            "shipping_environment_credentials.A: the credential pin has a line break",
        ),
        (
            {"environment_credentials": {"A": "pin"}, "credentials": {"pin": "1", "environment": "2"}},
            "shipping has a credential named environment",
        ),
        ({"ready_log": "(ready"}, "shipping_ready_log is (ready, and that is no regular expression: missing )"),
        ({"home": "app"}, "The home of shipping is app. Set it to an absolute path"),
        ({"home": "/"}, "The home of shipping is /. Set it to an absolute path"),
        ({"limits": "none"}, "shipping_limits is not a dictionary"),
        ({"limits": {"Tasks Max": 8}}, 'shipping_limits has the directive "Tasks Max". Take a name'),
        ({"limits": {"TasksMax": "8\nUser=root"}}, "shipping_limits.TasksMax has a line break"),
        ({"unit_overrides": {"nice": 8}}, 'shipping_unit_overrides has the directive "nice". Take a name'),
        ({"unit_overrides": {"Nice": "8\r"}}, "shipping_unit_overrides.Nice has a line break"),
    ],
)
def test_bad_values_are_refused(given: dict[str, Any], said: str) -> None:
    document = wanted(**given)
    (fault,) = document["faults"]
    assert fault.startswith(said)
    assert list(document) == ["faults"]
    assert HIDDEN not in fault


def test_bad_values_of_other_roles_are_refused() -> None:
    (fault,) = app_wanted.wanted(DEFINITION, {"User=root\nNice": 1})["faults"]
    assert fault.startswith('app_service_sandbox has the directive "User=root')
    (fault,) = app_wanted.wanted(DEFINITION, None, "debian")["faults"]
    assert fault.startswith("python_runtime_systems is not a dictionary")


@pytest.mark.parametrize("packages", ["libpq5", ["libpq5"], {"yum": ["libpq"]}, {"apt": "libpq5"}, {"dnf": [1]}])
def test_packages_are_lists_by_what_installs_them(packages: object) -> None:
    (fault,) = wanted(packages=packages)["faults"]
    assert fault.startswith("The packages of shipping are ")
    assert of_kind(wanted(packages={"apt": ["libpq5"]}))["packages"] == {"apt": ["libpq5"]}


def test_all_faults_are_told_at_once() -> None:
    bad = {"serial": [], "max_fail_percentage": -1, "releases_kept": 0, "start_seconds": 0, "limits": {"a": 1}}
    found = wanted(**bad, environment={"A": "\n", "B": "\n"}, faults=["dispatch_amqp_port is 0."])["faults"]
    assert [fault.split()[0] for fault in found] == [
        "dispatch_amqp_port",
        "shipping_serial",
        "shipping_max_fail_percentage",
        "shipping_releases_kept",
        "shipping_start_seconds",
        "shipping_limits",
        "shipping_environment.A",
        "shipping_environment.B",
    ]


def test_what_is_wrong_with_an_artifact_keeps_nobody_from_going_back() -> None:
    document = wanted(artifact={**DEFINITION["artifact"], "faults": ["there is no such file"]})
    assert document["faults"] == []
    assert document["artifact_faults"] == ["there is no such file"]


def test_a_limit_leaves_the_others_in_force() -> None:
    lines = unit(wanted(limits={"CPUQuota": "50%", "TasksMax": 8}))
    assert {"CPUQuota=50%", "TasksMax=8", "MemoryMax=512M"} <= set(lines)
    assert "TasksMax=64" not in lines
    assert "NoNewPrivileges=yes" in lines


def test_a_unit_s_override_comes_last() -> None:
    lines = unit(wanted(limits={"TasksMax": 8}, unit_overrides={"TasksMax": 9, "ProtectHome": "no"}))
    assert {"TasksMax=9", "ProtectHome=no"} <= set(lines)
    assert not {"TasksMax=8", "TasksMax=64", "ProtectHome=yes"} & set(lines)


def test_a_sandbox_of_one_s_own_replaces_the_role_s() -> None:
    lines = unit(app_wanted.wanted(DEFINITION, {"PrivateTmp": "yes", "SystemCallFilter": ["@a", "~@b"]}))
    assert [line for line in lines if line.startswith("SystemCallFilter")] == [
        "SystemCallFilter=@a",
        "SystemCallFilter=~@b",
    ]
    assert "NoNewPrivileges=yes" not in lines


def test_files_are_rendered_from_the_definition() -> None:
    document = wanted(
        environment={"B": 'a "b" \\', "A": 1}, credentials={"password": HIDDEN}, stop_seconds=15, user="ship"
    )
    files = {name: file["content"].splitlines() for name, file in of_kind(document)["files"].items()}
    assert [line for line in files["environment"] if not line.startswith("#")] == ['A="1"', 'B="a \\"b\\" \\\\"']
    assert {
        "Description=RoboShop Shipping",
        "User=ship",
        "TimeoutStopSec=15",
        "EnvironmentFile=/etc/shipping/environment",
        "LoadCredential=password:/etc/shipping/credentials/password",
    } <= set(files["unit"])
    assert any(line.endswith("/app/current/venv/bin/python -m shipping run") for line in files["unit"])
    assert files["command"][0] == "#!/bin/sh"
    assert document["host"]["account"]["name"] == "ship"


def test_secrets_are_base64_and_in_no_file() -> None:
    document = wanted(credentials={"password": HIDDEN, "pin": 1234})
    assert of_kind(document)["credentials"] == {
        "password": base64.b64encode(HIDDEN.encode()).decode(),
        "pin": base64.b64encode(b"1234").decode(),
    }
    assert HIDDEN not in json.dumps(document)
    bare = json.dumps({**document, "host": {**document["host"], "credentials": {}}})
    assert of_kind(document)["credentials"]["password"] not in bare
    assert HIDDEN not in json.dumps(wanted(credentials={"password": HIDDEN}, serial=[]))


def test_a_secret_of_the_environment_is_in_a_file_among_the_credentials_alone() -> None:
    given = {"password": HIDDEN, "pin": 1234}
    document = wanted(credentials=given, environment_credentials={"PIN": "pin", "AMQP_PASS": "password"})
    files = of_kind(document)["credentials"]
    assert files.keys() == {"password", "pin", "environment"}
    assert base64.b64decode(files["environment"]).decode() == f'AMQP_PASS="{HIDDEN}"\nPIN="1234"\n'
    (staged,) = (file for file in app_comparison.files(of_kind(document)) if file["name"] == "credentials/environment")
    assert (staged["path"], staged["mode"]) == ("/etc/shipping/credentials/environment", "0600")
    assert HIDDEN not in json.dumps(document)
    assert [line for line in unit(document) if line.startswith("EnvironmentFile=")] == [
        "EnvironmentFile=/etc/shipping/environment",
        "EnvironmentFile=/etc/shipping/credentials/environment",
    ]
    command = of_kind(document)["files"]["command"]["content"]
    assert "  --property=EnvironmentFile=/etc/shipping/credentials/environment \\\n" in command
    # The file is no credential that the service could find in its directory.
    assert "LoadCredential=environment:" not in json.dumps(document)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40))
def test_a_secret_of_the_environment_stays_as_it_is(value: str) -> None:
    # systemd.exec(5): within double quotes a backslash escapes as in a shell.
    document = wanted(credentials={"password": value}, environment_credentials={"AMQP_PASS": "password"})
    text = base64.b64decode(of_kind(document)["credentials"]["environment"]).decode()
    assert shlex.split(text, comments=True) == [f"AMQP_PASS={value}"]


# What stands in two places, because one of them is read where the other can't be, has to agree.
def test_the_account_and_its_directory_are_as_the_role_makes_them() -> None:
    made = of_role("app_account", "vars", "main.yml")
    assert made["__app_account_entry"] == app_wanted.ENTRY
    assert made["__app_account_directory"] == {"path": "{{ app_account_home }}", **app_wanted.HOME}


def test_what_a_removal_takes_away_is_what_a_switch_places() -> None:
    host = of_kind(wanted())
    left = [
        path.replace("{{ app_service_name }}", "shipping").replace("{{ app_service_home }}", "/app")
        for path in of_role("app_service", "vars", "main.yml")["__app_service_left"]
    ]
    service = app_proof.service_of(host)
    placed = {str(path) for path in (*service.live.values(), service.current, *app_undo.places(service))}
    within = {path for path in placed if path.startswith("/etc/shipping/")}
    assert set(left) == (placed - within) | {host["configuration"]}


def test_the_modules_take_the_whole_document() -> None:
    assert set(wanted()["host"]) == set(app_arguments.WANTED["options"])


def test_a_definition_may_leave_out_what_the_modules_have_defaults_for() -> None:
    host = wanted()["host"]
    defaults = {name: one["default"] for name, one in app_arguments.WANTED["options"].items() if "default" in one}
    assert (defaults.pop("kind"), defaults.pop("credentials")) == ("", {})
    assert {name: host[name] for name in defaults} == defaults


@pytest.mark.parametrize("name", ["environment", "unit", "drop_in", "command", "command_drop_in"])
def test_what_the_role_writes_is_known_as_its_own(tmp_path: Path, name: str) -> None:
    host = {**of_kind(wanted())}
    file = host["files"][name]
    stands = tmp_path / name
    stands.write_text(f"{file['content']}# of the version before\n")
    host["files"] = {name: {**file, "path": str(stands)}}
    host["home"] = {"path": str(tmp_path)}
    shown = app_comparison.diff(host, tmp_path / "releases/x")
    assert [one["after"] for one in shown if "after" in one] == [file["content"]]
