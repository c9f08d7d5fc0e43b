"""What the service knows about itself, and its metrics.

Names follow Prometheus' conventions (prometheus.io, "Metric and label naming"). What OpenTelemetry's conventions for
messaging have a name for stands under that one, too, in the form that Prometheus gives it.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__, orders, suspects
from .ledgers.port import AwayError, Backlog, LedgerError

if TYPE_CHECKING:
    from prometheus_client import Metric

STUCK = 30.0  # seconds without a beat of the work loop before /livez fails
# What may keep the service from being ready.
PARTS = ("broker", "ledger", "database", "outbox", "effect", "stopping")
UNREADABLE = "unreadable"  # the reason of a dead letter over which parsing failed as nobody has foreseen
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

    def __init__(self, destination: str = "") -> None:
        """Count from 0; `destination` is where orders come from, as OpenTelemetry names it: exchange:routing key."""
        self.destination = destination
        self.started = time.time()
        self.reasons = {"broker": "not connected yet"}
        self.held: tuple[str, float] | None = None  # why orders wait for their effect, and since which time.monotonic()
        self.unserved: dict[str, str] = {}  # by the setting, why nobody can ask by HTTP there now
        self.beat = time.monotonic()
        self.received = self.dispatched = self.duplicates = self.redelivered = 0
        self.connections = self.losses = self.in_flight = 0
        self.oldest: float | None = None  # time.monotonic() at which the oldest order at hand came
        self.announced = 0
        self.event_obstacle: str | None = None  # one of outbox.OBSTACLES, while orders can't be announced for it
        self.backlog: Callable[[], Backlog] | None = None  # where orders are announced
        self.directory: Path | None = None  # the state directory
        self.certificate_end: float | None = None  # of the broker's, in seconds since 1970; None without TLS
        self.last_backup: Callable[[], float] = float  # seconds since 1970; 0.0 where there is none
        # What can be a reason is there from the start: a counter that begins with 1 has not grown, to Prometheus. Those
        # of an effect are added by its workers.
        self.retried: Counter[str] = Counter()
        self.dead = Counter(dict.fromkeys((*orders.REASONS, UNREADABLE, suspects.REASON), 0))
        self.effects: Counter[tuple[str, str]] = Counter()  # by effect and outcome; empty where there is no effect
        self.effect_seconds = Histogram(*_SECONDS)
        self.batch = Histogram(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        self.ack = Histogram(*_SECONDS)

    def set(self, part: str, reason: str | None) -> None:
        """Note the reason why `part`, one of PARTS, keeps the service from being ready; None if it doesn't."""
        others = {name: text for name, text in self.reasons.items() if name != part}
        self.reasons = {**others, part: reason} if reason else others


def release() -> str:
    """Return the name of the release this runs from, "" for a checkout."""
    home = Path(__file__).resolve().parents[1]
    return home.name if home.parent.name == "releases" else ""


def metrics(state: State, ledger_bytes: int) -> Iterator[Metric]:
    """Yield all metrics."""
    # Imported at the first scrape, because this takes longer than the whole rest of the start.
    from prometheus_client import core

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

    def messaging() -> Iterator[Metric]:
        """What OpenTelemetry names, in the form that its specification of the exporter to Prometheus gives."""
        where = {"messaging_system": "rabbitmq", "messaging_destination_name": state.destination}
        received = core.CounterMetricFamily(
            "messaging_client_consumed_messages", "Deliveries checked", labels=[*where, "messaging_operation_name"]
        )
        received.add_metric([*where.values(), "consume"], state.received)
        yield received
        duration = core.HistogramMetricFamily(
            "messaging_process_duration_seconds", "As dispatch_ack_seconds", labels=[*where, "messaging_operation_name"]
        )
        duration.add_metric([*where.values(), "process"], list(state.ack.counts.items()), state.ack.sum)
        yield duration

    yield counter("orders_received", "Deliveries checked", state.received)
    yield counter("orders_redelivered", "Deliveries the broker had made before", state.redelivered)
    yield counter("orders_dispatched", "Orders recorded in the ledger", state.dispatched)
    yield counter("orders_duplicate", "Orders that had been recorded before", state.duplicates)
    yield counter("orders_retried", "Orders put in a retry queue", state.retried)
    yield counter("orders_dead", "Orders put in the dead-letter queue", state.dead)
    yield gauge("orders_in_flight", "Deliveries not acknowledged", state.in_flight)
    oldest = state.oldest  # the work loop may change it between two looks
    age = time.monotonic() - oldest if oldest is not None else 0.0
    yield gauge("orders_oldest_seconds", "For how long the oldest of them has been at hand", age)
    yield histogram("batch_orders", "Orders per commit", state.batch)
    yield histogram("ack_seconds", "From the oldest of some deliveries to their acknowledgement", state.ack)
    if state.destination:
        yield from messaging()
    if state.effects:
        family = core.CounterMetricFamily(
            "dispatch_effects", "Effects of orders that were tried", labels=["effect", "outcome"]
        )
        for labels, count in sorted(state.effects.copy().items()):
            family.add_metric(labels, count)
        yield family
        held = state.held  # as above
        text = "For how long orders have been held because the other side of their effect is away"
        yield gauge("effect_held_seconds", text, time.monotonic() - held[1] if held else 0.0)
        yield histogram("effect_seconds", "From the start of an effect to its end", state.effect_seconds)
    yield counter("connections", "Connections opened", state.connections)
    yield counter("connection_losses", "Connections lost or refused", state.losses)
    if state.certificate_end:
        text = "When the certificate of the broker's ends, in seconds since 1970"
        yield gauge("broker_certificate_end_timestamp_seconds", text, state.certificate_end)
    reasons = state.reasons
    yield gauge("ready", "1 while consuming", not reasons)
    obstacles = core.GaugeMetricFamily("dispatch_obstacle", "1 for what keeps it from being ready", labels=["part"])
    for part in PARTS:
        obstacles.add_metric([part], part in reasons)
    yield obstacles
    yield gauge("ledger_bytes", "Ledger and its log on disk", ledger_bytes)
    text = "When the ledger's last backup was taken, in seconds since 1970; 0 where there is none"
    yield gauge("backup_last_success_timestamp_seconds", text, state.last_backup())
    if state.directory:
        with suppress(OSError):
            disk = os.statvfs(state.directory)
            text = "Room on the disk of the state directory"
            yield gauge("disk_available_bytes", text, disk.f_bavail * disk.f_frsize)
    if state.backlog:
        yield from events(state.backlog)
    yield from _process(state)
    build = {"version": __version__, "python": platform.python_version(), "release": release()}
    yield core.InfoMetricFamily("dispatch_build", "This build", build)


def _process(state: State) -> Iterator[Metric]:
    """Yield what each client library of Prometheus tells of its process, by the same names.

    prometheus_client's own collector wants /proc/stat, which the sandbox hides (ProcSubset=pid).
    """
    from prometheus_client import core

    name, text = "process_start_time_seconds", "Start time of the process since unix epoch in seconds"
    yield core.GaugeMetricFamily(name, text, value=state.started)
    name, text = "process_cpu_seconds", "Total user and system CPU time spent in seconds"
    yield core.CounterMetricFamily(name, text, value=time.process_time())
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        octets = pages * os.sysconf("SC_PAGE_SIZE")
        yield core.GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes", value=octets)
        number = sum(1 for _ in Path("/proc/self/fd").iterdir())
        yield core.GaugeMetricFamily("process_open_fds", "Number of open file descriptors", value=number)


def exposition(state: State, ledger_bytes: int) -> bytes:
    """Return the metrics in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Metrics:
        def collect(self) -> Iterator[Metric]:
            return metrics(state, ledger_bytes)

    registry = CollectorRegistry()
    registry.register(Metrics())
    return generate_latest(registry)
