"""A release's check runs as the service would start, and what keeps either from starting is named."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import app_wanted
import pytest
from ansible.module_utils import app_check, app_host

from tests.unit.roles.hosts import Host
from tests.unit.roles.test_templates import SERVICE

CHECK = "venv/bin/check"


class Checked:
    """A host whose systemd is a stub: a start of the check runs a script, and then says of it what `state` has."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.script, self.state, self.journal = (
            host,
            "exit 0",
            {"Result": "exit-code", "ExecMainStatus": "1"},
            "",
        )
        self.units, self.states = host.root / "run", host.root / "lib"
        self.written: dict[str, str] = {}  # the units and drop-ins that the check was started with, by path
        files = app_wanted.wanted(SERVICE)["host"]["kinds"]["python"]["files"]
        for name, file in host.wanted["files"].items():
            file["content"] = self.local(files[name]["content"])
        for path in (self.units, self.states):
            path.mkdir()
        host.ran = self.ran
        monkeypatch.setattr(app_check, "UNITS", self.units)
        monkeypatch.setattr(app_check, "UNIT_PATH", (str(host.root / "etc-units"), str(host.root / "usr-units")))
        monkeypatch.setattr(app_check, "STATES", self.states)
        monkeypatch.setattr(app_check, "NAMESPACES", host.root / "max_user_namespaces")
        monkeypatch.setattr(app_check, "STOP_SECONDS", 0.2)
        self.run = subprocess.run
        monkeypatch.setattr(subprocess, "run", self.systemctl)

    def local(self, text: str) -> str:
        """The text of a unit with the places of this host in it."""
        for path, place in (("/etc/dispatch", "etc"), ("/app", "app")):
            text = text.replace(path, str(self.host.root / place))
        return text

    def drop_in(self, directory: str, name: str, text: str) -> Path:
        path = self.host.root / directory / "dispatch.service.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def ran(self, *command: str) -> str:
        if command[0] == "journalctl":
            return self.journal
        return "".join(f"{name}={value}\n" for name, value in self.state.items())

    def systemctl(self, command: list[str], **options: Any) -> Any:
        if command[:2] != ["systemctl", "start"]:
            return subprocess.CompletedProcess(command, 0, "", "")
        files = sorted(path for path in self.units.rglob("*") if path.is_file())
        self.written = {str(path.relative_to(self.units)): path.read_text() for path in files}
        (output,) = (line for line in "\n".join(self.written.values()).splitlines() if "=file:" in line)
        with Path(output.partition(":")[2]).open("w") as said:
            return self.run(["sh", "-c", self.script], timeout=options["timeout"], stdout=said, stderr=said)

    def failure(self, budget: float = 0.2) -> str:
        self.staged = self.host.stage()
        service = dataclasses.replace(self.host.service, budget=budget)
        failure: str = app_check.failed_check(service, self.host.release("new"), self.staged, CHECK)
        return failure


@pytest.fixture
def checked(host: Host, monkeypatch: pytest.MonkeyPatch) -> Checked:
    return Checked(host, monkeypatch)


@pytest.mark.parametrize(
    ("script", "result", "said"),
    [
        ("exit 0", "", ""),
        ("echo no such host; exit 10", "exit-code", "no such host"),
        (r"printf 'a\377'; exit 1", "exit-code", "a\N{REPLACEMENT CHARACTER}"),
        ("exit 1", "exit-code", "exit code 1"),
        ("echo stopped; exit 1", "timeout", "it did not end within 0 s, and was stopped: stopped"),
        ("exec sleep 9", "", "it did not end within 0 s"),
    ],
)
def test_a_check_has_to_pass_in_time(checked: Checked, script: str, result: str, said: str) -> None:
    checked.script, checked.state = script, {"Result": result, "ExecMainStatus": "1"}
    assert checked.failure() == said
    assert "TimeoutStartSec=0.2" in checked.written["dispatch-switch-check.service.d/zzzzzz-check.conf"]
    assert "new secret" not in "".join(checked.written.values())
    assert list(checked.units.iterdir()) == []  # nothing of it stays


def test_a_check_has_all_that_the_start_would_have(checked: Checked) -> None:
    assert checked.failure() == ""
    unit, staged = checked.written["dispatch-switch-check.service"], checked.staged
    asked = checked.host.wanted["files"]["unit"]["content"]
    # The sandbox, the limits and the state directory are word for word those of the unit.
    assert set(asked.splitlines()) - set(unit.splitlines()) == {
        f"WorkingDirectory={checked.host.service.current}",
        f"EnvironmentFile={checked.host.live['environment']}",
        f"LoadCredential=amqp_password:{checked.host.live['credentials']}/amqp_password",
        f"ExecStart={checked.host.service.current}/venv/bin/python -m dispatch_app run",
    }
    assert f"WorkingDirectory={checked.host.release('new')}\n" in unit
    assert f"EnvironmentFile={staged}/environment\n" in unit
    for text in (unit, checked.written["dispatch-switch-check.service.d/zzzz-credentials.conf"]):
        assert f"LoadCredential=amqp_password:{staged}/credentials/amqp_password\n" in text
    last = checked.written["dispatch-switch-check.service.d/zzzzzz-check.conf"]
    assert f"ExecStart=\nExecStart={checked.host.release('new')}/{CHECK}\n" in last


def test_a_check_has_the_new_secrets_in_its_environment(checked: Checked) -> None:
    given = {**SERVICE, "environment_credentials": {"AMQP_PASS": "amqp_password"}}
    unit = app_wanted.wanted(given)["host"]["kinds"]["python"]["files"]["unit"]["content"]
    checked.host.wanted["files"]["unit"]["content"] = checked.local(unit)
    assert checked.failure() == ""
    lines = checked.written["dispatch-switch-check.service"].splitlines()
    assert [line for line in lines if line.startswith("EnvironmentFile=")] == [
        f"EnvironmentFile={checked.staged}/environment",
        f"EnvironmentFile={checked.staged}/credentials/environment",
    ]


def test_a_check_has_the_drop_ins_of_the_real_unit(checked: Checked) -> None:
    checked.drop_in("usr-units", "a.conf", "hidden by the one in /etc")
    checked.drop_in("etc-units", "a.conf", "# a")
    checked.drop_in("usr-units", "b.conf", "# b")
    checked.drop_in("etc-units", "zzzz-credentials.conf", "# of the version before")
    checked.failure()
    found = {name: text for name, text in checked.written.items() if name.endswith((".d/a.conf", ".d/b.conf"))}
    assert found == {"dispatch-switch-check.service.d/a.conf": "# a", "dispatch-switch-check.service.d/b.conf": "# b"}
    assert "of the version before" not in "".join(checked.written.values())
    # The check's own lines, which let nothing but its process run, have the last word.
    assert max(checked.written) == "dispatch-switch-check.service.d/zzzzzz-check.conf"


def test_a_state_directory_that_is_a_link_is_named_with_the_remedy(checked: Checked) -> None:
    volume, state = checked.host.root / "volume", checked.states / "dispatch"
    volume.mkdir()
    state.symlink_to(volume)
    checked.script, checked.state = "exit 1", {"Result": "exit-code", "ExecMainStatus": "238"}
    checked.journal = "Failed to set up special execution directory"
    failure = checked.failure()
    assert failure.startswith(f"Failed to set up special execution directory\n{state} is a symbolic link")
    assert f"echo '{volume} {state} none bind 0 0' >> /etc/fstab" in failure
    assert state.is_symlink()


@pytest.mark.parametrize("status", ["217", "226"])
def test_user_namespaces_that_are_off_are_named_with_the_remedy(checked: Checked, status: str) -> None:
    (checked.host.root / "max_user_namespaces").write_text("0\n")
    checked.script, checked.state = "exit 1", {"Result": "exit-code", "ExecMainStatus": status}
    assert "sysctl user.max_user_namespaces=" in checked.failure()
    (checked.host.root / "max_user_namespaces").write_text("1000\n")
    assert "sysctl" not in checked.failure()


@pytest.mark.parametrize(("name", "named"), [("zzz-lxc-service.conf", False), ("zzzzz.conf", True)])
def test_a_drop_in_that_takes_the_credentials_is_named_unless_ours_gives_them_back(
    checked: Checked, name: str, named: bool
) -> None:
    path = checked.drop_in("etc-units", name, "[Service]\nLoadCredential=\n")
    checked.script = "echo AMQP_PASS is not set; exit 78"
    checked.state = {"Result": "exit-code", "ExecMainStatus": "78", "DropInPaths": str(path)}
    failure = checked.failure()
    assert failure.startswith("AMQP_PASS is not set")
    assert (f"{path} takes all credentials" in failure) is named


@pytest.mark.parametrize("held", [False, True])
def test_a_state_directory_that_only_a_failed_check_has_made_goes(checked: Checked, held: bool) -> None:
    state = checked.states / "dispatch"
    checked.script = f"mkdir {state}; touch {state}/{'ledger' if held else '../x'}; exit 1"
    checked.failure()
    assert state.exists() is held


def test_a_state_directory_that_was_there_stays(checked: Checked) -> None:
    (checked.states / "dispatch").mkdir()
    checked.script = "exit 1"
    checked.failure()
    assert (checked.states / "dispatch").is_dir()


@pytest.mark.parametrize(
    ("drop_in", "stale", "reloads"),
    [(app_check.LAST, "no", 0), (app_check.LAST, "yes", 1), ("an-earlier.conf", "no", 1)],
)
def test_systemd_is_told_to_reload_where_it_does_not_see_the_check(
    checked: Checked, drop_in: str, stale: str, reloads: int
) -> None:
    reloaded: list[tuple[str, ...]] = []

    def ran(*command: str) -> str:
        if command[1] == "daemon-reload":
            reloaded.append(command)
        seen = checked.units / "dispatch-switch-check.service.d" / drop_in
        return f"DropInPaths=/usr/lib/systemd/system/service.d/10.conf {seen}\nNeedDaemonReload={stale}\n"

    checked.host.ran = ran
    assert checked.failure() == ""
    assert len(reloaded) == reloads


def test_a_systemd_that_does_not_answer_is_told(checked: Checked) -> None:
    def ran(*command: str) -> str:
        raise app_host.CommandError(f"`{' '.join(command)}` failed: Connection refused")

    checked.host.ran = ran
    assert checked.failure() == "`systemctl daemon-reload` failed: Connection refused"
    assert list(checked.units.iterdir()) == []
