"""Hooks that the service under test calls for each order."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from dispatch_app.orders import Order

# Each names a variable with a path: the file to write spans to, and the file that exists while the courier is away.
SPANS, AWAY = "TEST_SPANS", "TEST_AWAY"


def nothing(_: Order) -> None:
    """Take every order."""


def stuck(_: Order) -> None:
    """Never come back."""
    time.sleep(3600)


def courier(_: Order) -> None:
    """Fail as long as a file exists."""
    if Path(os.environ[AWAY]).exists():
        raise ConnectionError("the courier is away")


def gate(_: Order) -> None:
    """Wait as long as a file exists."""
    while Path(os.environ[AWAY]).exists():
        time.sleep(0.02)


def _trace(path: str) -> None:
    """Set up OpenTelemetry's real SDK to write each span as a line of JSON."""
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace import set_tracer_provider

    class Exporter(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            assert isinstance(spans, tuple)
            with Path(path).open("a") as file:
                for span in spans:
                    assert isinstance(span, ReadableSpan)
                    line = {
                        "trace": f"{span.context.trace_id:032x}",
                        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
                        "order": (span.attributes or {})["order.id"],
                    }
                    file.write(json.dumps(line) + "\n")
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Exporter()))
    set_tracer_provider(provider)


if SPANS in os.environ:
    _trace(os.environ[SPANS])
