"""What the service knows about itself, and its metrics."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from . import __version__
from .ledgers.port import AwayError, Backlog, LedgerError

if TYPE_CHECKING:
    from prometheus_client import Metric

STUCK = 30.0  # seconds without a beat of the work loop before /livez fails
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)  # bounds of what usually takes milliseconds


class Histogram:
    """Counts by upper bound, cumulative, as Prometheus exposes them."""

    def __init__(self, *bounds: float) -> None:
        self.counts = dict.fromkeys([*map(str, bounds), "+Inf"], 0)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value."""
        self.sum += value
        for bound in self.counts:
            self.counts[bound] += value <= float(bound)


class State:
    """Counters, the beat of the work loop, and the reasons why the service is not ready.

    Only the work loop writes, mostly once a batch; the HTTP threads read. The one exception is `unserved`,
    which is theirs.
    """

    def __init__(self) -> None:
        self.reasons = {"broker": "not connected yet"}
        self.held: tuple[str, float] | None = None  # why orders wait for their effect, and since which time.monotonic()
        self.unserved: str | None = None  # why nobody can ask by HTTP now
        self.beat = time.monotonic()
        self.received = self.dispatched = self.duplicates = self.redelivered = 0
        self.connections = self.losses = self.in_flight = 0
        self.announced = 0
        self.event_obstacle: str | None = None  # one of outbox.OBSTACLES, while orders can't be announced for it
        self.backlog: Callable[[], Backlog] | None = None  # where orders are announced
        self.last_backup: Callable[[], float] = float  # seconds since 1970; 0.0 where there is none
        self.retried: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.effects: Counter[tuple[str, str]] = Counter()  # by effect and outcome; empty where there is no effect
        self.effect_seconds = Histogram(*_SECONDS)
        self.batch = Histogram(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        self.ack = Histogram(*_SECONDS)

    def set(self, part: str, reason: str | None) -> None:
        """Note the reason why `part` keeps the service from being ready; None if it doesn't."""
        others = {name: text for name, text in self.reasons.items() if name != part}
        self.reasons = {**others, part: reason} if reason else others


def exposition(state: State, ledger_bytes: int) -> bytes:
    """Return the metrics in Prometheus' text format."""
    # Imported at the first scrape, because this takes longer than the whole rest of the start.
    from prometheus_client import CollectorRegistry, core, generate_latest

    def counter(name: str, text: str, value: int | Counter[str]) -> Metric:
        if isinstance(value, int):
            return core.CounterMetricFamily(f"dispatch_{name}", text, value=value)
        family = core.CounterMetricFamily(f"dispatch_{name}", text, labels=["reason"])
        for reason, count in sorted(value.copy().items()):
            family.add_metric([reason], count)
        return family

    def gauge(name: str, text: str, value: float) -> Metric:
        return core.GaugeMetricFamily(f"dispatch_{name}", text, value=value)

    def histogram(name: str, text: str, value: Histogram) -> Metric:
        return core.HistogramMetricFamily(f"dispatch_{name}", text, list(value.counts.items()), value.sum)

    def events(backlog: Callable[[], Backlog]) -> Iterator[Metric]:
        from .outbox import OBSTACLES

        yield counter("events_announced", "Orders announced", state.announced)
        obstacle = core.GaugeMetricFamily("dispatch_events_obstacle", "1 for what is in the way now", labels=["reason"])
        for reason in OBSTACLES:
            obstacle.add_metric([reason], reason == state.event_obstacle)
        yield obstacle
        with suppress(LedgerError, AwayError):  # nobody knows the figures while the ledger can't be read
            orders, seconds = backlog()
            yield gauge("events_pending", "Orders that are not announced yet", orders)
            yield gauge("events_oldest_seconds", "For how long the oldest of them has waited", seconds)

    class Metrics:
        def collect(self) -> Iterator[Metric]:
            yield counter("orders_received", "Deliveries checked", state.received)
            yield counter("orders_redelivered", "Deliveries the broker had made before", state.redelivered)
            yield counter("orders_dispatched", "Orders recorded in the ledger", state.dispatched)
            yield counter("orders_duplicate", "Orders that had been recorded before", state.duplicates)
            yield counter("orders_retried", "Orders put in a retry queue", state.retried)
            yield counter("orders_dead", "Orders put in the dead-letter queue", state.dead)
            yield gauge("orders_in_flight", "Deliveries not acknowledged", state.in_flight)
            yield histogram("batch_orders", "Orders per commit", state.batch)
            yield histogram("ack_seconds", "From the oldest of some deliveries to their acknowledgement", state.ack)
            if state.effects:
                family = core.CounterMetricFamily(
                    "dispatch_effects", "Effects of orders that were tried", labels=["effect", "outcome"]
                )
                for labels, count in sorted(state.effects.copy().items()):
                    family.add_metric(labels, count)
                yield family
                held = state.held  # the work loop may change it between two looks
                text = "For how long orders have been held because the other side of their effect is away"
                yield gauge("effect_held_seconds", text, time.monotonic() - held[1] if held else 0.0)
                yield histogram("effect_seconds", "From the start of an effect to its end", state.effect_seconds)
            yield counter("connections", "Connections opened", state.connections)
            yield counter("connection_losses", "Connections lost or refused", state.losses)
            yield gauge("ready", "1 while consuming", not state.reasons)
            yield gauge("ledger_bytes", "Ledger and its log on disk", ledger_bytes)
            text = "When the ledger's last backup was taken, in seconds since 1970; 0 where there is none"
            yield gauge("backup_last_success_timestamp_seconds", text, state.last_backup())
            if state.backlog:
                yield from events(state.backlog)
            build = {"version": __version__, "python": platform.python_version()}
            yield core.InfoMetricFamily("dispatch_build", "This build", build)

    registry = CollectorRegistry()
    registry.register(Metrics())
    return generate_latest(registry)
