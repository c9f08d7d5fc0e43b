"""The dashboard is what its source says, and Grafana can lay it out."""

from __future__ import annotations

import importlib
import json

from tests.prometheus import MONITORING

dashboard = importlib.import_module("templates.monitoring.dashboard")
PANELS = json.loads((MONITORING / "dashboard.json").read_text())["panels"]


def test_the_dashboard_is_up_to_date() -> None:
    assert (MONITORING / "dashboard.json").read_text() == dashboard.written(), "run `make dashboard`"


def test_no_two_panels_share_a_place_or_a_number() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= dashboard.COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_panel_says_what_it_shows_and_asks_the_prometheus_that_was_chosen() -> None:
    drawn = [panel for panel in PANELS if panel["type"] != "row"]
    assert len(drawn) > 20
    for panel in drawn:
        assert panel["description"].endswith(".")
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["expr"]
            assert target["legendFormat"]
