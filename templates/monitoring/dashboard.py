"""Writes Grafana's dashboard out of its source: `python templates/monitoring/dashboard.py`, or `make dashboard`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SOURCE, TARGET = (Path(__file__).with_name(f"dashboard.{kind}") for kind in ("yml", "json"))
COLUMNS, WIDTH, HEIGHT = 24, 8, 8  # of Grafana's grid, and of a panel
SCHEMA = 38  # Grafana 10; later ones take it over
# Whoever imports the dashboard chooses the Prometheus that it asks.
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dashboard as Grafana imports it (grafana.com, "Dashboard JSON model")."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in source["rows"]:
        panels.append(
            {
                "type": "row",
                "title": row["title"],
                "collapsed": False,
                "panels": [],
                "gridPos": _place(0, top, COLUMNS, 1),
            }
        )
        top += 1
        for number, panel in enumerate(row["panels"]):
            below, column = divmod(number, COLUMNS // WIDTH)
            panels.append({**_panel(panel), "gridPos": _place(column * WIDTH, top + below * HEIGHT, WIDTH, HEIGHT)})
        top += -(-len(row["panels"]) // (COLUMNS // WIDTH)) * HEIGHT
    return {
        "uid": source["uid"],
        "title": source["title"],
        "description": "Generated from templates/monitoring/dashboard.yml.",
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    kind = panel.get("kind", "timeseries")
    drawn = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"} if kind == "timeseries" else {}
    return {
        "type": kind,
        "title": panel["title"],
        "description": panel["says"],
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0, "custom": drawn}, "overrides": []},
        "options": {},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": DATASOURCE}
            for number, (legend, query) in enumerate(panel["queries"].items())
        ],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def written() -> str:
    """Return the text of the dashboard."""
    return json.dumps(dashboard(yaml.safe_load(SOURCE.read_text())), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(written())
