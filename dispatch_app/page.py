"""The page that people see at `/`: how the service is, and its metrics in words."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from . import __version__, health
from .moments import iso

if TYPE_CHECKING:
    from prometheus_client import Metric

REFRESH = 10  # seconds after which the browser asks again
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}td{border-top:1px solid #ccc;padding:.2em .5em}"
    "td:last-child{text-align:right;white-space:nowrap}.ok,.held,.not{padding:.6em 1em;border-left:.5em solid}"
    ".ok{border-color:#2a7}.held{border-color:#e90}.not{border-color:#c22}code{color:#555}"
)


def page(state: health.State, ledger_bytes: int) -> bytes:
    """Return the page as HTML."""
    reasons, held, beat = list(state.reasons.values()), state.held, time.monotonic() - state.beat
    if beat >= health.STUCK:
        kind, said = "not", [f"The work loop has hung for {beat:.0f} s."]
    elif reasons:
        kind, said = "not", ["Not consuming.", *reasons]
    elif held:
        kind, said = "held", ["Consuming, and holding orders.", held[0]]
    else:
        kind, said = "ok", ["Consuming."]
    said += state.unserved.values()
    host, release = socket.gethostname(), health.release() or "a checkout"
    rows = (row for metric in health.metrics(state, ledger_bytes) for row in _rows(metric))
    lines = (
        f"<tr><td>{escape(text)}<br><code>{escape(name)}</code></td><td>{escape(value)}</td></tr>"
        for text, name, value in rows
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH}">'
        f'<meta name="viewport" content="width=device-width"><title>Dispatch on {escape(host)}</title>'
        f"<style>{_STYLE}</style><h1>Dispatch on {escape(host)}</h1>"
        f'<p class="{kind}">{"<br>".join(map(escape, said))}</p>'
        f"<p>Version {__version__}, release {escape(release)}, up since {iso(state.started)}. "
        'For machines: <a href="/metrics">/metrics</a>, <a href="/readyz">/readyz</a>, <a href="/livez">/livez</a>.</p>'
        f"<table>{''.join(lines)}</table></html>\n"
    ).encode()


def _rows(metric: Metric) -> Iterator[tuple[str, str, str]]:
    """Yield what a metric says, its name, and its value, for each of its samples; of those with labels, no 0."""
    if metric.name.startswith("messaging_"):  # which repeat others
        return
    if metric.type == "histogram":
        values = {sample.name.removeprefix(metric.name): sample.value for sample in metric.samples}
        if count := values["_count"]:
            yield f"{metric.documentation}, on average", metric.name, _written(metric.name, values["_sum"] / count)
        return
    for sample in metric.samples:
        name, value = sample.name, sample.value
        labels = ", ".join(f"{label} {text}" for label, text in sample.labels.items())
        if value or not labels:
            yield f"{metric.documentation}{': ' if labels else ''}{labels}", name, _written(name, value)


def _written(name: str, value: float) -> str:
    if name.endswith(("_timestamp_seconds", "_start_time_seconds")):
        return iso(value) if value else "never"
    if name.endswith("_bytes"):
        return f"{value / (1 << 20):,.1f} MiB"
    if name.endswith(("_seconds", "_seconds_total")):
        return f"{value:,.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
