"""The lab's payment: it takes the requests that RoboShop's payment takes, and publishes the orders that it publishes.

It also answers as the cart and user services do, because the lab has none. A trace begins with a payment's request,
and the order's message carries it on. Names and attributes are those of OpenTelemetry's semantic conventions 1.44.0 for
HTTP and messaging.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from typing import Any

import pika
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracer, SpanKind, Tracer

EXCHANGE, KEY = "robot-shop", "orders"
PUBLISH = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
    "messaging.destination.name": f"{EXCHANGE}:{KEY}",
    "messaging.rabbitmq.destination.routing_key": KEY,
}
ANSWER_SECONDS = 5
# Other services listen on the same port in all of the shop.
PORT = 8080

Start = Callable[[str, list[tuple[str, str]]], object]


class RefusedError(Exception):
    """A request that payment can't serve; the message says why."""


def tracer() -> Tracer:
    """Make what makes spans, or nothing where OpenTelemetry's variable does not say where they go."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return NoOpTracer()
    provider = TracerProvider(resource=Resource.create({"service.name": "payment"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("payment")


TRACER = tracer()


def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """The WSGI application that payment.ini names."""
    # A server that closes a connection with part of the request still unread resets it, and the answer may get lost.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        status, answer = "200 OK", answer_to(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ, body)
    except RefusedError as error:
        status, answer = "400 Bad Request", str(error)
    except LookupError:
        status, answer = "404 Not Found", "not found"
    start_response(status, [("Content-Type", "application/json" if answer.startswith("{") else "text/plain")])
    return [answer.encode()]


def answer_to(method: str, path: str, environ: dict[str, Any], body: bytes) -> str:
    """What a request is answered. Raises RefusedError, and LookupError for what payment does not have."""
    place, _, who = path.lstrip("/").partition("/")
    if (method, place) == ("GET", "health"):
        return "OK"
    if (method, place) == ("POST", "pay") and who:
        attributes = {"http.request.method": method, "http.route": "/pay/{id}", "url.path": path}
        with TRACER.start_as_current_span("POST /pay/{id}", carried(environ), SpanKind.SERVER, attributes) as span:
            order = pay(who, cart_in(body))
            span.set_attribute("http.response.status_code", 200)
        return json.dumps({"orderid": order})
    if (method, place) in {("POST", "order"), ("DELETE", "cart")}:
        return "OK"  # as the services user and cart say
    raise LookupError(path)


def carried(environ: dict[str, Any]) -> Context:
    """The context of a trace that a request's headers carry (W3C Trace Context)."""
    names = {"HTTP_TRACEPARENT": "traceparent", "HTTP_TRACESTATE": "tracestate"}
    return extract({names[name]: value for name, value in environ.items() if name in names})


def cart_in(body: bytes) -> dict[str, Any]:
    """The cart of a request. Raises RefusedError."""
    try:
        cart = json.loads(body)
    except ValueError as error:
        raise RefusedError(f"the cart is no JSON: {error}") from error
    if not isinstance(cart, dict) or not cart.get("items"):
        raise RefusedError("the cart is empty")
    return cart


def pay(user: str, cart: dict[str, Any]) -> str:
    """Take a payment, publish the order, note it in the user's history, delete the cart; return the order's id."""
    order = str(uuid.uuid4())
    publish({"orderid": order, "user": user, "cart": cart})
    ask("POST", "USER_HOST", f"order/{user}", {"orderid": order, "cart": cart})
    ask("DELETE", "CART_HOST", f"cart/{user}", None)
    return order


def publish(order: dict[str, Any]) -> None:
    """Publish as RoboShop's payment does: declare the exchange alone, send a transient message with headers alone."""
    credentials = pika.PlainCredentials(os.environ["AMQP_USER"], os.environ["AMQP_PASS"])
    parameters = pika.ConnectionParameters(os.environ["AMQP_HOST"], credentials=credentials)
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "direct", durable=True)
        headers: dict[str, str] = {}
        with TRACER.start_as_current_span(f"publish {EXCHANGE}:{KEY}", None, SpanKind.PRODUCER, PUBLISH):
            inject(headers)
            channel.basic_publish(EXCHANGE, KEY, json.dumps(order), pika.BasicProperties(headers=headers))


def ask(method: str, service: str, path: str, body: object) -> None:
    """Ask another service of the shop, whose host the environment names."""
    connection = HTTPConnection(os.environ[service], PORT, timeout=ANSWER_SECONDS)
    connection.request(
        method, f"/{path}", None if body is None else json.dumps(body), {"Content-Type": "application/json"}
    )
    connection.getresponse().read()
    connection.close()
