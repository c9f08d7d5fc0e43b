"""playbooks/find.yml: which host dispatched an order, in one table, and an error where none did."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dispatch_find as find
import pytest

from tests.lab.ansible import playbook


def order(order_id: str, moment: str) -> str:
    return json.dumps({"dispatched_at": moment, "id": order_id, "user": "ann", "items": 2, "total": 1.5})


ANSWERS: dict[str, dict[str, Any]] = {
    "one": {"rc": 0, "stdout": ""},
    "two": {"rc": 0, "stdout": order("o-1", "2026-02-01T00:00:00.000Z")},
    "three": {"rc": 0, "stdout": "\n".join([order("o-1", "2026-01-01T00:00:00.000Z")])},
    "old": {"rc": 2, "stdout": "", "stderr": "usage: dispatch …\ndispatch: error: unrecognized arguments: \x1b[1m"},
    "away": {"unreachable": True, "msg": "Failed to connect\nto the host"},
}


def test_all_hosts_stand_in_one_table_and_those_that_gave_no_answer_below() -> None:
    head, first, second, old, away = find.text(ANSWERS)
    assert head.split() == ["dispatched_at", "host", "id", "user", "items", "total", "correlation_id"]
    assert first.split()[:3] == ["2026-01-01T00:00:00.000Z", "three", "o-1"]
    assert second.split()[1] == "two"
    assert old == r"old could not be asked: dispatch: error: unrecognized arguments: \x1b[1m"
    assert away.startswith("away could not be asked: ")
    assert find.nowhere(ANSWERS) == ""


def test_a_shared_ledger_tells_which_host_dispatched_an_order_however_many_hosts_are_asked() -> None:
    shared = json.dumps({**json.loads(order("o-1", "2026-02-01T00:00:00.000Z")), "host": "two"})
    _, only = find.text({host: {"rc": 0, "stdout": shared} for host in ("one", "two")})
    assert only.split()[:3] == ["2026-02-01T00:00:00.000Z", "two", "o-1"]


def test_an_order_that_no_host_has_is_an_error_that_names_who_was_not_asked() -> None:
    answers = {host: ANSWERS[host] for host in ("one", "old", "away")}
    assert "None of the ledgers" in find.nowhere(answers)
    assert "could not be asked: old, away." in find.nowhere(answers)
    assert "could not" not in find.nowhere({"one": ANSWERS["one"]})
    assert "could not be asked: odd." in find.nowhere({"odd": {"rc": 0, "stdout": "no json"}})


@pytest.mark.parametrize("asked", [[], ["-e", "order=a", "-e", "correlation_id=b"]])
def test_it_is_refused_without_one_thing_to_look_for(asked: list[str], tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.json"
    here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"dispatch": {"hosts": {"here": here}}}))
    run = playbook("find", *asked, inventory=inventory)
    assert run.code != 0
    assert "-e order=<its id>" in " ".join(run.output.split())
