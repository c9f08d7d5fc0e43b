"""Spans for orders, if OpenTelemetry is installed; they continue the publisher's trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .amqp import properties

Tracer = Callable[[str, bytes], AbstractContextManager[Any]]  # order id, property list


def tracer() -> Tracer | None:
    """Return a function that opens a span around an order, or None if OpenTelemetry is missing or records nothing."""
    try:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import ProxyTracerProvider, SpanKind, get_tracer, get_tracer_provider
    except ImportError:
        return None
    if isinstance(get_tracer_provider(), ProxyTracerProvider):  # nobody has configured where spans go
        return None
    source = get_tracer("dispatch_app")

    def span(order_id: str, raw: bytes) -> AbstractContextManager[Any]:
        # The headers traceparent and tracestate carry the context (W3C Trace Context).
        headers = properties.show(raw).get("headers", {})
        carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
        opened: AbstractContextManager[Any] = source.start_as_current_span(
            "dispatch order",
            context=extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes={"messaging.system": "rabbitmq", "order.id": order_id},
        )
        return opened

    return span
