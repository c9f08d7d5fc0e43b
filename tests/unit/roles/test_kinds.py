"""One service may run releases of several kinds, each with files, a check and a proof of its own."""

from __future__ import annotations

import base64
import dataclasses
import fcntl
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import app_faults
import app_wanted
import pytest
from ansible.module_utils import app_check, app_comparison, app_kind, app_proof, app_switching

from tests.unit.roles.hosts import Host
from tests.unit.roles.test_wanted import DEFINITION, HIDDEN, SHA256

ORIGINAL = {
    "command": "shipping",
    "cli": "",
    "check": "check",
    "check_zip": "/dist/shipping.zip",
    "notify": False,
    "ready_url": "",
    "ready_log": "waiting",
    "environment_credentials": {"PASSWORD": "password"},
}
SERVICE: dict[str, Any] = {
    **DEFINITION,
    "check": "venv/bin/check",
    "notify": True,
    "ready_url": "http://127.0.0.1:9700/",
    "credentials": {"password": HIDDEN},
    "kinds": {"python": {}, "go": ORIGINAL},
}
GO = {"debian-12": {"compiler": "/usr/bin/go", "packages": ["golang-go"]}}


def wanted(kind: str = "go", **given: Any) -> dict[str, Any]:
    artifact = {**DEFINITION["artifact"], "kind": kind}
    document: dict[str, Any] = app_wanted.wanted({**SERVICE, "artifact": artifact, **given}, None, None, GO)
    return document


def of_kind(kind: str, **given: Any) -> Any:
    return app_comparison.of_kind(wanted(**given)["host"], kind)


def test_each_kind_has_files_and_a_proof_of_its_own() -> None:
    python, go = of_kind("python"), of_kind("go")
    unit = {kind: one["files"]["unit"]["content"] for kind, one in (("python", python), ("go", go))}
    assert "ExecStart=/app/current/venv/bin/python -m shipping run\n" in unit["python"]
    assert "ExecStart=/app/current/shipping\n" in unit["go"]
    assert ("Type=notify\n" in unit["python"], "Type=exec\n" in unit["go"]) == (True, True)
    assert ("WatchdogSec" in unit["python"], "WatchdogSec" in unit["go"]) == (True, False)
    assert (python["check"], python["check_zip"]) == ("venv/bin/check", "")
    assert (go["check"], go["check_zip"]) == ("check", "/var/cache/shipping-check.zip")
    assert wanted()["check_zips"] == {"python": "", "go": "/dist/shipping.zip"}
    assert (python["ready_url"], python["ready_log"]) == ("http://127.0.0.1:9700/", "")
    assert (go["ready_url"], go["ready_log"]) == ("", "waiting")
    assert go["systems"] == GO
    assert ("command" in python["files"], "command" in go["files"]) == (True, False)
    assert python["credentials"].keys() == {"password"}
    assert base64.b64decode(go["credentials"]["environment"]).decode() == f'PASSWORD="{HIDDEN}"\n'
    assert python["home"] == go["home"]


def test_the_files_of_a_kind_do_not_depend_on_the_others() -> None:
    alone = app_wanted.wanted({**SERVICE, "kinds": {"python": {}}})["host"]
    assert app_comparison.of_kind(alone, "python")["files"] == of_kind("python")["files"]


def test_an_artifact_of_a_kind_that_the_service_does_not_run_is_refused() -> None:
    assert wanted("go")["artifact_faults"] == []
    (fault,) = wanted("binary")["artifact_faults"]
    assert fault.startswith(
        "shipping_artifact is x.zip, which is a program that is ready to run. shipping takes a Python"
    )
    assert wanted("binary")["faults"] == []  # it keeps nobody from going back


def test_a_kind_that_only_the_host_can_tell_is_left_open_unless_there_is_but_one() -> None:
    assert (wanted("")["host"]["kind"], wanted("")["artifact_faults"]) == ("", [])
    assert wanted("", kinds={"python": {}})["host"]["kind"] == "python"


def test_what_is_wrong_with_one_kind_keeps_no_other_from_going_live() -> None:
    kinds = {"python": {}, "go": {**ORIGINAL, "faults": ["shipping_tls is true."]}}
    secret = {"password": "a\nb"}
    assert wanted("python", kinds=kinds, credentials=secret)["artifact_faults"] == []
    (told, line_break) = wanted("go", kinds=kinds, credentials=secret)["artifact_faults"]
    assert (told, "PASSWORD: the credential password has a line break" in line_break) == ("shipping_tls is true.", True)
    with pytest.raises(app_comparison.UnfitError, match="shipping_tls is true"):
        app_comparison.of_kind(wanted("python", kinds=kinds)["host"], "go")
    document = wanted("python", kinds=kinds)
    assert app_wanted.release_faults(document, f"{SHA256[:12]}-go1.19") == ["shipping_tls is true."]
    assert app_wanted.release_faults(document, f"{SHA256[:12]}-python3.11") == []
    (fault,) = app_wanted.release_faults(document, f"{SHA256[:12]}-binary")
    assert "of the kind binary, which shipping does not run" in fault


def test_a_release_of_a_kind_that_the_service_does_not_run_is_refused_on_the_host(tmp_path: Path) -> None:
    request = {"wanted": wanted()["host"], "release": str(tmp_path / "0123-binary"), "rebuilt": False}
    with pytest.raises(app_comparison.UnfitError, match="of the kind binary, which shipping does not run"):
        app_comparison.of_kind(request["wanted"], "binary")
    assert app_switching.main(request) == 1


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({}, "The kinds of the service are no dictionary with an entry"),
        (["go"], "The kinds of the service are no dictionary with an entry"),
        ({"java": {}}, "The service has the kind java"),
        ({"go": {"name": "x"}}, "The kind go of the service has name"),
        ({"go": "x"}, "The kind go of the service has no dictionary"),
    ],
)
def test_kinds_that_can_t_be_right_are_refused(kinds: Any, said: str) -> None:
    (fault,) = wanted(kinds=kinds)["faults"]
    assert fault.startswith(said)


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("0d69affe422b-python3.11", "python"),
        ("0d69affe422b-go1.19", "go"),
        ("0d69affe422b-binary", "binary"),
    ],
)
def test_a_release_says_its_kind_by_its_name(release: str, kind: str) -> None:
    assert app_wanted.FilterModule().filters()["app_kind"](release) == app_kind.kind_of(release) == kind
    assert kind in app_faults.KINDS


def test_a_file_that_only_another_kind_has_goes_with_that_kind(host: Host) -> None:
    document = host.document()
    files = document["kinds"]["python"]["files"]
    bare = {name: file for name, file in files.items() if name != "command"}
    document["kinds"]["go"] = {**document["kinds"]["python"], "files": bare}
    document["credentials"]["go"] = document["credentials"]["python"]
    service = app_proof.service_of(app_comparison.of_kind(document, "go"))
    staged = app_switching.stage(service, app_comparison.files(app_comparison.of_kind(document, "go")))
    host.broken["new"] = ValueError()
    assert app_switching.activate(service, host.release("new"), staged, "", 3).failure
    host.assert_live("old")  # the command, too
    host.broken.clear()
    staged = app_switching.stage(service, app_comparison.files(app_comparison.of_kind(document, "go")))
    assert not app_switching.activate(service, host.release("new"), staged, "", 3).failure
    assert not host.live["command"].exists()
    assert host.live["unit"].read_text() == "new"


def test_what_is_put_back_is_proven_as_its_kind_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    proven: list[tuple[str, str]] = []

    def restart(service: Any, known: bool = False) -> None:
        proven.append((service.ready_url, service.ready_log))
        host.restart(service, known)

    host.broken["new"] = ValueError()
    monkeypatch.setattr(app_switching, "restart", restart)
    proofs = {"python": ("http://127.0.0.1/", ""), "go": ("", "waiting")}
    host.service = dataclasses.replace(host.service, ready_url="", ready_log="waiting", proofs=proofs)
    assert "are back, and healthy" in host.switch().failure
    assert proven == [("", "waiting"), ("http://127.0.0.1/", "")]


@pytest.mark.parametrize(("python", "runs"), [("exit 0", True), ("exit 1", False), (None, False)])
def test_a_check_in_a_zip_needs_a_python_of_the_host(
    host: Host, monkeypatch: pytest.MonkeyPatch, python: str | None, runs: bool
) -> None:
    ran: list[str] = []

    def failed_check(_: Any, __: Any, ___: Any, check: str) -> str:
        ran.append(check)
        return ""

    if python:
        (host.root / "python3").write_text(f"#!/bin/sh\n{python}\n")
        (host.root / "python3").chmod(0o755)
    monkeypatch.setattr(app_check, "PYTHON", str(host.root / "python3"))
    monkeypatch.setattr(app_switching, "failed_check", failed_check)
    host.service = dataclasses.replace(host.service, check_zip="/var/cache/x.zip")
    outcome = host.switch(check="check")
    assert (outcome.failure, outcome.changed, ran) == ("", True, ["check"] if runs else [])
    assert ("have not been checked before the switch" in outcome.note) is not runs


@pytest.mark.parametrize("ends", ["well", "badly", "unforeseen"])
def test_a_check_in_a_zip_goes_with_the_switch_that_it_was_brought_for(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends: str
) -> None:
    archive = tmp_path / "x.zip"
    seen: list[bool] = []

    def failed_check(*_: Any) -> str:
        seen.append(archive.exists())
        if ends == "unforeseen":
            raise RuntimeError
        return "" if ends == "well" else "no such host"

    archive.touch()
    monkeypatch.setattr(app_switching, "no_python", lambda _: "")
    monkeypatch.setattr(app_switching, "failed_check", failed_check)
    wanted = {**host.wanted, "check": "check", "check_zip": str(archive)}
    with nullcontext() if ends != "unforeseen" else pytest.raises(RuntimeError):
        outcome = app_switching._switch_alone(wanted, host.release("new"), False)
        assert bool(outcome.failure) is (ends == "badly")
    assert (seen, archive.exists()) == ([True], False)


def test_a_switch_that_is_refused_leaves_the_check_to_the_one_that_runs(host: Host, tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    archive.touch()
    with app_switching._lock(host.service).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = app_switching.switch({**host.wanted, "check_zip": str(archive)}, host.release("new"), False)
    assert "another play is switching" in outcome.failure
    assert archive.exists()


def test_a_check_in_a_zip_runs_beside_its_unit(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    units, archive = tmp_path / "run", tmp_path / "x.zip"
    units.mkdir()
    archive.write_text("the program")
    archive.chmod(0o600)
    seen: dict[str, Any] = {}

    def systemctl(command: list[str], **_: Any) -> Any:
        if command[:2] == ["systemctl", "start"]:
            (zip_file,) = units.rglob("*.zip")
            text = (zip_file.parent / "zzzzzz-check.conf").read_text()
            seen.update(zip=zip_file, mode=zip_file.stat().st_mode & 0o777, text=text, holds=zip_file.read_text())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(app_check, "UNITS", units)
    monkeypatch.setattr(subprocess, "run", systemctl)
    service = dataclasses.replace(host.service, check_zip=str(archive))
    assert app_check.failed_check(service, host.release("new"), host.stage(), "check") == ""
    assert (seen["mode"], seen["holds"]) == (0o644, "the program")
    assert f"ExecStart=\nExecStart=/usr/bin/python3 -B {seen['zip']} check\n" in seen["text"]
    assert list(units.iterdir()) == []
