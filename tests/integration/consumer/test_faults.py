"""Nothing is lost and nothing is dispatched twice, whatever breaks while orders come in.

Publishers use confirms and `mandatory` and note what was confirmed. A fault strikes under their load; then the
service works off what waits, and the sets are compared: confirmed = dispatched or dead.
DISPATCH_TEST_ROUNDS sets how many seeds each fault is tried with.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from dispatch_app.amqp.connection import HEARTBEAT
from tests.integration.consumer.harness import (
    SIGKILLED,
    Broker,
    Outcome,
    Proxy,
    Publisher,
    Service,
    kill_moment,
    load,
    reckon,
    until,
)
from tests.integration.consumer.variants import COUNTDOWN

ROUNDS = int(os.environ.get("DISPATCH_TEST_ROUNDS", "1"))
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 1 + ROUNDS))]


@dataclass(frozen=True)
class Stage:
    """The parts that a fault may act on."""

    broker: Broker
    proxy: Proxy
    service: Service
    publishers: list[Publisher]
    random: Random
    remarks: list[str]

    def await_progress(self, orders: int = 100) -> None:
        """Wait until the service has dispatched more under the load."""
        enough = len(self.service.dispatched()) + orders
        until(lambda: len(self.service.dispatched()) >= enough, what="progress")


def killed(stage: Stage, variant: str, times: int = 5) -> None:
    """Let the service crash at one point of its work, in a later pass each time, and start it again."""
    assert stage.service.stop() == 0
    for _ in range(times):
        # The crash must come in the middle of work, also on the slowest machine.
        until(lambda: sum(stage.broker.messages().values()) > 300, what="orders waiting")
        stage.service.environment[COUNTDOWN] = str(stage.random.randrange(6))
        stage.service.start("tests.integration.consumer.variants", variant)
        assert stage.service.process.wait(60) == SIGKILLED
    stage.service.start()


def killed_between_effect_and_acknowledge(stage: Stage) -> None:
    killed(stage, "killed_after_the_effect")


def killed_within_the_transaction(stage: Stage) -> None:
    killed(stage, "killed_before_the_commit")


def killed_at_random_moments(stage: Stage) -> None:
    for _ in range(8):
        time.sleep(kill_moment(stage.random))
        stage.service.kill()
        stage.service.start()


def stopped_by_sigterm(stage: Stage) -> None:
    for _ in range(4):
        stage.await_progress(stage.random.randrange(1, 200))
        assert stage.service.stop() == 0
        stage.service.start()


def closed_by_the_broker(stage: Stage) -> None:
    for _ in range(4):
        stage.await_progress()
        before = stage.service.metric("dispatch_connections_total")
        stage.broker.drop_connections()
        until(lambda before=before: stage.service.metric("dispatch_connections_total") > before, what="a reconnect")  # type: ignore[misc]


def black_hole(stage: Stage) -> None:
    stage.proxy.silence()
    silent = time.monotonic()
    stage.service.await_trouble("missed heartbeats")
    noticed = time.monotonic() - silent
    stage.remarks.append(f"a black hole was noticed after {noticed:.0f} s, with heartbeats every {HEARTBEAT} s")
    stage.proxy.speak()


def broker_restarted(stage: Stage) -> None:
    stage.broker.run("systemctl", "restart", "rabbitmq-server")


def broker_away_for_longer_than_the_heartbeat(stage: Stage) -> None:
    stage.broker.ctl("stop_app")
    try:
        stage.service.await_trouble("127.0.0.1")
        time.sleep(2 * HEARTBEAT + 1)
    finally:
        stage.broker.ctl("start_app")


def ledger_disk_full(stage: Stage) -> None:
    filler = stage.service.state / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "status=none"], stderr=subprocess.DEVNULL, check=False)
    assert "disk is full" in stage.service.await_trouble("the ledger can't be written")
    filler.unlink()


def ledger_locked(stage: Stage) -> None:
    with stage.service.locked_out():
        assert "locked" in stage.service.await_trouble("the ledger can't be written")


FAULTS = [
    killed_between_effect_and_acknowledge, killed_within_the_transaction, killed_at_random_moments,
    stopped_by_sigterm, closed_by_the_broker, pytest.param(black_hole, marks=pytest.mark.long), broker_restarted,
    pytest.param(broker_away_for_longer_than_the_heartbeat, marks=pytest.mark.long), ledger_disk_full, ledger_locked,
]  # fmt: skip
# After these faults RabbitMQ must have redelivered orders; otherwise the fault did not strike.
REDELIVERS = {killed_between_effect_and_acknowledge, killed_within_the_transaction}
# A stop lets the service finish what it was given, so nothing is delivered again.
NEVER_REDELIVERS = {stopped_by_sigterm, ledger_disk_full, ledger_locked}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[None]:
    """A file system of 32 MiB for the ledger."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system to fill up")
    directory = tmp_path / "state"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", directory], check=True)
    yield
    subprocess.run(["umount", directory], check=True)


def run(
    fault: Callable[[Stage], None], seed: int, broker: Broker, proxy: Proxy, service: Service, remarks: list[str],
    settled: Callable[[], object] = lambda: None,
) -> Outcome:  # fmt: skip
    """Let the fault strike under load, wait until nothing is under way and `settled` returns, and compare."""
    service.environment["AMQP_PORT"] = str(proxy.port)
    service.start()
    service.await_ready()
    with load(broker, str(seed)) as publishers:
        stage = Stage(broker, proxy, service, publishers, Random(seed), remarks)  # noqa: S311 - no secret
        stage.await_progress()
        fault(stage)
        service.await_ready(120)
        stage.await_progress()
    settled()
    return reckon(broker, publishers, service)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_confirmed_orders_are_dispatched_once_or_dead(
    fault: Callable[[Stage], None], seed: int, broker: Broker, proxy: Proxy, request: pytest.FixtureRequest,
    reckoned: list[tuple[str, str, Outcome]], remarks: list[str],
) -> None:  # fmt: skip
    if fault is ledger_disk_full:
        request.getfixturevalue("small_disk")
    service: Service = request.getfixturevalue("service")
    outcome = run(fault, seed, broker, proxy, service, remarks)
    reckoned.append((fault.__name__.replace("_", " "), str(seed), outcome))
    assert not outcome.lost
    assert not outcome.twice
    assert outcome.confirmed == outcome.dispatched | outcome.dead
    assert outcome.dead
    assert outcome.redelivered > 0 or fault not in REDELIVERS
    assert outcome.redelivered == 0 or fault not in NEVER_REDELIVERS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_consumer_that_acknowledges_before_the_effect_is_found_out(
    seed: int, broker: Broker, proxy: Proxy, service: Service, reckoned: list[tuple[str, str, Outcome]]
) -> None:
    outcome = run(lambda stage: killed(stage, "acknowledges_first"), seed, broker, proxy, service, [])
    reckoned.append(("control: acknowledges before the effect", str(seed), outcome))
    assert outcome.lost
    assert outcome.confirmed != outcome.dispatched | outcome.dead
