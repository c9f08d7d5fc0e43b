"""Another service beside Dispatch on one host, from a role of ten lines and the roles that know nothing of Dispatch."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import DISPATCH, TestLab
from tests.lab.ansible import ROOT, Run, playbook

pytestmark = pytest.mark.long

ECHO = ROOT / "tests" / "integration" / "echo"


@pytest.fixture
def echo(lab: TestLab) -> Iterator[Callable[..., Run]]:
    """Runs an entry point of the echo service's role; removes the service afterwards."""

    def run(entry: str, **variables: object) -> Run:
        given = json.dumps({"echo_entry": entry, "echo_artifact": "x", "echo_greeting": "", **variables})
        return playbook("../tests/integration/echo/playbook", "-e", given, inventory=lab.inventory)

    yield run
    removed = run("remove", app_runbook_remove_state=True)
    assert removed.code == 0, removed.output
    left = "ls -d /srv/echo /etc/echo /etc/systemd/system/echo.service /var/lib/echo 2>/dev/null || :"
    assert lab.run(DISPATCH, "sh", "-c", left) == ""


def artifact(directory: Path, note: str) -> str:
    path = directory / f"{note}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(ECHO / "app" / "echo.py", "echo.py")
        archive.writestr("requirements.txt", "")
        archive.writestr("NOTE", note)
    return str(path)


def test_its_role_is_the_ten_lines_of_the_readme_and_copies_nothing() -> None:
    role = (ECHO / "roles" / "echo" / "tasks" / "main.yml").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "roles" / "README.md").read_text(), re.DOTALL)
    assert role == f"---\n{shown}"
    assert len(role.splitlines()) <= 10
    assert "dispatch" not in role


def test_it_is_provisioned_changed_and_rolled_back_beside_dispatch(
    lab: TestLab, echo: Callable[..., Run], tmp_path: Path
) -> None:
    def greeting() -> str:
        return lab.run(DISPATCH, "curl", "--silent", "--fail", "http://127.0.0.1:9700/")

    def note() -> str:
        return lab.run(DISPATCH, "cat", "/srv/echo/current/NOTE")

    before = lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID")
    first, second = artifact(tmp_path, "first"), artifact(tmp_path, "second")

    run = echo("main", echo_artifact=first, echo_greeting="hello")
    assert run.code == 0, run.output
    assert (greeting(), note()) == ("hello", "first")
    assert echo("main", echo_artifact=first, echo_greeting="hello").changed == 0

    run = echo("main", echo_artifact=first, echo_greeting="good day")
    assert run.code == 0, run.output
    assert greeting() == "good day"

    run = echo("main", echo_artifact=second, echo_greeting="good day")
    assert (run.code, note()) == (0, "second"), run.output

    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("requirements.txt", "")
        archive.writestr("echo.py", "raise SystemExit('broken')")
    run = echo("main", echo_artifact=str(broken), echo_greeting="good day")
    assert run.code != 0
    assert "are back, and healthy" in run.output
    assert (greeting(), note()) == ("good day", "second")

    run = echo("rollback", echo_artifact=second, echo_greeting="good day")
    assert (run.code, note()) == (0, "first"), run.output

    assert lab.run(DISPATCH, "systemctl", "show", "dispatch", "-p", "InvocationID") == before
    lab.assert_consuming()
