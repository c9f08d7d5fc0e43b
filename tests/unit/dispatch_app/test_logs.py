"""Log lines: readable by machines, with priorities for the journal, and one line each."""

import json
import logging
from typing import Any

import pytest

from dispatch_app.logs import Formatter, fields, log, setup
from dispatch_app.orderlog import log_orders


def record(message: str, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    return log.makeRecord("dispatch", level, "", 0, message, (), None, extra=fields(**extra))


def test_a_json_line_has_time_level_message_and_fields() -> None:
    line = json.loads(Formatter(text=False, journal=False).format(record("hello", order_id="o-1", none=None)))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "message": "hello", "order_id": "o-1"}


def test_a_line_stays_one_line_whatever_is_in_it() -> None:
    for text in (True, False):
        formatted = Formatter(text=text, journal=False).format(record("hello", value="a\nb" if not text else "a"))
        assert "\n" not in formatted


def test_the_journal_gets_a_priority() -> None:
    formatter = Formatter(text=False, journal=True)
    assert formatter.format(record("x", logging.ERROR)).startswith("<3>{")
    assert formatter.format(record("x")).startswith("<6>{")


def test_what_is_less_grave_than_the_level_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)
    before = log.level
    setup("warning")
    try:
        log.info("dispatched")
        log.warning("held")
    finally:
        log.setLevel(before)
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["held"]


@pytest.mark.parametrize("fill", ["0", '"', "山", "\U0001f600", "\x1b"])
@pytest.mark.parametrize("length", [36, 205, 255])
def test_no_line_is_too_long_whatever_the_ids_are(caplog: pytest.LogCaptureFixture, fill: str, length: int) -> None:
    log.propagate = True
    names = [f"{n:05}".rjust(length, fill) for n in range(1000)]
    with caplog.at_level(logging.INFO, "dispatch"):
        log_orders("dispatched", [(name, None, None, None, name, 0) for name in names])
    lines = [Formatter(text=False, journal=True).format(record) for record in caplog.records]
    assert max(len(line.encode()) for line in lines) < 48 * 1024
    orders = [order for line in lines for order in json.loads(line[3:])["orders"]]
    assert orders == [{"id": name, "correlation_id": name} for name in names]


def test_dispatched_orders_are_named_in_lines_the_journal_takes(caplog: pytest.LogCaptureFixture) -> None:
    log.propagate = True
    with caplog.at_level(logging.INFO, "dispatch"):
        log_orders("dispatched", [(f"{n:036}", None, None, None, f"{n:036}", 0) for n in range(1000)])
    lines = [Formatter(text=False, journal=True).format(record) for record in caplog.records]
    assert all(len(line) < 48 * 1024 for line in lines)
    orders = [order for line in lines for order in json.loads(line[3:])["orders"]]
    assert [order["id"] for order in orders] == [f"{n:036}" for n in range(1000)]
    assert orders[0]["correlation_id"] == f"{0:036}"
