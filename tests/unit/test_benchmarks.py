"""A benchmark tells of a run that fails and keeps the figures of all others."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.benchmarks import __main__ as bench

PEER = bench.PEERS[0]


@pytest.mark.parametrize("error", [bench.RunError("ended: port taken"), ChannelClosedByBroker(406, "x"), OSError("x")])
def test_a_run_that_fails_is_told_and_leaves_the_medians(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
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
    told = [bench.one_run(PEER, broker, "", 0, None, 1, done) for _ in range(3)]
    assert [failed for _, failed in told] == [False, True, False]
    assert told[1][0].startswith("failed: ")
    assert str(error) in told[1][0] or type(error).__name__ in told[1][0]
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
