"""Spans for orders, where OpenTelemetry is installed; the publisher's trace is continued."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from . import properties

Tracer = Callable[[str, bytes], AbstractContextManager[Any]]  # order id, property list


def tracer() -> Tracer | None:
    """Return what opens a span around an order, or None where OpenTelemetry is missing."""
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        return None
    source = trace.get_tracer("dispatch_app")

    def span(order_id: str, raw: bytes) -> AbstractContextManager[Any]:
        # Trace context travels in the headers traceparent and tracestate (W3C Trace Context).
        carrier = {name: str(value) for name, value in properties.headers(raw).items()}
        return source.start_as_current_span(
            "dispatch order",
            context=propagate.extract(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes={"messaging.system": "rabbitmq", "order.id": order_id},
        )

    return span
