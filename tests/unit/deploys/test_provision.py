"""The second engine goes over a fleet as `dispatch_serial` says."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from deploys import provision
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
    answers: list[dict[str, Any]] = [{"kind": "", "settled": False}, told, {"kind": "go", "settled": True}]

    def get_fact(_: object, _stdin: str) -> dict[str, Any]:
        question = json.loads(_stdin)
        asked.append((question["modules"][-1][0], question["request"]))
        return answers[len(asked) - 1]

    monkeypatch.setattr(provision, "host", SimpleNamespace(get_fact=get_fact, log=lambda _: None))
    monkeypatch.setattr(provision, "_require_one_rollout", lambda _: None)
    wanted = {
        "rollout": {},
        "artifact": {"source": "http://h/x.zip"},
        "host": {"name": "dispatch", "sha256": "ab" * 32, "kind": ""},
    }
    if "failure" in told:
        with pytest.raises(DesiredError, match="dispatch_artifact is http://h/x"):
            provision._provision(wanted)
        return
    provision._provision(wanted)
    assert [program for program, _ in asked] == ["app_survey", "app_fetch", "app_survey"]
    assert asked[1][1]["path"] == "/var/cache/dispatch-abababababab.zip"
    assert {**asked[2][1], "sha256": ""} == {"name": "dispatch", "sha256": "", **told}
