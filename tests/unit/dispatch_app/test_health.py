"""The metrics: each reason is there from the start, names are as Prometheus has them, and the page says the same."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import dispatch_app
from dispatch_app import health, orders, page
from dispatch_app.amqp.connection import Connection
from dispatch_app.effects.rate import Nothing
from dispatch_app.effects.webhook import Webhook
from dispatch_app.effects.workers import Workers
from dispatch_app.ledgers.port import Backlog

PACKAGE = Path(dispatch_app.__file__).parent
SOURCES = {str(file.relative_to(PACKAGE)): file.read_text() for file in PACKAGE.rglob("*.py")}


def samples(state: health.State) -> dict[str, float]:
    """What is exposed, by name and labels."""
    text = health.exposition(state, 4096).decode()
    return {
        "/".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def everything(tmp_path: Path) -> health.State:
    """A state of which every metric is exposed."""
    state = health.State("robot-shop:orders")
    state.directory, state.certificate_end = tmp_path, 2e9
    state.backlog = lambda: Backlog(1, 2.0)
    state.effects["hook", "done"] = state.retried["hook-failed"] = 0
    return state


def test_every_reason_of_a_dead_letter_is_counted_from_the_start() -> None:
    raised = set(re.findall(r'InvalidOrderError\("([\w-]+)"', SOURCES["orders.py"]))
    assert raised == set(orders.REASONS)
    assert {name: value for name, value in samples(health.State()).items() if "orders_dead" in name} == {
        f"dispatch_orders_dead_total/{reason}": 0.0 for reason in (*raised, "unreadable", "killed-the-consumer")
    }


@pytest.mark.parametrize("effect", [Nothing(), SimpleNamespace(**{**vars(Webhook), "threads": 0})])
def test_every_reason_of_an_effect_is_counted_from_the_start(effect: Any) -> None:
    state = health.State()
    Workers(effect, state, lambda _: None, None)
    there = samples(state)
    for reason in (*effect.reasons, f"{effect.name}-failed"):
        assert there[f"dispatch_orders_retried_total/{reason}"] == 0
        assert there[f"dispatch_orders_dead_total/{reason}"] == 0


def test_every_part_that_may_be_an_obstacle_is_told_from_the_start() -> None:
    said = r'(?:state\.set\(|for part in \(|^_PART = )"(\w+)"'
    parts = {part for text in SOURCES.values() for part in re.findall(said, text, re.MULTILINE)}
    assert parts == set(health.PARTS)
    state = health.State()
    state.set("ledger", "disk full")
    found = {name: value for name, value in samples(state).items() if "obstacle" in name}
    assert found == {f"dispatch_obstacle/{part}": float(part in ("broker", "ledger")) for part in health.PARTS}


def test_names_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    families = list(text_string_to_metric_families(health.exposition(everything(tmp_path), 1).decode()))
    assert len(families) > 25
    for family in families:
        assert re.fullmatch(r"(dispatch|process|messaging)_[a-z_]+", family.name)
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples if "created" not in sample.name)
        assert not re.search(r"_(ms|kb|mb|minutes|hours|millis|total_total)\b", family.name)


def test_the_oldest_order_and_the_process_are_told(tmp_path: Path) -> None:
    state = everything(tmp_path)
    state.oldest = time.monotonic() - 90
    there = samples(state)
    assert 90 <= there["dispatch_orders_oldest_seconds"] < 100
    assert abs(there["process_start_time_seconds"] - time.time()) < 60
    assert there["process_resident_memory_bytes"] > 1 << 20
    assert there["dispatch_disk_available_bytes"] > 0
    assert there["dispatch_broker_certificate_end_timestamp_seconds"] == 2e9
    assert samples(health.State())["dispatch_orders_oldest_seconds"] == 0


def test_a_release_is_named_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.release() == ""
    live = tmp_path / "releases" / "0123abcd" / "dispatch_app"
    live.mkdir(parents=True)
    (tmp_path / "current").symlink_to(live.parent)
    monkeypatch.setattr(health, "__file__", str(tmp_path / "current" / "dispatch_app" / "health.py"))
    assert health.release() == "0123abcd"


def test_the_end_of_the_broker_s_certificate_is_that_of_its_connection() -> None:
    connection = Connection.__new__(Connection)
    certificate = {"notAfter": "Jan  5 09:34:43 2030 GMT"}
    connection._transport = SimpleNamespace(_sock=SimpleNamespace(getpeercert=lambda: certificate))
    assert connection.certificate_end == 1893836083.0
    connection._transport = SimpleNamespace(_sock=object())  # without TLS
    assert connection.certificate_end is None


class Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.tags.add(tag)


def test_the_page_says_how_the_service_is_and_nothing_of_it_is_markup(tmp_path: Path) -> None:
    state = everything(tmp_path)
    state.dispatched, state.dead["not-json"], state.ack.sum = 12345, 2, 3.0
    state.set("broker", "no answer from <script>alert(1)</script>")
    seen = Text(page.page(state, 3 << 20).decode())
    assert "Not consuming. no answer from <script>alert(1)</script>" in seen.text
    assert "script" not in seen.tags
    for said in ("12,345", "reason not-json", "3.0 MiB", "2033-05-18T03:33:20.000Z"):
        assert said in seen.text
    assert "reason too-deep" not in seen.text  # there is none
    assert "messaging_" not in seen.text


def test_the_page_tells_held_orders_and_a_loop_that_hangs() -> None:
    state = health.State()
    state.set("broker", None)
    seen = Text(page.page(state, 1).decode()).text
    assert "Consuming." in seen
    assert "dispatch_backup_last_success_timestamp_seconds never" in seen
    state.held = ("the endpoint is away; orders are held", time.monotonic())
    assert "Consuming, and holding orders. the endpoint is away" in Text(page.page(state, 1).decode()).text
    state.unserved = {"DISPATCH_METRICS": "DISPATCH_METRICS %eth0:9672 can't be used"}
    assert "DISPATCH_METRICS %eth0:9672" in Text(page.page(state, 1).decode()).text
    state.beat -= health.STUCK
    assert "The work loop has hung" in Text(page.page(state, 1).decode()).text
