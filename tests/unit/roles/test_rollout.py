"""A change and a rollback go over a fleet in one way, and to one release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import app_rollout
import pytest


def standing(live: str, previous: str, *releases: str) -> dict[str, Any]:
    """What app_release_info says of a host."""
    return {
        "live": live,
        "previous": previous,
        "releases": [{"id": name, "built": 0.0, "activated": 86400.0 + number} for number, name in enumerate(releases)],
    }


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
def test_all_hosts_roll_back_to_one_release(release: str, h1: tuple[str, str], h2: tuple[str, str], said: str) -> None:
    fleet = {"h1": standing(*h1, "a", "b", "z"), "h2": standing(*h2, "a", "b", "z")}
    fault = app_rollout.rollback_fault(fleet, release, "dispatch")
    assert said in fault
    assert bool(said) == bool(fault)
    if said:
        assert f"on h1 {h1[0]} is live, and of those that have been there stand: a, b, z; on h2 {h2[0]}" in fault


def test_hosts_that_lack_the_release_are_named_alone() -> None:
    fleet = {"h1": standing("b", "a", "a", "b"), "h2": standing("", "", *())}
    fault = app_rollout.rollback_fault(fleet, "a", "dispatch")
    assert fault.startswith("The release dispatch_release = a does not stand on h2. Set dispatch_release to one")
    assert fault.endswith("on h2 nothing is live, and of those that have been there stand: none.")


@pytest.mark.parametrize(("asked", "to"), [("", "a"), ("z", "z")])
def test_a_host_goes_back_to_the_release_asked_for_or_to_the_one_before(asked: str, to: str) -> None:
    assert app_rollout.target(standing("b", "a", "a", "b", "z"), asked) == to


@pytest.mark.parametrize(
    ("serving", "serial"),
    [((False, False), ["100%"]), ((False, True), ["1", "100%"]), ((True, True), ["1", "100%"])],
)
def test_a_fleet_on_which_nothing_is_live_needs_no_canary(serving: tuple[bool, ...], serial: list[str]) -> None:
    plan = {"serial": ["1", "100%"], "max_fail_percentage": 20}
    found: list[Mapping[str, Any]] = [{"serving": one, "rollout": plan} for one in serving]
    worked_out = app_rollout.rollout(found)
    assert worked_out == {"serial": serial, "max_fail_percentage": 20, "disagree": False}


@pytest.mark.parametrize("other", [{"serial": ["2"]}, {"max_fail_percentage": 1}])
def test_hosts_that_disagree_on_the_roll_out_are_told(other: dict[str, Any]) -> None:
    plan: dict[str, Any] = {"serial": ["1"], "max_fail_percentage": 0}
    found: list[Mapping[str, Any]] = [{"serving": True, "rollout": one} for one in (plan, plan, {**plan, **other})]
    assert app_rollout.rollout(found)["disagree"]


def test_the_history_says_since_when_each_release_was_live() -> None:
    assert app_rollout.history(standing("b", "a", "b", "a"), "dispatch") == [
        "b  live since 1970-01-02 00:00:00 UTC",
        "a  was made live 1970-01-02 00:00:01 UTC",
    ]
    made_of = {"version": "1.0.0", "commit": "ab", "components": {"pika": "1.4.4", "other": "2"}}
    found = standing("b", "a", "b", "a")
    found["releases"] = [{**found["releases"][0], **made_of}, {**found["releases"][1], "version": ""}]
    assert app_rollout.history(found, "dispatch")[1:] == [
        "  1.0.0 of commit ab, with pika 1.4.4, other 2",
        "a  was made live 1970-01-02 00:00:01 UTC",
    ]
    assert app_rollout.history(standing("", ""), "dispatch") == ["Dispatch has never been live on this host."]
