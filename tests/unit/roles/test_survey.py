"""What a host is asked: in what it differs, for every step of the runbook."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import app_wanted
import pytest
from ansible.module_utils import app_comparison, app_host, app_survey
from ansible.module_utils.app_releases import COMPLETE, digest, directory
from ansible.module_utils.app_signature import Signers
from ansible.module_utils.runtime_systems import Runtime

UNSIGNED = {"signature": "/x.zip.sig", "signers": "", "revoked": ""}
SHA256 = "ab" * 32
INTERPRETER = "/usr/bin/python3.11"
ENTRY = {"comment": "RoboShop services", "shell": "/usr/sbin/nologin", "locked": True}


class Host:
    """A host in a directory that is as wanted, and what is wanted of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wanted = self.asked()
        home = Path(self.wanted["home"]["path"])
        self.release = directory(home, SHA256, "python", INTERPRETER)
        self.release.mkdir(parents=True)
        (self.release / "code.py").touch()
        (self.release / COMPLETE).write_text(f"{SHA256}\n{digest(self.release)}\n")
        (home / "current").symlink_to(self.release)
        for path, mode in app_comparison.directories(self.as_python).items():
            path.mkdir()
            path.chmod(int(mode, 8))
        for file in app_comparison.files(self.as_python):
            path = Path(file["path"])
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(app_host.content(file))
            path.chmod(int(file["mode"], 8))

    @property
    def as_python(self) -> Any:
        """What is wanted of it where the release is a Python program."""
        return app_comparison.of_kind(self.wanted, "python")

    def asked(self, drain: bool = False, **environment: object) -> dict[str, Any]:
        """What is wanted, with these settings, of the host in this directory."""
        definition = {
            "name": "dispatch",
            "description": "x",
            "artifact": {"faults": [], "value": "x", "url": False, "source": "/x", **UNSIGNED, "sha256": SHA256},
            "command": "run",
            "cli": "cli",
            "home": "/app",
            "environment": {"AMQP_HOST": "rabbit", "AMQP_PORT": 5672, "AMQP_VHOST": 'a"\\b', **environment},
            "credentials": {"amqp_password": "secret"},
            "drain": {"settings": ["AMQP_HOST", "AMQP_PORT", "AMQP_VHOST"], "command": ["drain"]} if drain else None,
        }
        wanted: dict[str, Any] = app_wanted.wanted(definition)["host"]
        wanted["home"]["path"] = f"{self.root}/app"
        wanted["configuration"] = f"{self.root}/etc"
        for part in wanted["kinds"].values():
            for name, file in part["files"].items():
                file["path"] = f"{self.root}/{'etc' if name == 'environment' else 'live'}/{name}"
        return wanted


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(app_survey, "this_system", lambda *_: Runtime(INTERPRETER, ["python3.11-venv"], "apt"))
    monkeypatch.setattr(app_host, "missing_packages", lambda _: [])
    monkeypatch.setattr(app_host, "account", lambda _: ENTRY)
    monkeypatch.setattr(app_host, "unit", lambda *_: {"UnitFileState": "enabled", "ActiveState": "active"})
    monkeypatch.setattr(app_host, "BOOTED", tmp_path)
    return Host(tmp_path)


def test_a_host_that_is_as_wanted_is_settled(host: Host) -> None:
    found = app_survey.compare(host.wanted)
    assert (found["settled"], found["changes"], found["serving"]) == (True, [], True)
    assert found["live"] == found["release"] == str(host.release)


@pytest.mark.parametrize(
    ("drift", "step", "said"),
    [
        (lambda host, _: (host.root / "live/unit").write_text("x"), "service", "unit: content"),
        (lambda host, _: (host.root / "etc/environment").unlink(), "service", "environment: missing"),
        (lambda host, _: (host.root / "etc/credentials").chmod(0o755), "service", "credentials: mode"),
        (lambda host, _: (host.root / "etc/previous").mkdir(), "service", "a switch was cut short"),
        (lambda host, _: (host.root / "app").chmod(0o777), "account", "app: mode"),
        (lambda host, _: (host.release / "code.py").write_text("x"), "release", "damaged"),
        (lambda _, patch: patch.setattr(app_host, "account", lambda _: None), "account", "user roboshop: missing"),
        (
            lambda _, patch: patch.setattr(app_host, "account", lambda _: {**ENTRY, "locked": False}),
            "account",
            "user roboshop: differs",
        ),
        (
            lambda _, patch: patch.setattr(app_host, "missing_packages", list),
            "runtime",
            "package python3.11-venv: missing",
        ),
        (lambda _, patch: patch.setattr(app_host, "not_ready", lambda _: "503"), "service", "the service: 503"),
    ],
)
def test_what_has_drifted_is_named_and_its_step_has_something_to_do(
    host: Host, monkeypatch: pytest.MonkeyPatch, drift: Any, step: str, said: str
) -> None:
    drift(host, monkeypatch)
    found = app_survey.compare(host.wanted)
    assert not found["settled"]
    assert found["steps"][step]
    assert any(said in change for change in found["changes"]), found["changes"]


@pytest.mark.parametrize(("told", "stands", "bare"), [(True, False, True), (False, True, True), (False, False, False)])
def test_a_host_needs_no_pip_where_the_artifact_carries_one(
    host: Host, monkeypatch: pytest.MonkeyPatch, told: bool, stands: bool, bare: bool
) -> None:
    host.wanted["installer"] = told
    if stands:
        (host.release / "installer").mkdir()
        (host.release / "installer" / "pip-26.3-py3-none-any.whl").touch()
    asked: list[tuple[object, ...]] = []

    def this_system(*arguments: object) -> Runtime:
        asked.append(arguments)
        return Runtime(INTERPRETER, ["python3.11"], "apt")

    monkeypatch.setattr(app_survey, "this_system", this_system)
    app_survey.compare(host.wanted)
    assert [arguments[2] for arguments in asked] == [bare]


def test_what_a_service_needs_beside_its_runtime_is_installed_with_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.wanted["kinds"]["python"]["packages"] = {"apt": ["libpq5"], "dnf": ["libpq"]}
    assert app_survey.compare(host.wanted)["settled"]
    monkeypatch.setattr(app_host, "missing_packages", lambda names: [name for name in names if name == "libpq5"])
    found = app_survey.compare(host.wanted)
    assert (found["settled"], found["steps"]["runtime"], found["changes"]) == (False, True, ["package libpq5: missing"])
    assert found["runtime"]["packages"] == ["python3.11-venv", "libpq5"]
    assert found["runtime"]["missing"] == ["libpq5"]


def test_a_home_on_another_volume_is_settled(host: Host) -> None:
    home, volume = host.root / "app", host.root / "volume"
    home.rename(volume)
    home.symlink_to(volume)
    assert app_survey.compare(host.wanted)["settled"]
    volume.chmod(0o777)
    assert f"{home}: mode" in app_survey.compare(host.wanted)["changes"]


@pytest.mark.parametrize("version", [252, 254])
def test_a_unit_holds_only_what_the_host_s_systemd_knows(
    host: Host, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(app_host, "systemd_version", lambda: version)
    found = app_survey.compare(host.wanted)
    assert found["settled"] is (version == 254)  # which the host has been written for
    (unit,) = (file for file in app_comparison.files(host.as_python) if file["name"] == "unit")
    assert ("RestartSteps=5\n" in unit["content"]) is ("RestartMaxDelaySec=60\n" in unit["content"]) is (version == 254)
    Path(unit["path"]).write_text(unit["content"])
    assert app_survey.compare(host.wanted)["settled"]
    assert app_comparison.diff(host.as_python, host.release) == []


def test_a_foreign_user_is_used_as_it_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {"comment": "Shop", "shell": "/bin/bash", "locked": False, "foreign": True}
    monkeypatch.setattr(app_host, "account", lambda _: foreign)
    assert app_survey.compare(host.wanted)["changes"] == []


@pytest.mark.parametrize(
    ("asked", "now", "drains"),
    [
        (True, {}, False),
        (True, {"AMQP_USER": "other", "AMQP_EXCHANGE": "roboshop"}, False),
        (True, {"AMQP_HOST": "other"}, True),
        (True, {"AMQP_PORT": 5673}, True),
        (True, {"AMQP_VHOST": "other"}, True),
        (False, {"AMQP_HOST": "other"}, False),
    ],
)
def test_only_another_source_of_orders_is_drained(
    host: Host, asked: bool, now: dict[str, object], drains: bool
) -> None:
    assert app_survey.compare(host.asked(drain=asked, **now))["steps"]["drain"] is drains


def test_nothing_is_drained_where_nothing_is_live(host: Host) -> None:
    (host.root / "etc/environment").unlink()
    assert app_survey.compare(host.asked(drain=True, AMQP_HOST="other"))["steps"]["drain"] is False


def test_a_release_that_has_no_command_can_t_drain(host: Host) -> None:
    wanted = host.asked(drain=True, AMQP_HOST="other")
    del wanted["kinds"]["python"]["files"]["command"]
    with pytest.raises(app_comparison.UnfitError, match=r"has no command for that[.] Switch the drain off"):
        app_survey.compare(wanted)


def test_a_release_that_these_signers_have_not_vouched_for_is_verified_first(host: Host) -> None:
    host.wanted.update(signers="release ssh-ed25519 AAAAC3", revoked="")
    found = app_survey.compare(host.wanted)
    assert (found["settled"], [name for name, due in found["steps"].items() if due]) == (False, ["release"])
    (change,) = found["changes"]
    assert change == f"{host.release}: its artifact's signature has yet to be verified by dispatch_artifact_signers"
    digest_of_signers = Signers("dispatch", host.wanted["signers"]).digest()
    with (host.release / COMPLETE).open("a") as mark:
        mark.write(f"{digest_of_signers}\n")
    assert app_survey.compare(host.wanted)["settled"]
    host.wanted["revoked"] = "ssh-ed25519 AAAAC3"
    assert not app_survey.compare(host.wanted)["settled"]
    host.wanted.update(signers="", revoked="")
    assert app_survey.compare(host.wanted)["settled"]


def test_the_kind_of_an_artifact_is_told_by_a_release_that_stands(host: Host) -> None:
    host.wanted["kind"] = ""
    found = app_survey.compare(host.wanted)
    assert (found["settled"], found["kind"]) == (True, "python")


def test_an_artifact_of_which_no_release_stands_has_to_be_fetched_first(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.wanted.update(kind="", sha256="cd" * 32)
    found = app_survey.compare(host.wanted)
    assert (found["settled"], found["kind"], found["release"], found["serving"]) == (False, "", "", True)
    assert [name for name, due in found["steps"].items() if due] == ["release"]
    assert app_survey.main(host.wanted) == 0
    assert '"diff": []' in capsys.readouterr().out
    host.wanted["kind"] = "python"
    assert found.keys() == app_survey.compare(host.wanted).keys()


def test_go_that_is_too_old_for_an_artifact_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.wanted.update(kind="go", go="1.21.3")
    host.wanted["kinds"]["go"] = host.wanted["kinds"]["python"]
    monkeypatch.setattr(app_survey, "this_system", lambda *_: Runtime(compiler="/usr/bin/go", version="1.19"))
    with pytest.raises(app_comparison.UnfitError, match=r"dispatch_artifact: its go[.]mod asks for Go 1[.]21[.]3"):
        app_survey.compare(host.wanted)
    monkeypatch.setattr(app_survey, "this_system", lambda *_: Runtime(compiler="/usr/bin/go", version="1.21"))
    assert app_survey.compare(host.wanted)["release"].endswith(f"/{SHA256[:12]}-go1.21")


def test_an_artifact_of_a_kind_that_the_service_does_not_run_is_told(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.wanted["kind"] = "go"
    assert app_survey.main(host.wanted) == 0
    assert '"failure": "The release is of the kind go, which dispatch does not run.' in capsys.readouterr().out


def test_a_secret_is_in_no_answer(host: Host) -> None:
    wanted = host.asked()
    wanted["credentials"]["python"]["amqp_password"] = base64.b64encode(b"another word").decode()
    shown = app_comparison.diff(app_comparison.of_kind(wanted, "python"), host.release)
    answer = repr(app_survey.compare(wanted)) + repr(shown)
    assert "credentials/amqp_password: content" in answer
    assert "another word" not in answer
