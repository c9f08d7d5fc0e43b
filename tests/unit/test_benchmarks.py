"""A benchmark tells of a run that fails and keeps the figures of all others."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.benchmarks import __main__ as bench
from tests.benchmarks import results
from tests.benchmarks.provision import __main__ as provision
from tests.lab import LabError

PEER = bench.PEERS[0]


@pytest.mark.parametrize("error", [bench.RunError("ended: port taken"), ChannelClosedByBroker(406, "x"), OSError("x")])
def test_a_run_that_fails_is_told_and_leaves_the_medians(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, error: Exception
) -> None:
    rates = iter([100.0, None, 300.0])

    def backlog(*arguments: Any) -> None:
        rate = next(rates)
        if rate is None:
            raise error
        arguments[-1].rate = rate

    monkeypatch.setattr(bench, "backlog", backlog)
    monkeypatch.setattr(bench, "latency", lambda *_: None)
    done: list[bench.Run] = []
    broker: Any = None
    kept = results.Results("consumer", {}, tmp_path)
    told = [bench.one_run(PEER, broker, "", 0, None, 1, done, kept) for _ in range(3)]
    assert [failed for _, failed in told] == [False, True, False]
    assert told[1][0].startswith("failed: ")
    assert str(error) in told[1][0] or type(error).__name__ in told[1][0]
    runs = json.loads(kept.path.read_bytes())["runs"]
    assert [run.get("figures", {}).get("rate orders/s") for run in runs] == [100.0, None, 300.0]
    assert type(error).__name__ in runs[1]["failed"]
    medians = bench.medians({"dispatch": done, "Go lean": []})
    assert {name: run.rate for name, run in medians.items()} == {"dispatch": 200.0}
    bench.show(medians)
    assert "200" in capsys.readouterr().out


def test_without_a_run_of_dispatch_s_that_went_well_nothing_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    bench.show({"pika": bench.Run(rate=7.0)})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["orders/s", "pika"]


def test_a_port_that_is_taken_is_not_asked_for() -> None:
    with socket.create_server(("127.0.0.1", bench.free_port())) as taken:
        assert taken.getsockname()[1] not in {bench.free_port() for _ in range(50)}


class Bench:
    """Hosts on which the second run of each contender fails."""

    def renew(self, *_: object) -> None:
        self.runs = 0

    def measure(self, contender: str, *_: object) -> provision.Figure:
        self.runs += 1
        if self.runs == 2:
            raise LabError(f"{contender} failed")
        return provision.Figure(4.0, 1.0)


def test_a_contender_that_fails_leaves_the_figures_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake: Any = Bench()
    figures: provision.Figures = {}
    kept = results.Results("provision", {}, tmp_path)
    told = [list(provision.phases(fake, name, 4, figures, kept)) for name in ("course", "ansible")]
    assert [[phase for phase, _ in each] for each in told] == [["first run", "no change"]] * 2
    assert [type(each[-1][1]) for each in told] == [LabError] * 2
    del figures[4, "first run", "ansible"]
    provision.show(figures, ["course", "ansible"])
    assert capsys.readouterr().out.splitlines()[-1] == "| 4 | first run | 4.0 s, 1.0 s CPU, 1.00 of (b) | failed |"
    runs = json.loads(kept.path.read_bytes())["runs"]
    assert [run.get("failed") for run in runs] == [None, "course failed", None, "ansible failed"]


def test_results_say_what_they_were_measured_on(tmp_path: Path) -> None:
    kept = results.Results("consumer", {"orders": 5}, tmp_path)
    kept.add("dispatch", {"rate orders/s": 1.0})
    document = json.loads(kept.path.read_bytes())
    assert document["parameters"] == {"orders": 5}
    assert document["versions"]["pika"]
    assert document["machine"]["processors"] > 0
    assert len(document["commit"]) in (0, 40)


def test_the_report_has_the_latest_medians_beside_the_ones_before(tmp_path: Path) -> None:
    assert "no results" in results.report(tmp_path)
    for rates in ([9.0], [100.0, 400.0, 200.0], [300.0, 500.0]):
        kept = results.Results("consumer", {}, tmp_path)
        for rate in rates:
            kept.add("dispatch", {"rate orders/s": rate, "behind orders": 0.0})
    kept.fail("pika", "no broker")
    results.Results("provision", {}, tmp_path).add("4 hosts", {"wall s": 2.5})
    lines = [line.split() for line in results.report(tmp_path).splitlines()]
    assert ["dispatch", "rate", "orders/s", "400.00", "200.00", "2.00"] in lines
    assert ["dispatch", "behind", "orders", "0.00", "0.00"] in lines
    assert ["pika", "failed:", "no", "broker"] in lines
    assert ["4", "hosts", "wall", "s", "2.50"] in lines
    assert not [line for line in lines if "9.00" in line]
