"""The doctor's page in a real browser: what it says, in light and dark, on a screen and on a phone."""

from __future__ import annotations

import html
import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatch_app.doctor.checks import CHECKS
from dispatch_app.doctor.table import AREAS
from tests.lab import engine

pytestmark = pytest.mark.long

doctor = importlib.import_module("roles.dispatch.filter_plugins.dispatch_doctor")

NASTY = '<script>document.title = "run"</script> & "quoted" {{ 7 * 7 }} ' + "long" * 60
FLOW = {"broker": "10.0.1.20", "vhost": "/", "exchange": "robot-shop", "queue": "orders"}
FLOW_SEEN = {**FLOW, "retry": 3, "dead": 2, "ready": 1234, "consumers": 2}

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# The script measures, for every visible piece of text, its contrast to what is painted behind it (WCAG 2.2, 1.4.3).
EXAMINE = """
const luminance = colour => {
  const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
};
const style = node => view.getComputedStyle(node);
const behind = node => {
  const group = node.closest('svg g');
  if (group && !node.matches('.label'))
    return style(group.querySelector(node.matches('.sign') ? 'circle' : 'rect')).fill;
  for (let at = node; at; at = at.parentElement)
    if (!/^rgba.*, 0\\)$/.test(style(at).backgroundColor)) return style(at).backgroundColor;
  return 'rgb(255, 255, 255)';
};
const contrasts = [], walker = page.createTreeWalker(page.body, 4);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
  const [a, b] = [style(node)[node.closest('svg') ? 'fill' : 'color'], behind(node)].map(luminance);
  contrasts.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.data.trim()]);
}
return {
  title: page.title, text: page.body.innerText, contrasts,
  pictures: [...page.querySelectorAll('svg')].filter(s => s.getClientRects().length).map(s => s.classList.value),
  wide: page.documentElement.scrollWidth, dark: view.matchMedia('(prefers-color-scheme: dark)').matches,
};
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    """The Chromium or Chrome of this machine, by whichever name, or else Debian's (Ubuntu packages none)."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    engine.install("chromium")
    return str(shutil.which("chromium"))


@pytest.fixture
def browse(chromium: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Shows a page in a frame of some width, and returns what EXAMINE finds and what the console said."""

    def show(page: str, width: int, dark: bool) -> dict[str, Any]:
        quoted = json.dumps(page).replace("</", "<\\/")  # a </script> in the page would end the script
        script = f"""
            const frame = document.querySelector('iframe');
            frame.onload = () => {{
              const page = frame.contentDocument, view = frame.contentWindow;
              const found = (() => {{ {EXAMINE} }})();
              document.querySelector('#result').textContent = JSON.stringify(found);
            }};
            frame.srcdoc = {quoted};
        """
        frame = f'<iframe style="width: {width}px; height: 3000px; border: 0"></iframe>'
        frame += f"<pre id=result></pre><script>{script}</script>"
        file = tmp_path / "frame.html"
        file.write_text(f"<!DOCTYPE html><meta charset=utf-8>{frame}")
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width + 50},3100", "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", file.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        found = re.search(r'<pre id="result">(.*)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return {**json.loads(html.unescape(found[1])), "console": console}

    return show


def report(host: str, *ids: str, **more: Any) -> dict[str, Any]:
    """A report as a doctor gives it, with the findings asked for."""
    checks = {check.id: check for check in CHECKS}
    findings = [
        {
            "id": name, "area": checks[name].area, "severity": checks[name].severity,
            "about": checks[name].about, "evidence": f"{name}: {NASTY}",
            "cause": f"The cause of {name}.", "fix": {"where": "host", "command": f"mend {name} && {NASTY}"},
        }
        for name in ids
    ]  # fmt: skip
    states = {finding["area"]: str(finding["severity"]) for finding in reversed(findings)}
    states.setdefault("queues", "unknown")
    return {
        "host": host, "release": "0123456789ab", "healthy": not ids, "exit_code": 21 if ids else 0, "seconds": 0.5,
        "components": {}, "findings": findings, "areas": {area: states.get(area, "ok") for area in AREAS},
        "flow": FLOW_SEEN,
        "checks": [
            {"id": check.id, "area": check.area, "title": check.title, "because": "x",
             "state": "found" if check.id in ids else "skipped"} for check in CHECKS
        ],
        **more,
    }  # fmt: skip


def render(reports: dict[str, Any]) -> str:
    """Render the page as the playbook does, of what each host printed or, as text, why it could not be examined."""
    results = {
        h: {"msg": seen} if isinstance(seen, str) else {"stdout": json.dumps(seen)} for h, seen in reports.items()
    }
    return str(doctor.page(doctor.collect(results, ["inventories/lab"])))


@pytest.fixture(scope="module")
def ill() -> str:
    """A fleet with every finding there is, two releases, and a host that could not be examined."""
    reports = {
        "10.0.2.10": report("a"),
        "10.0.2.11": report("b", *(check.id for check in CHECKS)),
        "10.0.2.12": NASTY,
        "10.0.2.13": report("d", "address-placeholder", flow={}, release=None),
        "10.0.2.14": report("e", "broker-refused", flow=FLOW, release="ba9876543210"),
    }
    return render(reports)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390], ids=["screen", "phone"])
def test_it_can_be_read(browse: Callable[..., dict[str, Any]], ill: str, width: int, dark: bool) -> None:
    found = browse(ill, width, dark)
    assert found["console"] == []
    assert found["dark"] is dark
    assert found["wide"] <= width
    assert found["pictures"] == ["wide" if width > 720 else "tall"]
    assert [(ratio, text) for ratio, text in found["contrasts"] if ratio < 4.5] == []
    assert "1 of 5 hosts is healthy." in found["text"]


def test_it_tells_everything_and_runs_nothing(browse: Callable[..., dict[str, Any]], ill: str) -> None:
    found = browse(ill, 1200, False)
    assert found["title"] == "Dispatch: 4 of 5 hosts need attention"
    for check in CHECKS:
        assert f"The cause of {check.id}." in found["text"]
        assert f"mend {check.id} && {NASTY}" in found["text"]
    assert "could not be examined" in found["text"]
    assert "two-versions" in found["text"]
    words = {text for _, text in found["contrasts"]}
    assert {"1234 waiting", "2 consumers", "retry 3", "dead letters 2", "1 of 5 healthy", "robot-shop"} <= words
    assert not re.findall(r"(?:src|href)=.(?!data:|#)", ill)
    assert "url(http" not in ill


def test_a_healthy_fleet_says_so(browse: Callable[..., dict[str, Any]]) -> None:
    found = browse(render({"one": report("one"), "two": report("two")}), 1200, False)
    assert found["title"] == "Dispatch: healthy"
    assert "All 2 hosts are healthy." in found["text"]
    assert "What is wrong" not in found["text"]
    assert found["console"] == []


def test_the_browser_tells_what_its_console_says(browse: Callable[..., dict[str, Any]]) -> None:
    assert browse("<body><script>console.error('seen')</script>x", 400, False)["console"] != []
