"""What playbooks/find.yml makes of the hosts' answers: which of them dispatched an order, and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Answers = Mapping[str, Mapping[str, Any]]
_COLUMNS = ("dispatched_at", "host", "id", "user", "items", "total", "correlation_id")
_LONGEST = 300  # characters of what a host said that has not answered


def text(answers: Answers) -> list[str]:
    """A table of the orders that were found, the oldest first, and a line for each host that has not answered.

    `answers` are what the task that asked has registered, by host.
    """
    orders = [order for host, answer in answers.items() for order in _orders(host, answer) or ()]
    # Hosts that share a ledger all give the same answer.
    rows = {tuple(_cell(order.get(column)) for column in _COLUMNS) for order in orders}
    table = [_COLUMNS, *sorted(rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table] if rows else []
    return lines + [f"{host} could not be asked: {why}" for host, why in _silent(answers).items()]


def nowhere(answers: Answers) -> str:
    """Why the order was not found; empty where it was."""
    if any(_orders(host, answer) for host, answer in answers.items()):
        return ""
    silent = ", ".join(_silent(answers))
    rest = f" These could not be asked: {silent}." if silent else ""
    return (
        f"None of the ledgers that could be asked has such an order.{rest} It may still wait in a queue, or be a dead "
        "letter (dispatch dead list), or its ledger may have forgotten it (DISPATCH_RETENTION_DAYS)."
    )


def _orders(host: str, answer: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The orders a host's ledger has, with the host that dispatched each; None where it has not answered."""
    if answer.get("rc") != 0:
        return None
    try:
        found = [json.loads(line) for line in str(answer.get("stdout", "")).splitlines()]
    except ValueError:
        return None
    return [{"host": host, **order} for order in found] if all(isinstance(order, dict) for order in found) else None


def _silent(answers: Answers) -> dict[str, str]:
    return {host: _why(answer) for host, answer in answers.items() if _orders(host, answer) is None}


def _why(answer: Mapping[str, Any]) -> str:
    said = next(filter(None, _said(answer)), "it gave no answer that can be read")
    return _cell(" ".join(said.split())[:_LONGEST])


def _said(answer: Mapping[str, Any]) -> Iterator[str]:
    """What a host said, the last line of its errors first: argparse tells its usage before what is wrong."""
    for name in ("stderr", "msg"):
        yield next(reversed(str(answer.get(name) or "").strip().splitlines()), "")


def _cell(value: object) -> str:
    """A value as text that moves no cursor."""
    shown = "-" if value is None else str(value)
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode()


class FilterModule:
    """The filters of this file, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"dispatch_found_text": text, "dispatch_found_nowhere": nowhere}
