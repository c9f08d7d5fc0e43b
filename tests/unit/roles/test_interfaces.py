"""Every role's defaults, argument specs and README say the same."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())


@cache
def load(role: str, file: str) -> Any:
    return yaml.safe_load((ROLES / role / file).read_text())


@cache
def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of all of a role's entry points, by name."""
    specs = load(role, "meta/argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}


def test_the_roles_are_the_runbook_s_steps() -> None:
    assert NAMES == [
        "app_account",
        "app_release",
        "app_runbook",
        "app_service",
        "backup",
        "dispatch",
        "go_runtime",
        "monitoring",
        "payment",
        "postgresql",
        "python_runtime",
        "rabbitmq",
    ]


@pytest.mark.parametrize("role", NAMES)
def test_every_default_is_an_option(role: str) -> None:
    assert load(role, "defaults/main.yml").keys() <= options(role).keys()


@pytest.mark.parametrize("role", NAMES)
def test_an_option_without_a_default_is_required_or_says_so(role: str) -> None:
    defaults = load(role, "defaults/main.yml")
    for name, option in options(role).items():
        if name not in defaults:
            assert option.get("required") or option["description"].startswith("Required."), name


@pytest.mark.parametrize("role", NAMES)
def test_the_specs_give_the_defaults_that_are_in_force(role: str) -> None:
    defaults = load(role, "defaults/main.yml")
    for name, option in options(role).items():
        if "default" in option:
            assert option["default"] == defaults[name], name


@pytest.mark.parametrize("role", NAMES)
def test_the_specs_of_one_role_agree_on_an_option(role: str) -> None:
    specs = load(role, "meta/argument_specs.yml")["argument_specs"]
    for spec in specs.values():
        for name, option in spec.get("options", {}).items():
            assert option.get("type") == options(role)[name].get("type"), name


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_names_every_option(role: str) -> None:
    readme = (ROLES / role / "README.md").read_text()
    for name in options(role):
        assert f"| `{name}` |" in readme


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_names_the_entry_points_that_have_tasks_and_a_spec(role: str) -> None:
    readme = (ROLES / role / "README.md").read_text()
    (line,) = re.findall(r"^Other entry points \(`tasks_from`\): .*", readme, re.MULTILINE)
    named = set(re.findall(r"[:;] `(\w+)`,", line))
    assert named == load(role, "meta/argument_specs.yml")["argument_specs"].keys() - {"main"}
    assert named <= {file.stem for file in (ROLES / role / "tasks").glob("*.yml")}


@pytest.mark.parametrize("role", NAMES)
def test_secrets_are_marked(role: str) -> None:
    for name, option in options(role).items():
        if "password" in name or "credentials" in name:
            assert option.get("no_log") is True, name


@pytest.mark.parametrize("role", [name for name in NAMES if name not in ("rabbitmq", "postgresql")])
def test_only_the_roles_of_the_other_ends_may_use_community_collections(role: str) -> None:
    for file in (ROLES / role / "tasks").glob("*.yml"):
        for task in tasks(yaml.safe_load(file.read_text())):
            modules = [key for key in task if "." in key]
            assert all(module.startswith("ansible.builtin.") for module in modules), (file, modules)


@pytest.mark.parametrize("role", NAMES)
def test_an_internal_variable_is_read_in_its_own_role_alone(role: str) -> None:
    others = [name for name in NAMES if name != role]
    files = [file for folder in ("tasks", "defaults", "vars", "handlers") for file in (ROLES / role / folder).glob("*")]
    files += [*(ROLES / role).glob("templates/*")]
    for file in files:
        read = set(re.findall(r"\b__([a-z_]+)", file.read_text()))
        assert not [name for name in read if any(name.startswith(f"{other}_") for other in others)], file


def test_no_playbook_reads_an_internal_variable_of_a_role() -> None:
    for file in (ROLES.parent / "playbooks").glob("*.yml"):
        read = set(re.findall(r"\b__([a-z_]+)", file.read_text()))
        assert not [name for name in read if any(name.startswith(f"{role}_") for role in NAMES)], file


def test_logic_stands_in_modules_and_filters_not_in_jinja() -> None:
    files = [file for folder in ("vars", "defaults") for file in ROLES.glob(f"*/{folder}/*.yml")]
    assert sum(file.read_text().count("{%") for file in files) <= 5


@pytest.mark.parametrize("role", NAMES)
def test_no_task_carries_a_program(role: str) -> None:
    for file in (ROLES / role / "tasks").glob("*.yml"):
        for task in tasks(yaml.safe_load(file.read_text())):
            for module in ("ansible.builtin.command", "ansible.builtin.shell", "ansible.builtin.script"):
                assert not re.search(r"'-c'|\blookup\(|'-s'", str(task.get(module, ""))), (file, task["name"])


def tasks(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All tasks of a file, those within blocks included."""
    found = []
    for entry in entries:
        found.append(entry)
        for part in ("block", "rescue", "always"):
            found += tasks(entry.get(part, []))
    return found
