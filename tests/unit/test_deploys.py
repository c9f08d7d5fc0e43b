"""The pyinfra deploys read the inventory and the roles as Ansible does, and yield commands only where hosts differ."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploys import operations, provision
from deploys.connection import reach
from deploys.facts import PROGRAM
from deploys.project import Project, ProjectError, Target

# What a fresh Debian host answers.
FOUND: dict[str, Any] = {
    "paths": {},
    "link": "",
    "interrupted": False,
    "texts": {"/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'},
    "unit": {"UnitFileState": "", "ActiveState": "inactive"},
    "ready": "systemd says inactive",
    "account": None,
    "packages": [],
    "complete": [],
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """A project whose only host, h1, has the variables given; those that are None are left out."""
    artifact = tmp_path / "good.zip"
    with zipfile.ZipFile(artifact, "w") as archive:
        archive.writestr("requirements.txt", "")
    good = {
        "ansible_host": "192.0.2.1",
        "dispatch_amqp_host": "rabbit",
        "dispatch_amqp_password": "not-to-be-seen",
        "dispatch_artifact": str(artifact),
    }

    def make(**variables: object) -> Project:
        values = {key: value for key, value in {**good, **variables}.items() if value is not None}
        inventory = tmp_path / "hosts.yml"
        inventory.write_text(json.dumps({"all": {"children": {"dispatch": {"hosts": {"h1": values}}}}}))
        made.append(Project([str(inventory)]))
        return made[-1]

    made: list[Project] = []
    yield make
    for one in made:
        one.variables.extra_vars.clear()  # Ansible keeps them for the whole process


def check(target: Target) -> None:
    """All that is checked before a fresh Debian host changes."""
    target.check_settings()
    target.check(FOUND)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"dispatch_amqp_host": None}, "dispatch_amqp_host is not set. Set it in the inventory"),
        ({"dispatch_amqp_port": 0}, "dispatch_amqp_port is 0. Set it to a port from 1 to 65535"),
        ({"dispatch_amqp_port": "amqp"}, "unable to convert to int"),
        ({"dispatch_amqp_password": None}, "dispatch_amqp_password is not set. Put the password"),
        ({"dispatch_amqp_password": ""}, "dispatch_amqp_password is not set. Put the password"),
        ({"dispatch_amqp_password": 12345678}, "dispatch_amqp_password is a number to YAML"),
        ({"dispatch_amqp_password": 0}, 'Put it in quotes: dispatch_amqp_password: "…"'),
        ({"dispatch_serial": "some"}, 'dispatch_serial is "some". Set it to a list'),
        ({"dispatch_serial": []}, "dispatch_serial is []. Set it to a list"),
        ({"dispatch_serial": [1, "0%"]}, 'dispatch_serial is [1, "0%"]. Set it to a list'),
        ({"dispatch_max_fail_percentage": 101}, "dispatch_max_fail_percentage is 101. Set it to a percentage"),
        ({"dispatch_max_fail_percentage": -1}, "dispatch_max_fail_percentage is -1. Set it to a percentage"),
        ({"dispatch_releases_kept": 0}, "dispatch_releases_kept is 0. Set it to 1"),
        ({"dispatch_start_seconds": 0}, "dispatch_start_seconds is 0. Set it to the seconds"),
        ({"dispatch_environment": "a=b"}, "dispatch_environment is not a dictionary"),
        ({"dispatch_environment": {"Dispatch": 1}}, "dispatch_environment has the setting Dispatch. Take a name"),
        ({"dispatch_environment": {"AMQP_PASS": "x"}}, "dispatch_environment has the setting AMQP_PASS. Take a name"),
        ({"dispatch_environment": {"STATE_DIRECTORY": "/x"}}, "has the setting STATE_DIRECTORY. Take a name"),
        ({"dispatch_environment": {"DISPATCH_HOOK": "a\nb"}}, "dispatch_environment.DISPATCH_HOOK has a line break"),
        ({"dispatch_artifact": "/nowhere.zip"}, "dispatch_artifact is /nowhere.zip, and there is no such file"),
        ({"dispatch_artifact": __file__}, "not a readable zip file (zipfile.BadZipFile: File is not a zip file)"),
        ({"dispatch_artifact_sha256": "0" * 64}, f"but dispatch_artifact_sha256 says {'0' * 64}"),
        ({"dispatch_artifact": "http://h/x.zip"}, "required where dispatch_artifact is a URL"),
        (
            {"python_runtime_systems": {"Slackware-15": {}}},
            "Debian GNU/Linux 12 (bookworm) is not a supported system. Supported: Slackware-15",
        ),
    ],
)
def test_bad_values_are_refused_in_the_role_s_words(
    project: Callable[..., Project], variables: dict[str, object], said: str
) -> None:
    target = project(**variables).host("h1", {})
    with pytest.raises(ProjectError) as refused:
        check(target)
    assert said in " ".join(str(refused.value).split())
    assert "not-to-be-seen" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "url", "stop"),
    [
        ({}, "http://127.0.0.1:9672/readyz", 30),
        ({"DISPATCH_HTTP": "0.0.0.0:80", "DISPATCH_STOP_SECONDS": 5}, "http://127.0.0.1:80/readyz", 15),
        ({"DISPATCH_HTTP": "10.0.0.1:80", "DISPATCH_STOP_SECONDS": "60"}, "http://10.0.0.1:80/readyz", 70),
    ],
)
def test_the_consumer_s_further_settings_reach_it_and_its_unit(
    project: Callable[..., Project], given: dict[str, object], url: str, stop: int
) -> None:
    target = project(dispatch_environment={**given, "DISPATCH_RETENTION_DAYS": 90}).host("h1", {})
    check(target)
    question = target.value("app_service", "__app_service_question")
    environment = question["paths"]["/etc/dispatch/environment"]["content"].splitlines()
    assert 'DISPATCH_RETENTION_DAYS="90"' in environment
    assert {f'{name}="{value}"' for name, value in given.items()} <= set(environment)
    assert 'AMQP_HOST="rabbit"' in environment
    unit = question["paths"]["/etc/systemd/system/dispatch.service"]["content"]
    assert f"TimeoutStopSec={stop}\n" in unit
    assert question["ready_url"] == url


def marks(*releases: tuple[str, int, int | None]) -> dict[str, Any]:
    """What a host says of its releases, each with the moments it was built and made live."""
    moments = {f"{name}/.complete": built for name, built, _ in releases}
    moments |= {f"{name}/.activated": live for name, _, live in releases if live is not None}
    return {"files": [{"path": f"/app/releases/{path}", "mtime": moment} for path, moment in moments.items()]}


@pytest.mark.parametrize(
    ("live", "releases", "before"),
    [
        ("b", [("a", 1, 2), ("b", 3, 4)], "a"),
        ("a", [("a", 1, 5), ("b", 3, 4)], ""),  # rolled back already: b would be forward
        ("c", [("a", 1, 5), ("b", 3, 4), ("c", 6, 7)], "a"),
        ("b", [("a", 1, None), ("b", 3, 4)], ""),
        ("b", [("a.damaged", 1, 2), ("b", 3, 4)], ""),
        ("", [], ""),
    ],
)
def test_a_rollback_goes_to_the_release_before_and_never_forward(
    project: Callable[..., Project], live: str, releases: list[tuple[str, int, int | None]], before: str
) -> None:
    current = {"stat": {"lnk_target": f"/app/releases/{live}"} if live else {}}
    found = {"__dispatch_marks": marks(*releases), "__dispatch_current": current}
    target = project().host("h1", {}).value("dispatch", "__dispatch_target", **found)
    assert target.removeprefix("/app/releases/") == before


@pytest.mark.parametrize(
    ("release", "h1", "h2", "said"),
    [
        ("", ("b", "a"), ("b", "a"), ""),
        ("a", ("a", "a"), ("b", "a"), ""),
        ("", ("a", ""), ("b", "a"), "dispatch_release is not set, and the hosts differ"),
        ("", ("b", "a"), ("b", "z"), "dispatch_release is not set, and the hosts differ"),
        ("", ("a", ""), ("a", ""), "is older than the live one, does not stand on h1, h2."),
        ("x", ("b", "x"), ("b", "x"), "The release dispatch_release = x does not stand on h1, h2."),
    ],
)
def test_all_hosts_roll_back_to_one_release(
    project: Callable[..., Project], release: str, h1: tuple[str, str], h2: tuple[str, str], said: str
) -> None:
    fleet = {"h1": h1, "h2": h2}
    standing = {
        host: {"__dispatch_standing": {"live": live, "target": target, "releases": ["a", "b", "z"]}}
        for host, (live, target) in fleet.items()
    }
    target = project(dispatch_release=release).host("h1", {})
    complaint = target.value(
        "dispatch", "__dispatch_rollback_complaint", ansible_play_batch=list(fleet), hostvars=standing
    )
    complaint = " ".join((complaint or "").split())
    assert said in complaint
    assert bool(said) == bool(complaint)
    if said:
        assert f"on h1 {h1[0]} is live, and of those that have been there stand: a, b, z; on h2 {h2[0]}" in complaint


@pytest.mark.parametrize(
    ("serial", "batches"),
    [
        (["1", "100%"], [(1, ["h1"]), (2, ["h2", "h4"])]),
        (2, [(1, ["h1", "h2"]), (2, ["h4"])]),
        ("34%", [(1, ["h1"]), (2, ["h2"]), (3, ["h4"])]),
    ],
)
def test_hosts_are_switched_in_the_inventory_s_order(
    project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, serial: object, batches: object
) -> None:
    members = [SimpleNamespace(name=f"h{number}") for number in (1, 2, 3, 4)]
    active = [members[number] for number in (3, 0, 1)]
    fleet = SimpleNamespace(get_group=lambda _: members, get_active_hosts=lambda: active)
    monkeypatch.setattr(provision, "inventory", fleet)
    assert provision._batches(project(dispatch_serial=serial).host("h1", {})) == batches


@pytest.mark.parametrize(("others", "agree"), [("5", True), (6, False)])
def test_hosts_that_disagree_on_the_roll_out_are_refused(
    project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, others: object, agree: bool
) -> None:
    targets = {"h1": project(dispatch_serial=5).host("h1", {}), "h2": project(dispatch_serial=others).host("h1", {})}
    members = [SimpleNamespace(name=name) for name in targets]
    fleet = SimpleNamespace(get_group=lambda _: members, get_active_hosts=lambda: members, get_override_data=dict)
    monkeypatch.setattr(provision, "inventory", fleet)
    monkeypatch.setattr(provision, "load", lambda: SimpleNamespace(host=lambda name, _: targets[name]))
    provision._serials.cache_clear()
    asked = SimpleNamespace(get_fact=lambda *_, **__: None)
    monkeypatch.setattr(provision, "host", asked)
    said = "this host could not be inspected" if agree else "Hosts of this run have different values of dispatch_serial"
    with pytest.raises(ProjectError, match=said):
        provision._provision(targets["h1"])
    provision._serials.cache_clear()


def test_a_limit_leaves_the_others_in_force(project: Callable[..., Project]) -> None:
    target = project(dispatch_limits={"CPUQuota": "50%", "TasksMax": 8}).host("h1", {})
    check(target)
    question = target.value("app_service", "__app_service_question")
    unit = question["paths"]["/etc/systemd/system/dispatch.service"]["content"].splitlines()
    assert {"CPUQuota=50%", "TasksMax=8", "MemoryMax=512M"} <= set(unit)
    assert "TasksMax=64" not in unit


@pytest.mark.parametrize(
    ("serial", "group"),
    [
        (10, "dispatch_serial_10"),
        ("30%", "dispatch_serial_30p"),
        ([1, "100%"], "dispatch_serial_1_100p"),
    ],
)
def test_a_roll_out_in_one_value_is_one_batch_after_another(
    project: Callable[..., Project], serial: object, group: str
) -> None:
    target = project(dispatch_serial=serial).host("h1", {})
    check(target)
    assert target.value("dispatch", "__dispatch_rollout")[0] == group


def test_a_release_is_where_the_role_builds_it(project: Callable[..., Project]) -> None:
    target = project().host("h1", {"dispatch_amqp_host": "other"})
    target.check(FOUND)
    (current,) = target.arguments("app_service", "Plan | Compare the release")
    assert current["src"] == target.value("app_release", "__app_release_directory")
    assert current["src"].endswith("-python3.11")
    question = target.value("app_service", "__app_service_question")
    assert 'AMQP_HOST="other"' in question["paths"]["/etc/dispatch/environment"]["content"]


def test_a_task_is_found_in_a_file_that_an_included_file_includes(project: Callable[..., Project]) -> None:
    assert project().task("app_service", "Await | Say why it is not").action == "ansible.builtin.fail"


def test_a_host_is_reached_as_the_ssh_arguments_say(project: Callable[..., Project], tmp_path: Path) -> None:
    known, configuration, password = tmp_path / "known_hosts", tmp_path / "config", "for sudo"
    known.touch()
    configuration.write_text("Host 192.0.2.1\n  Port 2200\n  ProxyJump me@first,bastion:2222\n  IdentityFile /key\n")
    variables = {
        "ansible_user": "ec2-user",
        "ansible_ssh_common_args": f"-F {configuration} -o UserKnownHostsFile={known}",
        "ansible_become_password": password,
    }
    data = reach(project(**variables), "h1")
    written = Path(data.pop("ssh_config_file")).read_text().splitlines()
    assert f"UserKnownHostsFile {known}" in written
    assert "IdentityFile /key" in written
    jump = "ssh -F {configuration} -J me@first -W '[192.0.2.1]:2200' ssh://bastion:2222"
    assert f"ProxyCommand {jump.format(configuration=configuration)}" in written
    assert data == {
        "ssh_hostname": "192.0.2.1",
        "ssh_port": 2200,
        "ssh_user": "ec2-user",
        "ssh_strict_host_key_checking": "yes",
        "_sudo": True,
        "_sudo_password": password,
    }


def test_an_option_that_ssh_does_not_know_is_named(project: Callable[..., Project]) -> None:
    with pytest.raises(ProjectError, match=r"h1: .*nosuchoption.* Correct its ssh arguments"):
        reach(project(ansible_ssh_extra_args="-o NoSuchOption=1"), "h1")


def test_a_host_that_is_not_reached_over_ssh_is_refused(project: Callable[..., Project]) -> None:
    with pytest.raises(ProjectError, match=r"h1: ansible_connection is local, .* set it to ssh"):
        reach(project(ansible_connection="local"), "h1")


@pytest.mark.parametrize(
    ("release", "python", "manager"),
    [
        ('ID=debian\nVERSION_ID="13"', "python3.13", "apt"),
        ('NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian', "python3.10", "apt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"', "python3.11", "dnf"),
        ("ID=almalinux\nID_LIKE='rhel centos fedora'\nVERSION_ID='9.6'", "python3.11", "dnf"),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.6"', "python3.11", "dnf"),
        ('ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"', "python3.11", "dnf"),
    ],
)
def test_a_system_is_known_by_its_os_release(
    project: Callable[..., Project], release: str, python: str, manager: str
) -> None:
    target = project().host("h1", {})
    target.check({**FOUND, "texts": {"/etc/os-release": release}})
    assert target.value("python_runtime", "python_runtime_interpreter") == f"/usr/bin/{python}"
    assert target.value("python_runtime", "python_runtime_manager") == manager


def test_a_system_without_a_version_is_refused(project: Callable[..., Project]) -> None:
    with pytest.raises(ProjectError, match="Arch Linux is not a supported system"):
        project().host("h1", {}).check({**FOUND, "texts": {"/etc/os-release": "PRETTY_NAME='Arch Linux'\nID=arch"}})


def test_an_inspection_says_in_what_a_path_differs(tmp_path: Path) -> None:
    inspection = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
    file = tmp_path / "file"
    file.write_text("what is there")
    file.chmod(0o640)
    entry = {"owner": file.owner(), "group": file.group(), "mode": "0640"}
    same = {**entry, "content": "what is there"}
    assert inspection.differences(file, same) == []
    assert inspection.differences(file, {**same, "mode": "0600"}) == ["mode"]
    assert inspection.differences(file, {**same, "owner": "x", "group": "y"}) == ["owner", "group"]
    assert inspection.differences(file, {**same, "content": "another"}) == ["content"]
    assert inspection.differences(file, entry) == ["another kind of file"]
    assert inspection.differences(tmp_path / "none", same) == ["missing"]
    link = tmp_path / "link"
    link.symlink_to(file)
    assert inspection.differences(link, same) == ["another kind of file"]


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        ("active", 200, ""),
        ("active", 503, "{url} answers HTTP/1.0 503 Service Unavailable: not connected\nto a broker"),
        ("active", None, "{url} does not answer: [Errno 111] Connection refused"),
        ("activating", 200, "systemd says activating"),
        ("", 200, "systemd says nothing of it"),
    ],
)
def test_an_inspection_says_why_a_service_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, state: str, status: int | None, said: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" and status else 404)
            self.end_headers()
            self.wfile.write(b"not connected\nto a broker\n")

    shown = f"ActiveState={state}\nUnitFileState=enabled\n" if state else ""
    inspection = runpy.run_path(str(PROGRAM))
    monkeypatch.setitem(inspection["service"].__globals__, "run", lambda *_: shown)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/readyz"
        if status:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        else:
            server.server_close()
        answer = inspection["service"]("dispatch", url, 0)
        if status:
            server.shutdown()
    assert answer["ready"] == said.format(url=url)


def test_an_inspection_waits_until_the_service_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["activating", "activating", "active"]
    inspection = runpy.run_path(str(PROGRAM))
    monkeypatch.setitem(inspection["service"].__globals__, "run", lambda *_: f"ActiveState={states.pop(0)}\n")
    assert inspection["service"]("dispatch", "", 30)["ready"] == ""


@pytest.mark.parametrize(("ready", "settled"), [("", True), ("http://127.0.0.1:9672/readyz answers 503", False)])
def test_a_host_that_is_not_ready_is_not_settled(project: Callable[..., Project], ready: str, settled: bool) -> None:
    target = project().host("h1", {})
    check(target)
    release = target.value("app_release", "__app_release_directory")
    packages = target.value("python_runtime", "python_runtime_packages")
    found = {
        **FOUND,
        "link": release,
        "complete": [release],
        "packages": packages,
        "paths": {"/app": []},
        "account": {"comment": "RoboShop services", "shell": "/usr/sbin/nologin", "locked": True},
        "unit": {"UnitFileState": "enabled", "ActiveState": "active"},
        "ready": ready,
    }
    target.check(found)
    assert target.value("dispatch", "__dispatch_settled") is settled
    assert target.value("app_service", "__app_service_runs") is settled
    question, failure = provision._await(target)
    assert question["within"] == 60
    assert question["ready_url"] == "http://127.0.0.1:9672/readyz"
    assert "not-to-be-seen" not in json.dumps(question)
    assert "dispatch is not ready after 60 s: see above" in failure


@pytest.mark.parametrize(("ready", "code"), [("", 0), ("503", 1)])
def test_an_inspection_s_word_is_an_exit_code(ready: str, code: int) -> None:
    command = [sys.executable, "-c", operations.REASON]
    told = subprocess.run(command, input=json.dumps({"ready": ready}), capture_output=True, text=True)
    assert (told.returncode, told.stderr.strip()) == (code, ready)


ACCOUNT = {"name": "roboshop", "comment": "RoboShop services", "home": "/app", "shell": "/usr/sbin/nologin"}
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
    ],
)
def test_an_account_is_changed_in_what_differs(found: dict[str, Any] | None, commands: list[str]) -> None:
    assert [command.get_raw_value() for command in operations.account._inner(ACCOUNT, found)] == commands


def test_secrets_travel_on_standard_input_alone(project: Callable[..., Project]) -> None:
    target = project().host("h1", {})
    check(target)
    (activate,) = target.arguments("app_service", "Activate | Check the new state, switch to it, prove it or go back")
    (switch,) = operations.activation._inner(True, lambda: activate)
    assert "not-to-be-seen" not in switch.get_raw_value()
    contents = json.loads(switch.connector_arguments["_stdin"])
    assert {name: file["mode"] for name, file in contents.items()} == {
        "environment": "0644",
        "unit": "0644",
        "command": "0755",
        "credentials/amqp_password": "0600",
    }
    assert contents["credentials/amqp_password"]["content"] == "not-to-be-seen"
    assert not list(operations.activation._inner(False, lambda: activate))


def test_a_directory_is_labelled_where_selinux_says_so() -> None:
    wanted = {"path": "/app", "owner": "root", "group": "root", "mode": "0755", "setype": "usr_t"}
    label = "[ ! -e /sys/fs/selinux/enforce ] || chcon --type usr_t /app"
    created = [command.get_raw_value() for command in operations.directory._inner(wanted, ["missing"])]
    assert created == ["install --directory --owner root --group root --mode 0755 /app", label]
    assert [command.get_raw_value() for command in operations.directory._inner(wanted, ["setype"])][-1] == label
    assert len(list(operations.directory._inner(wanted, ["mode"]))) == 1
    assert not list(operations.directory._inner(wanted, []))


@pytest.mark.parametrize(
    ("asked", "before", "now", "drains"),
    [
        (True, None, {}, False),  # nothing is live
        (True, {}, {}, False),
        (True, {}, {"dispatch_amqp_user": "other", "dispatch_amqp_exchange": "roboshop"}, False),
        (True, {"dispatch_amqp_vhost": 'a"\\b'}, {"dispatch_amqp_vhost": 'a"\\b'}, False),
        (True, {}, {"dispatch_amqp_host": "other"}, True),
        (True, {}, {"dispatch_amqp_port": 5673}, True),
        (True, {}, {"dispatch_amqp_vhost": "other"}, True),
        (True, {}, {"dispatch_amqp_queue": "other"}, True),
        (False, {}, {"dispatch_amqp_host": "other"}, False),
    ],
)
def test_only_another_source_of_orders_is_drained(
    project: Callable[..., Project], asked: bool, before: dict[str, object] | None, now: dict[str, object], drains: bool
) -> None:
    path, live = "/etc/dispatch/environment", ""
    if before is not None:
        target = project(**before).host("h1", {})
        check(target)
        question = target.value("app_service", "__app_service_question", dispatch_service_steps=["compare"])
        assert path in question["texts"]
        live = question["paths"][path]["content"]
    target = project(**now, dispatch_drain_old_broker=asked).host("h1", {})
    target.check({**FOUND, "texts": {**FOUND["texts"], path: live}})
    assert target.value("dispatch", "__dispatch_drains") is drains
    (drain,) = target.arguments("dispatch", "Leave no order behind on the RabbitMQ that was, as asked")
    assert [str(word) for word in drain["argv"]] == ["/usr/bin/dispatch", "drain", "--timeout", "300"]
