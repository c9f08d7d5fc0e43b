"""Spans of orders and commits, exported by OTLP over HTTP with OpenTelemetry's SDK.

Names and attributes are those of OpenTelemetry's semantic conventions 1.44.0 for messaging spans and RabbitMQ, which
are still in development, and for database spans (opentelemetry.io/docs/specs/semconv). Each delivered order has a span
of the operation `process`, from the check of its message until it is recorded or put aside. It continues the trace of
its publisher, whose context the message's headers carry (W3C Trace Context, `traceparent` and `tracestate`). A commit
has a span, too, to which those of its orders link. Where one order alone is traced, the commit belongs to its trace.

The event loop only puts ended spans into a queue in memory. A thread of the SDK's exports them; of what the queue has
no room for, the oldest are dropped.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as Source
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import __version__
from .amqp import properties
from .logs import log
from .settings import OTLP_PATH, Otlp, Settings

QUEUE = 8192  # ended spans that wait to be exported at most; one takes about 4 KiB
BATCH = 512  # spans in one request
EXPORT_PERIOD = 1000  # milliseconds between two requests at most, while there are spans
EXPORT_SECONDS = 10.0  # for one batch, with all that is tried
CLOSE_SECONDS = 2.0  # for what has still to be exported when the process stops
_ROOT = Context()  # no span is in it
# A header as AMQP encodes it, by which the publisher has decided that the trace is not sampled: the last bit of the
# flags is 0 (W3C Trace Context, 3.2.2.5). The SDK comes to the same result at forty times the cost.
_UNSAMPLED = re.compile(rb"\x0btraceparentS\0\0\x00700-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][02468ace]")


class Tracer:
    """Makes the spans of one process, and has them exported."""

    def __init__(self, otlp: Otlp, settings: Settings) -> None:
        """Start the thread that exports them."""
        self._settings = settings
        self._processor = BatchSpanProcessor(_Exporter(otlp), QUEUE, EXPORT_PERIOD, BATCH)
        own = {"service.name": "dispatch", "service.version": __version__, "host.name": socket.gethostname()}
        self._resource = Resource.create(own)
        self.orders = self._source(ParentBased(TraceIdRatioBased(otlp.ratio)))
        self.commits = self._source(ALWAYS_ON)  # which are made only for orders that are traced

    def deliveries(self, host: str) -> Deliveries:
        """Return what makes the spans of one connection to `host`."""
        return Deliveries(self, self._settings, host)

    def close(self) -> None:
        """Export what is left, if the collector takes it soon."""
        # The SDK's own limit is 30 s, and longer than a stop may take.
        closing = threading.Thread(target=self._processor.shutdown, name="otlp-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _source(self, sampler: Sampler) -> Source:
        provider = TracerProvider(sampler, self._resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer(__package__, __version__, Schemas.V1_44_0.value)


class Deliveries:
    """The spans of one connection's deliveries, by their tags, from their begin to their end.

    What the broker will deliver again, because the connection is lost, has no span of this connection.
    """

    def __init__(self, tracer: Tracer, settings: Settings, host: str) -> None:
        self._tracer = tracer
        place = f"{settings.exchange}:{settings.routing_key}"
        if settings.queue != settings.routing_key:
            place += f":{settings.queue}"
        self._name = f"process {place}"
        self._order: dict[str, str | int] = {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": place,
            "messaging.rabbitmq.destination.routing_key": settings.routing_key,
            "server.address": host,
            "server.port": settings.port,
        }
        self._commit: dict[str, str | int] = {
            "db.system.name": "postgresql" if settings.ledger else "sqlite",
            "db.operation.name": "COMMIT",
            "db.collection.name": "orders",
        }
        self._open: dict[int, Span] = {}  # those that are sampled

    def begin(self, tag: int, raw: bytes, order_id: str | None, correlation_id: str | None) -> None:
        """Begin the span of a delivery with the property list `raw`."""
        if _UNSAMPLED.search(raw):
            return
        attributes = {**self._order, "messaging.rabbitmq.message.delivery_tag": tag}
        if order_id:
            attributes["order.id"] = order_id
        if correlation_id:
            attributes["messaging.message.conversation_id"] = correlation_id
        span = self._tracer.orders.start_span(self._name, _context(raw), SpanKind.CONSUMER, attributes)
        if span.is_recording():
            self._open[tag] = span

    def fail(self, tag: int, reason: str) -> None:
        """End the span of a delivery that is put aside, for a reason that is a slug."""
        if span := self._open.pop(tag, None):
            _fail(span, reason)

    def commit(self, tags: Sequence[int]) -> Commit | None:
        """Begin the span of a commit of these deliveries, if one of them is traced."""
        if not self._open:
            return None
        orders = {index: self._open[tag] for index, tag in enumerate(tags) if tag in self._open}
        if not orders:
            return None
        attributes = {**self._commit, "db.operation.batch.size": len(tags)} if len(tags) > 1 else self._commit
        alone = next(iter(orders.values())) if len(orders) == 1 else None
        context = set_span_in_context(alone, _ROOT) if alone else _ROOT
        span = self._tracer.commits.start_span("COMMIT orders", context, SpanKind.CLIENT, attributes)
        return Commit(span, tags, orders, self._open)


class Commit:
    """The span of one commit, and those of its orders that are traced."""

    def __init__(self, span: Span, tags: Sequence[int], orders: dict[int, Span], open_spans: dict[int, Span]) -> None:
        """Take the orders' spans by their places among the tags; they are removed from `open_spans` when they end."""
        self._span, self._tags, self._orders, self._open = span, tags, orders, open_spans

    def succeed(self, duplicates: Sequence[int]) -> None:
        """End all of them; the orders at the places `duplicates` had been dispatched before."""
        self._span.end()
        for index in duplicates:
            if index in self._orders:
                self._orders[index].set_attribute("dispatch.duplicate", True)
        context = self._span.get_span_context()
        for index, order in self._orders.items():
            order.add_link(context)
            order.end()
            del self._open[self._tags[index]]

    def fail(self, error: Exception) -> None:
        """End the commit's own span: its orders will be recorded by another."""
        _fail(self._span, type(error).__name__)


def _context(raw: bytes) -> Context:
    """Return the context that a message carries: without one, its span begins a trace."""
    if b"traceparent" not in raw:
        return _ROOT
    headers = properties.show(raw).get("headers", {})
    carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(carrier, _ROOT)


def _fail(span: Span, reason: str) -> None:
    span.set_attribute("error.type", reason)
    span.set_status(StatusCode.ERROR)
    span.end()


class _Exporter(OTLPSpanExporter):
    """Exports, and says once that the collector takes nothing, and once that it does again."""

    def __init__(self, otlp: Otlp) -> None:
        # certifi's CAs are those of the day on which the artifact was built; the host's are kept up to date.
        trusted = ssl.get_default_verify_paths()
        super().__init__(
            f"{otlp.url}{OTLP_PATH}", trusted.cafile or trusted.capath, headers=otlp.headers, timeout=EXPORT_SECONDS
        )
        self._url, self._away, self._said = otlp.url, False, _LastWords()
        # The SDK would say it of each batch, and of each span that is dropped.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        exporting = logging.getLogger(OTLPSpanExporter.__module__)
        exporting.setLevel(logging.WARNING)
        exporting.propagate = False
        exporting.addHandler(self._said)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Post spans to the collector; those that it does not take are dropped."""
        self._said.texts.clear()
        result = super().export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            log.warning("spans are dropped, because %s does not take them (%s)", self._url, "; ".join(self._said.texts))
        elif self._away and not away:
            log.info("%s takes spans again", self._url)
        self._away = away
        return result


class _LastWords(logging.Handler):
    """Keeps what was logged last: the last attempt's failure, and that it was the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: deque[str] = deque(maxlen=2)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a record says."""
        self.texts.append(record.getMessage().rstrip("."))
