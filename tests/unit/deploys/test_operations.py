"""The second engine's operations yield commands only where a host differs, and secrets on standard input alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactProcessError

from deploys import operations, programs
from deploys.facts import Answer

SECRET = "not-to-be-seen"  # noqa: S105 - that of no service

ACCOUNT = {"name": "roboshop", "comment": "RoboShop services", "shell": "/usr/sbin/nologin"}
ENTRY = {key: ACCOUNT[key] for key in ("comment", "shell")}


@pytest.mark.parametrize(
    ("found", "commands"),
    [
        (
            None,
            [
                "useradd --system --no-create-home --comment 'RoboShop services' --home-dir /app "
                "--shell /usr/sbin/nologin roboshop"
            ],
        ),
        ({**ENTRY, "locked": True}, []),
        ({**ENTRY, "locked": False}, ["usermod --lock roboshop"]),
        ({**ENTRY, "shell": "/bin/sh", "locked": True}, ["usermod --shell /usr/sbin/nologin roboshop"]),
        ({"comment": "Shop", "shell": "/bin/sh", "locked": False, "foreign": True}, []),
    ],
)
def test_an_account_is_changed_in_what_differs(found: dict[str, Any] | None, commands: list[str]) -> None:
    assert [command.get_raw_value() for command in operations.account._inner(ACCOUNT, found, "/app")] == commands


def test_a_new_user_gets_the_group_of_its_name_that_is_there() -> None:
    (command,) = operations.account._inner(ACCOUNT, None, "/app", group=True)
    assert command.get_raw_value().endswith(" --gid roboshop roboshop")


def test_a_directory_is_labelled_where_selinux_says_so() -> None:
    wanted = {"path": "/app", "owner": "root", "group": "root", "mode": "0755", "setype": "usr_t"}
    label = "[ ! -e /sys/fs/selinux/enforce ] || chcon --type usr_t /app"
    created = [command.get_raw_value() for command in operations.directory._inner(wanted, ["missing"])]
    assert created == ["install --directory --owner root --group root --mode 0755 /app", label]
    assert [command.get_raw_value() for command in operations.directory._inner(wanted, ["setype"])][-1] == label
    assert len(list(operations.directory._inner(wanted, ["mode"]))) == 1
    assert not list(operations.directory._inner(wanted, []))


@pytest.mark.parametrize("manager", ["apt", "dnf"])
def test_packages_are_installed_where_they_are_missing(manager: str) -> None:
    (command,) = operations.packages._inner(manager, ["one", "two words"])
    assert "one 'two words'" in command.get_raw_value()
    assert not list(operations.packages._inner(manager, []))


def test_secrets_travel_on_standard_input_alone() -> None:
    (switch,) = operations.role_program._inner("app_switching", {"credentials": SECRET})
    assert SECRET not in switch.get_raw_value()
    stdin = switch.connector_arguments["_stdin"]
    assert SECRET in json.loads(stdin)["request"]["credentials"]
    assert SECRET not in f"{stdin} {stdin!r} {[stdin]}"


def test_a_program_brings_the_modules_it_is_made_of() -> None:
    names = [name for name, _ in programs.modules("app_switching")]
    assert names[-1] == "app_switching"
    for name, text in programs.modules("app_switching"):
        for other in names[names.index(name) + 1 :]:
            assert f"ansible.module_utils.{other} import" not in text
    assert {"app_releases", "app_host", "app_comparison", "app_proof"} <= set(names)


@pytest.mark.parametrize("program", ["app_survey", "app_fetch", "app_build", "app_switching"])
def test_a_program_runs_without_ansible(program: str) -> None:
    request = json.dumps({"modules": programs.modules(program), "request": {}, "files": {}})
    done = subprocess.run([sys.executable, *programs.COMMAND[1:]], input=request, capture_output=True, text=True)
    # Nothing is missing but what the request should have said.
    assert "KeyError" in done.stderr, done.stderr


def test_a_program_s_exit_code_is_the_command_s() -> None:
    modules = [
        ("one", "VALUE = 3\n"),
        ("two", "from ansible.module_utils.one import VALUE\ndef main(x): return VALUE + x\n"),
    ]
    request = json.dumps({"modules": modules, "request": 4, "files": {}})
    done = subprocess.run([sys.executable, *programs.COMMAND[1:]], input=request, text=True)
    assert done.returncode == 7


def test_a_release_s_artifact_travels_with_the_request_for_it(tmp_path: Path) -> None:
    artifact, there = tmp_path / "an artifact.zip", tmp_path / "there.zip"
    artifact.write_bytes(b"\0\xffno zip")
    request = {"plan": {"artifact": str(there)}}
    (build,) = operations.role_program._inner("app_build", request, {str(there): artifact})
    request = build.connector_arguments["_stdin"]
    subprocess.run([sys.executable, *programs.COMMAND[1:]], input=request, text=True, stderr=subprocess.DEVNULL)
    assert there.read_bytes() == artifact.read_bytes()
    assert there.stat().st_mode & 0o777 == 0o600
    (build,) = operations.role_program._inner("app_build", request)
    assert json.loads(build.connector_arguments["_stdin"])["files"] == {}


ANSWER = {"changes": ["a {brace}"], "steps": {"runtime": False}}


@pytest.mark.parametrize(
    "printed",
    [
        [json.dumps(ANSWER)],
        ["Welcome!", "", json.dumps(ANSWER)],
        [f"Welcome! {{0}} {json.dumps(ANSWER)}"],
        ['{"message": "of the day"}', json.dumps(ANSWER), "bye"],
    ],
)
def test_a_host_s_answer_is_read_whatever_its_login_prints(printed: list[str]) -> None:
    assert Answer().process(printed) == ANSWER


def test_a_host_that_gives_no_answer_is_no_crash() -> None:
    with pytest.raises(FactProcessError, match=r"no answer among what the host printed: .*Welcome"):
        Answer().process(["Welcome!"])
