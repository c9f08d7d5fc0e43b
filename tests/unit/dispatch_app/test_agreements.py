"""What the consumer and its surroundings must agree on, and nothing else would hold together."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib
import yaml

import dispatch_app
from dispatch_app import __main__, settings
from dispatch_app.artifact import PYTHONS

PACKAGE = Path(dispatch_app.__file__).parent
ROOT = PACKAGE.parent


def values(document: Any, suffix: str) -> Iterator[Any]:
    """Yield the value of each key that ends so, at any depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            if str(key).endswith(suffix):
                yield value
            yield from values(value, suffix)
    elif isinstance(document, list):
        for entry in document:
            yield from values(entry, suffix)


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_systemd_leaves_the_service_stopped_after_the_codes_no_restart_mends() -> None:
    files = (ROOT / "roles" / "dispatch").rglob("*.yml")
    given = [value for file in files for value in values(yaml.safe_load(file.read_text()), "fatal_exit_codes")]
    # An argument's specification is no list, and the original program has no such codes.
    lists = [value for value in given if isinstance(value, list) and value]
    assert lists
    assert all(sorted(codes) == sorted(__main__.FATAL) for codes in lists)


def test_the_readme_names_the_codes_no_restart_mends() -> None:
    (section,) = re.findall(r"^## Exit codes\n(.*?)^## ", (PACKAGE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    codes = set(re.findall(r"\b\d+\b", section))
    assert {str(code) for code in __main__.FATAL} <= codes


def test_the_role_asks_where_the_consumer_answers_by_default() -> None:
    role = ROOT / "roles" / "dispatch"
    files = [file for file in role.rglob("*") if file.suffix in (".yml", ".j2", ".py", ".md")]
    asked = {where for file in files for where in re.findall(r"127\.0\.0\.1:\d+", file.read_text())}
    assert asked == {settings.HTTP}


def test_the_readmes_probes_and_the_scenarios_ask_there_too() -> None:
    files = [ROOT / "README.md", PACKAGE / "README.md", *(ROOT / "molecule").rglob("*.yml")]
    probes = r"(127\.0\.0\.1:\d+)(?:/(?:livez|readyz|metrics)|`; serves)"
    asked = {where for file in files for where in re.findall(probes, file.read_text())}
    assert asked == {settings.HTTP}


def test_every_supported_distribution_s_python_is_one_the_artifact_has_wheels_for() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "python_runtime" / "defaults" / "main.yml").read_text())
    interpreters = [system["interpreter"] for system in defaults["python_runtime_systems"].values()]
    pythons = {interpreter.rpartition("python")[2] for interpreter in interpreters}
    assert pythons == set(PYTHONS)


def test_the_oldest_python_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest = min(map(version, PYTHONS))
    assert project["tool"]["ruff"]["target-version"] == "py{}{}".format(*oldest)
    said = [
        re.findall(r"^OLDEST_PYTHON\b.*?= \((.+?)\)", file.read_text(), re.MULTILINE) for file in PACKAGE.rglob("*.py")
    ]
    assert [version(each.replace(", ", ".")) for found in said for each in found] == [oldest]
    newest = max(map(version, PYTHONS))
    assert "Python {}.{} to {}.{}".format(*oldest, *newest) in (PACKAGE / "README.md").read_text()
