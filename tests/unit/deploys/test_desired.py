"""The second engine reads the inventory and what the role `dispatch` makes of it as Ansible does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploys.desired import Desired, DesiredError, Values
from tests.signatures import Keys, cases, zipped
from tests.unit.deploys.conftest import PASSWORD


def python(host: Values) -> Values:
    """What is wanted of a host where the release is a Python program."""
    return {**host, **host["kinds"]["python"], "credentials": host["credentials"]["python"]}


def test_what_is_signed_as_it_has_to_be_is_wanted_and_nothing_else(
    desired: Callable[..., Desired], tmp_path: Path
) -> None:
    keys, content = Keys(tmp_path), (tmp_path / "x.zip")
    for case in cases(keys, zipped(), zipped(text="# tampered with")):
        content.write_bytes(case.content)
        Path(f"{content}.sig").unlink(missing_ok=True)
        if case.signature is not None:
            Path(f"{content}.sig").write_bytes(case.signature)
        made = desired(
            dispatch_artifact=str(content), dispatch_artifact_signers=case.signers,
            dispatch_artifact_revoked=case.revoked,
        )  # fmt: skip
        if case.said:
            with pytest.raises(DesiredError) as refused:
                made.wanted("h1", {})
            assert case.said in str(refused.value), case.name
        else:
            wanted = made.wanted("h1", {})
            assert wanted["artifact"]["signature"] == f"{content}.sig"
            assert (wanted["host"]["signers"], wanted["host"]["revoked"]) == (case.signers, case.revoked)


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
            {"dispatch_artifact_signers": "release"},
            "dispatch_artifact_signers is set, and line 1 of it is none such as",
        ),
        ({"dispatch_artifact_signers": "release ssh-ed25519 AAAAC3"}, "and it is not signed: there is no signature at"),
        ({"python_runtime_systems": "debian"}, "python_runtime_systems is not a dictionary"),
        ({"python_runtime_systems": {"a-1": {"packages": []}}}, "python_runtime_systems.a-1 has no interpreter"),
        ({"python_runtime_systems": {"a-1": {"interpreter": "/p", "packages": "x"}}}, "or no list of packages"),
        ({"python_runtime_systems": {"a-1": {"interpreter": "/p", "bare": "x"}}}, "or no list of packages"),
        ({"dispatch_index_url": "pypi.shop"}, "dispatch_index_url is no URL"),
        ({"dispatch_ca_bundle": "ca.pem"}, "dispatch_ca_bundle is ca.pem. Set it to the absolute path"),
        ({"dispatch_environment": {"DISPATCH_PREFETCH": "x"}}, "dispatch_environment.DISPATCH_PREFETCH is 'x'; set"),
        ({"dispatch_limits": {"MemoryMax": {"a": 1}}}, 'dispatch_limits.MemoryMax is {"a": 1}. Set it to a value'),
        ({"dispatch_limits": {"MemoryMax": [None]}}, "dispatch_limits.MemoryMax is [null]. Set it to a value"),
        ({"dispatch_limits": {"MemoryMax": "1G\nUser=root"}}, "dispatch_limits.MemoryMax has a line break"),
        ({"dispatch_ledger": "db-1", "dispatch_ledger_password": "x"}, "dispatch_ledger is no URL of a PostgreSQL"),
        ({"dispatch_unit_overrides": {"no such": 1}}, 'dispatch_unit_overrides has the directive "no such"'),
    ],
)
def test_bad_values_are_refused_in_the_role_s_words(
    desired: Callable[..., Desired], variables: dict[str, object], said: str
) -> None:
    with pytest.raises(DesiredError) as refused:
        desired(**variables).wanted("h1", {})
    assert said in " ".join(str(refused.value).split())
    assert PASSWORD not in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(desired: Callable[..., Desired]) -> None:
    with pytest.raises(DesiredError) as refused:
        desired(dispatch_amqp_host=None, dispatch_amqp_port=0, dispatch_serial=[]).wanted("h1", {})
    for name in ("dispatch_amqp_host", "dispatch_amqp_port", "dispatch_serial"):
        assert f"{name} is" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "url", "stop"),
    [
        ({}, "http://127.0.0.1:9672/readyz", 30),
        ({"DISPATCH_HTTP": "0.0.0.0:80", "DISPATCH_STOP_SECONDS": 5}, "http://127.0.0.1:80/readyz", 15),
        ({"DISPATCH_HTTP": "10.0.0.1:80", "DISPATCH_STOP_SECONDS": "60"}, "http://10.0.0.1:80/readyz", 70),
    ],
)
def test_the_consumer_s_further_settings_reach_it_and_its_unit(
    desired: Callable[..., Desired], given: dict[str, object], url: str, stop: int
) -> None:
    host = python(desired(dispatch_environment={**given, "DISPATCH_RETENTION_DAYS": 90}).wanted("h1", {})["host"])
    environment = host["files"]["environment"]["content"].splitlines()
    assert 'DISPATCH_RETENTION_DAYS="90"' in environment
    assert {f'{name}="{value}"' for name, value in given.items()} <= set(environment)
    assert 'AMQP_HOST="rabbit"' in environment
    assert f"TimeoutStopSec={stop}\n" in host["files"]["unit"]["content"]
    assert host["ready_url"] == url


def test_a_hook_reaches_the_consumer_and_a_process_that_ends_for_memory_does_not_end_the_service(
    desired: Callable[..., Desired],
) -> None:
    hosts = (python(desired(dispatch_hook=hook).wanted("h1", {})["host"]) for hook in ("", "shop:hook"))
    without, host = (one["files"] for one in hosts)
    assert "DISPATCH_" not in without["environment"]["content"]
    assert "OOMPolicy" not in without["unit"]["content"]
    assert 'DISPATCH_HOOK="shop:hook"\n' in host["environment"]["content"]
    assert "OOMPolicy=continue\n" in host["unit"]["content"]


def test_a_limit_leaves_the_others_in_force(desired: Callable[..., Desired]) -> None:
    host = python(desired(dispatch_limits={"CPUQuota": "50%", "TasksMax": 8}).wanted("h1", {})["host"])
    unit = host["files"]["unit"]["content"].splitlines()
    assert {"CPUQuota=50%", "TasksMax=8", "MemoryMax=512M"} <= set(unit)
    assert "TasksMax=64" not in unit


@pytest.mark.parametrize(
    ("serial", "batches"), [(10, ["10"]), ("30%", ["30%"]), ([1, "100%"], ["1", "100%"]), ("5", ["5"])]
)
def test_a_roll_out_in_one_value_is_one_batch_after_another(
    desired: Callable[..., Desired], serial: object, batches: list[str]
) -> None:
    assert desired(dispatch_serial=serial).wanted("h1", {})["rollout"]["serial"] == batches


def test_what_the_command_line_gives_outranks_the_inventory(desired: Callable[..., Desired]) -> None:
    host = python(desired().wanted("h1", {"dispatch_amqp_host": "other"})["host"])
    assert 'AMQP_HOST="other"' in host["files"]["environment"]["content"]


def test_a_secret_is_nowhere_but_among_the_credentials(desired: Callable[..., Desired]) -> None:
    host = desired().wanted("h1", {})["host"]
    credentials = host.pop("credentials")
    assert {base64.b64decode(of_kind["amqp_password"]).decode() for of_kind in credentials.values()} == {PASSWORD}
    # The program that reads its password from the environment has it in a file of its own.
    assert base64.b64decode(credentials["go"]["environment"]).decode() == f'AMQP_PASS="{PASSWORD}"\n'
    assert credentials["python"].keys() == {"amqp_password"}
    assert PASSWORD not in json.dumps([host, credentials])


@pytest.mark.parametrize("asked", [True, False])
def test_it_drains_only_where_that_is_asked(desired: Callable[..., Desired], asked: bool) -> None:
    drain = desired(dispatch_drain_old_broker=asked).wanted("h1", {})["host"]["drain"]
    assert bool(drain) is asked
    if asked:
        assert drain["settings"] == ["AMQP_HOST", "AMQP_PORT", "AMQP_VHOST", "AMQP_QUEUE"]
        assert [str(word) for word in drain["command"]] == ["drain", "--timeout", "300"]


def test_a_host_that_is_not_reached_over_ssh_is_refused(desired: Callable[..., Desired]) -> None:
    with pytest.raises(DesiredError, match=r"h1: ansible_connection is local, .* set it to ssh"):
        desired(ansible_connection="local").ssh_options("h1")


# What jinja says of the last two names a part of them.
@pytest.mark.parametrize("password", ["Xy{#9kQ-secret", "Xy{{9kQ-secret", "Xy{{ secret }}", "Xy{% secret %}"])
def test_a_password_that_is_no_template_is_not_shown(desired: Callable[..., Desired], password: str) -> None:
    for variables in ({"dispatch_amqp_password": password}, {"dispatch_amqp_password": "{{ p }}", "p": password}):
        with pytest.raises(DesiredError) as refused:
            desired(**variables).wanted("h1", {})
        said = f"{refused.value} {refused.value.__cause__}"
        assert "dispatch_amqp_password, or a variable that it refers to, is a template that" in said
        assert 'dispatch_amqp_password: !unsafe "…"' in said
        assert "secret" not in said


def test_an_unsafe_password_is_taken_as_it_is(tmp_path: Path, desired: Callable[..., Desired]) -> None:
    inventory = tmp_path / "hosts.yml"
    host = desired().inventory.get_host("h1").vars
    inventory.write_text(
        f"dispatch: {{hosts: {{h1: {{dispatch_amqp_host: rabbit, dispatch_artifact: {host['dispatch_artifact']}, "
        'dispatch_amqp_password: !unsafe "Xy{#9kQ{{ x }}"}}}\n'
    )
    credentials = Desired([str(inventory)]).wanted("h1", {})["host"]["credentials"]["python"]
    assert base64.b64decode(credentials["amqp_password"]) == b"Xy{#9kQ{{ x }}"


def test_a_shared_ledger_is_in_the_environment_its_password_a_credential_and_its_library_a_package(
    desired: Callable[..., Desired],
) -> None:
    plain = python(desired().wanted("h1", {})["host"])
    url = "postgresql://dispatch@db-1,db-2/dispatch"
    given = {"dispatch_ledger": url, "dispatch_ledger_password": PASSWORD, "dispatch_ledger_ca": "PEM"}
    shared = python(desired(**given).wanted("h1", {})["host"])
    assert (plain["packages"], shared["packages"]) == ({}, {"apt": ["libpq5"], "dnf": ["libpq"]})
    # Whoever has no shared ledger has nothing more on the host than before there was one.
    assert list(plain["credentials"]) == ["amqp_password"]
    assert not [file for file in plain["files"].values() if "ledger" in file["content"].lower()]
    assert f'DISPATCH_LEDGER="{url}"' in shared["files"]["environment"]["content"].splitlines()
    decoded = {name: base64.b64decode(secret).decode() for name, secret in shared["credentials"].items()}
    assert decoded == {"amqp_password": PASSWORD, "ledger_password": PASSWORD, "dispatch_ledger_ca": "PEM"}
    assert PASSWORD not in json.dumps(shared["files"])


def test_a_collector_is_in_the_environment_and_its_headers_are_a_credential(desired: Callable[..., Desired]) -> None:
    plain = python(desired().wanted("h1", {})["host"])
    assert not [file for file in plain["files"].values() if "otlp" in file["content"].lower()]
    given = {"dispatch_otlp_endpoint": "http://collector:4318", "dispatch_otlp_headers": f"api-key={PASSWORD}"}
    traced = python(desired(**given, dispatch_otlp_ratio=0).wanted("h1", {})["host"])
    lines = traced["files"]["environment"]["content"].splitlines()
    assert {'DISPATCH_OTLP_ENDPOINT="http://collector:4318"', 'DISPATCH_OTLP_RATIO="0"'} <= set(lines)
    assert base64.b64decode(traced["credentials"]["otlp_headers"]).decode() == f"api-key={PASSWORD}"
    assert PASSWORD not in json.dumps(traced["files"])
