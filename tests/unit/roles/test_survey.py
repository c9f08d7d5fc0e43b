"""A whole host is compared with what is wanted of it, step by step of the runbook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import app_wanted
import pytest
from ansible.module_utils import app_comparison, app_host, app_releases, app_survey, runtime_systems

SHA256 = "0d69affe422b7351fa18c44472a02542ad1421302eade9e9602a9975c5869840"
SYSTEMS = {"debian-12": {"interpreter": "/usr/bin/python3.11", "packages": ["python3.11-venv"]}}
DEFINITION: dict[str, Any] = {
    "name": "dispatch",
    "description": "RoboShop Dispatch",
    "artifact": {"value": "x.zip", "url": False, "source": "/x.zip", "sha256": SHA256, "faults": []},
    "command": "venv/bin/python -m dispatch_app run",
    "cli": "venv/bin/python -m dispatch_app",
    "credentials": {"amqp_password": "not-to-be-seen"},
    "drain": {"settings": ["AMQP_HOST", "AMQP_PORT", "AMQP_VHOST", "AMQP_QUEUE"], "command": ["drain"]},
}
ORDERS = {"AMQP_HOST": "rabbit", "AMQP_PORT": "5672", "AMQP_VHOST": "/", "AMQP_QUEUE": "orders", "AMQP_USER": "me"}


class Surveyed:
    """A host on which all is as wanted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.release = app_releases.directory(root / "app", SHA256, "/usr/bin/python3.11")
        self.release.mkdir(parents=True)
        self.missing: list[str] = []
        self.account: dict[str, Any] | None = dict(app_wanted.ENTRY)
        self.ready, self.active = "", "active"
        (root / "app").chmod(0o755)
        (root / "os-release").write_text("ID=debian\nVERSION_ID=12\n")
        marker = self.release / ".complete"
        marker.write_text(f"{SHA256}\n{app_releases.digest(self.release)}\n")
        (root / "app/current").symlink_to(self.release)
        for name in ("owner", "group"):
            monkeypatch.setattr(app_host, name, lambda _: "root")
        monkeypatch.setattr(runtime_systems, "OS_RELEASE", root / "os-release")
        monkeypatch.setattr(app_host, "SELINUX", root / "none")
        monkeypatch.setattr(app_host, "BOOTED", root)
        monkeypatch.setattr(app_host, "missing_packages", lambda _: self.missing)
        monkeypatch.setattr(app_host, "account", lambda _: self.account)
        monkeypatch.setattr(app_host, "not_ready", lambda _: self.ready)
        monkeypatch.setattr(app_host, "unit", lambda *_: {"UnitFileState": "enabled", "ActiveState": self.active})
        self.place(self.wanted())

    def wanted(self, **given: Any) -> dict[str, Any]:
        """What is wanted, its paths below the host's directory."""
        values = {**DEFINITION, "environment": ORDERS, **given}
        host: dict[str, Any] = app_wanted.wanted(values, None, SYSTEMS)["host"]
        host["home"]["path"] = str(self.root / "app")
        host["configuration"] = str(self.root / "etc")
        for name, file in host["files"].items():
            file["path"] = str(self.root / "etc" / name)
        return host

    def place(self, wanted: dict[str, Any]) -> None:
        for path, mode in app_comparison.directories(wanted).items():
            path.mkdir(exist_ok=True)
            path.chmod(int(mode, 8))
        for file in app_comparison.files(wanted):
            Path(file["path"]).write_bytes(app_host.content(file))
            Path(file["path"]).chmod(int(file["mode"], 8))

    def compare(self, **given: Any) -> dict[str, Any]:
        found: dict[str, Any] = app_survey.compare(self.wanted(**given))
        return found


@pytest.fixture
def surveyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surveyed:
    return Surveyed(tmp_path, monkeypatch)


def steps(found: dict[str, Any]) -> list[str]:
    return [name for name, has_to in found["steps"].items() if has_to]


def test_a_host_that_is_as_wanted_is_settled(surveyed: Surveyed) -> None:
    found = surveyed.compare()
    assert (found["settled"], found["changes"], steps(found)) == (True, [], [])
    assert found["serving"]
    assert found["live"] == found["release"] == str(surveyed.release)
    assert found["runtime"] == {
        "interpreter": "/usr/bin/python3.11",
        "packages": ["python3.11-venv"],
        "manager": "apt",
        "missing": [],
    }


def test_a_host_that_is_not_ready_is_not_settled(surveyed: Surveyed) -> None:
    surveyed.ready = "http://127.0.0.1:9672/readyz answers 503"
    found = surveyed.compare()
    assert not found["settled"]
    assert found["changes"] == ["the service: http://127.0.0.1:9672/readyz answers 503"]
    assert steps(found) == ["service"]


def test_each_step_is_told_what_it_has_to_do(surveyed: Surveyed) -> None:
    surveyed.missing, surveyed.account = ["python3.11-venv"], None
    (surveyed.release / ".complete").unlink()
    (surveyed.root / "app").chmod(0o777)
    found = surveyed.compare(credentials={"amqp_password": "another"})
    assert steps(found) == ["runtime", "account", "release", "service"]
    assert found["changes"] == [
        "package python3.11-venv: missing",
        "user roboshop: missing",
        f"{surveyed.root}/app: mode",
        f"{surveyed.release}: damaged",
        f"{surveyed.root}/etc/credentials/amqp_password: content",
    ]
    assert not found["settled"]
    assert "not-to-be-seen" not in json.dumps(found)


@pytest.mark.parametrize("unlike", [{"shell": "/bin/sh"}, {"comment": "by hand"}, {"locked": False}])
def test_an_account_that_differs_is_changed(surveyed: Surveyed, unlike: dict[str, Any]) -> None:
    surveyed.account = {**app_wanted.ENTRY, **unlike}
    found = surveyed.compare()
    assert (steps(found), found["changes"]) == (["account"], ["user roboshop: differs"])


@pytest.mark.parametrize(("live", "active", "serving"), [(True, "", True), (False, "active", True), (False, "", False)])
def test_a_host_serves_by_a_release_or_by_hand(surveyed: Surveyed, live: bool, active: str, serving: bool) -> None:
    surveyed.active = active
    if not live:
        (surveyed.root / "app/current").unlink()
    assert surveyed.compare()["serving"] is serving


@pytest.mark.parametrize(
    ("asked", "before", "now", "drains"),
    [
        (True, None, {}, False),  # nothing is live
        (True, {}, {}, False),
        (True, {}, {"AMQP_USER": "other", "AMQP_EXCHANGE": "roboshop"}, False),
        (True, {"AMQP_VHOST": 'a"\\b'}, {"AMQP_VHOST": 'a"\\b'}, False),
        (True, {}, {"AMQP_HOST": "other"}, True),
        (True, {}, {"AMQP_PORT": 5673}, True),
        (True, {}, {"AMQP_VHOST": "other"}, True),
        (True, {}, {"AMQP_QUEUE": "other"}, True),
        (False, {}, {"AMQP_HOST": "other"}, False),
    ],
)
def test_only_another_source_of_orders_is_drained(
    surveyed: Surveyed, asked: bool, before: dict[str, Any] | None, now: dict[str, Any], drains: bool
) -> None:
    if before is None:
        (surveyed.root / "etc/environment").unlink()
    else:
        surveyed.place(surveyed.wanted(environment={**ORDERS, **before}))
    drain = DEFINITION["drain"] if asked else None
    found = surveyed.compare(environment={**ORDERS, **now}, drain=drain)
    assert found["steps"]["drain"] is drains


def test_a_host_is_compared_on_request(surveyed: Surveyed, capsys: pytest.CaptureFixture[str]) -> None:
    assert app_survey.main(surveyed.wanted(environment={**ORDERS, "AMQP_HOST": "other"})) == 0
    found = json.loads(capsys.readouterr().out)
    assert {'-AMQP_HOST="rabbit"', '+AMQP_HOST="other"'} <= set(found["diff"])
    (surveyed.root / "os-release").write_text('PRETTY_NAME="Arch Linux"\nID=arch\n')
    assert app_survey.main(surveyed.wanted()) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["failure"]
    assert found["failure"].startswith("Arch Linux is not a supported system.")
