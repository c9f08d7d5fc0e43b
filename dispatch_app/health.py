"""`/livez`, `/readyz` and `/metrics` over HTTP, for probes and Prometheus."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from . import __version__
from .state import Histogram, State

if TYPE_CHECKING:
    from prometheus_client import Metric

STUCK = 30.0  # seconds without a beat of the work loop before /livez fails


def serve(address: tuple[str, int], state: State, ledger_size: Callable[[], int]) -> ThreadingHTTPServer:
    """Answer in daemon threads from now on. Raises OSError where the address is taken."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; a client that sends nothing holds no thread for ever
        server_version = "dispatch"

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, exposition(state, ledger_size), "text/plain; version=0.0.4")
            elif self.path == "/livez":
                age = time.monotonic() - state.beat
                alive = age < STUCK
                self._answer(200 if alive else 503, f"work loop seen {age:.1f} s ago\n".encode())
            elif self.path == "/readyz":
                reasons = list(state.reasons.values())
                text = "".join(f"{reason}\n" for reason in reasons) or "consuming\n"
                self._answer(503 if reasons else 200, text.encode())
            else:
                self._answer(404, b"see /livez, /readyz and /metrics\n")

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass  # probes every few seconds would drown what matters

    server = ThreadingHTTPServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def exposition(state: State, ledger_size: Callable[[], int]) -> bytes:
    """Return the metrics in Prometheus' text format."""
    # Imported at the first scrape: it takes longer than all the rest of the start.
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily,
    )  # fmt: skip
    from prometheus_client.registry import Collector

    def counter(name: str, text: str, value: int) -> Metric:
        return CounterMetricFamily(f"dispatch_{name}", text, value=value)

    def by_reason(name: str, text: str, values: dict[str, int]) -> Metric:
        family = CounterMetricFamily(f"dispatch_{name}", text, labels=["reason"])
        for reason, value in sorted(values.items()):
            family.add_metric([reason], value)
        return family

    def histogram(name: str, text: str, values: Histogram) -> Metric:
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count)
            for bound, count in zip(values.bounds, values.counts)
        ]
        return HistogramMetricFamily(f"dispatch_{name}", text, buckets, values.sum)

    class Metrics(Collector):
        def collect(self) -> Iterator[Metric]:
            yield counter("orders_received", "Deliveries checked", state.received)
            yield counter("orders_dispatched", "Orders recorded in the ledger", state.dispatched)
            yield counter("orders_duplicate", "Orders that were recorded before", state.duplicates)
            yield by_reason("orders_retried", "Orders put in a retry queue", dict(state.retried))
            yield by_reason("orders_dead", "Orders put in the dead-letter queue", dict(state.dead))
            yield GaugeMetricFamily("dispatch_orders_in_flight", "Deliveries not acknowledged yet", value=state.in_flight)
            yield histogram("batch_orders", "Orders a commit", state.batch_orders)
            yield histogram("ack_seconds", "Oldest delivery of a batch to its acknowledgement", state.ack_seconds)
            yield counter("connections", "Connections opened", state.connections)
            yield counter("connection_losses", "Connections lost or refused", state.connection_losses)
            yield GaugeMetricFamily("dispatch_ready", "1 while consuming", value=not state.reasons)
            yield GaugeMetricFamily("dispatch_ledger_bytes", "Ledger and its log on disk", value=ledger_size())
            yield InfoMetricFamily("dispatch_build", "This build", {"version": __version__, "python": platform.python_version()})

    registry = CollectorRegistry()
    registry.register(Metrics())
    return generate_latest(registry)
