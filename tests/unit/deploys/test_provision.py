"""The second engine goes over a fleet as `dispatch_serial` says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploys import operations, provision
from deploys.desired import DesiredError


@pytest.mark.parametrize(
    ("serial", "batches"),
    [
        (["1", "100%"], [(1, ["h1"]), (2, ["h2", "h4"])]),
        (["2"], [(1, ["h1", "h2"]), (2, ["h4"])]),
        (["34%"], [(1, ["h1"]), (2, ["h2"]), (3, ["h4"])]),
    ],
)
def test_hosts_are_switched_in_the_inventory_s_order(
    monkeypatch: pytest.MonkeyPatch, serial: list[str], batches: object
) -> None:
    members = [SimpleNamespace(name=f"h{number}") for number in (1, 2, 3, 4)]
    active = [members[number] for number in (3, 0, 1)]
    fleet = SimpleNamespace(get_group=lambda _: members, get_active_hosts=lambda: active)
    monkeypatch.setattr(provision, "inventory", fleet)
    assert provision._batches(serial) == batches


@pytest.mark.parametrize(("others", "agree"), [("5", True), ("6", False)])
def test_hosts_that_disagree_on_the_roll_out_are_refused(
    monkeypatch: pytest.MonkeyPatch, others: str, agree: bool
) -> None:
    wanted = {
        name: {"rollout": {"serial": [size], "max_fail_percentage": 0}, "host": {}}
        for name, size in (("h1", "5"), ("h2", others))
    }
    members = [SimpleNamespace(name=name) for name in wanted]
    fleet = SimpleNamespace(get_group=lambda _: members, get_active_hosts=lambda: members, get_override_data=dict)
    monkeypatch.setattr(provision, "inventory", fleet)
    monkeypatch.setattr(provision, "_wanted", wanted.__getitem__)
    monkeypatch.setattr(provision, "host", SimpleNamespace(get_fact=lambda *_, **__: None))
    said = "this host could not be inspected" if agree else "Hosts of this run have different values of dispatch_serial"
    with pytest.raises(DesiredError, match=said):
        provision._provision(wanted["h1"])


@pytest.mark.parametrize(
    "told", [{"kind": "go", "go": "1.19"}, {"failure": "dispatch_artifact is http://h/x.zip, and"}]
)
def test_an_artifact_whose_kind_only_the_host_can_tell_is_fetched_and_asked_about_again(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str]
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    unfetched = {"kind": "", "settled": False, "steps": {"release": True}}
    answers: list[dict[str, Any]] = [unfetched, told, {"kind": "go", "settled": True}]

    def get_fact(_: object, _stdin: str) -> dict[str, Any]:
        question = json.loads(_stdin)
        asked.append((question["modules"][-1][0], question["request"]))
        return answers[len(asked) - 1]

    monkeypatch.setattr(provision, "host", SimpleNamespace(get_fact=get_fact, log=lambda _: None))
    monkeypatch.setattr(provision, "_require_one_rollout", lambda _: None)
    wanted: dict[str, Any] = {
        "rollout": {},
        "artifact": {"source": "http://h/x.zip", "url": True, "signature": "http://h/x.zip.sig"},
        "host": {"name": "dispatch", "sha256": "ab" * 32, "kind": "", "signers": "who", "revoked": "what"},
    }
    if "failure" in told:
        with pytest.raises(DesiredError, match="dispatch_artifact is http://h/x"):
            provision._provision(wanted)
        return
    provision._provision(wanted)
    assert [program for program, _ in asked] == ["app_survey", "app_fetch", "app_survey"]
    assert asked[1][1] == {
        "name": "dispatch", "sha256": "ab" * 32, "path": "/var/cache/dispatch-abababababab.zip",
        "source": "http://h/x.zip", "signature": "http://h/x.zip.sig", "signers": "who", "revoked": "what",
    }  # fmt: skip
    assert asked[2][1] == {**wanted["host"], **told}


@pytest.mark.parametrize("signers", ["", "who"])
def test_a_signature_travels_with_its_artifact(monkeypatch: pytest.MonkeyPatch, signers: str) -> None:
    planned: list[dict[str, Any]] = []
    monkeypatch.setattr(operations, "role_program", lambda **given: planned.append(given))
    wanted = {
        "artifact": {"source": "/x.zip", "url": False, "signature": "/x.zip.sig", "value": "x.zip"},
        "host": {"name": "dispatch", "sha256": "ab" * 32, "signers": signers, "revoked": ""},
        "go_proxy": "", "index_url": "", "ca_bundle": "",
    }  # fmt: skip
    provision._build(wanted, {"kind": "go", "release": "/r", "runtime": {"interpreter": "", "compiler": "/usr/bin/go"}})
    (build,) = planned
    beside = {"/var/cache/dispatch-abababababab.zip.sig": Path("/x.zip.sig")} if signers else {}
    assert build["program"] == "app_build"
    assert build["files"] == {"/var/cache/dispatch-abababababab.zip": Path("/x.zip"), **beside}
    assert build["request"]["plan"]["signers"] == signers
