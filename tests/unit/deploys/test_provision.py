"""The second engine goes over a fleet as `dispatch_serial` says."""

from __future__ import annotations

from types import SimpleNamespace

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
