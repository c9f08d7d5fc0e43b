"""Traces: their shape, and that neither a message nor a collector harms an order. The collector is a real one."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatch_app import otlp, tracing
from dispatch_app.amqp import envelope, properties
from dispatch_app.ledgers.port import AwayError
from dispatch_app.orders import Order
from dispatch_app.settings import SettingsError, load
from tests.lab.ansible import ROOT
from tests.lab.shop import SOURCE
from tests.otlp import Collector, Span, collecting, tree

from .test_consumer import Bench
from .test_desk import Later

PAYMENT = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")  # trace and span
SAMPLED, UNSAMPLED = (f"00-{'-'.join(PAYMENT)}-0{flag}" for flag in "10")


def carrying(**headers: Any) -> bytes:
    """The property list of a message with these headers."""
    return properties.join({"headers": properties.join_table(properties.encode(headers))})


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@contextmanager
def traced(path: Path, url: str, effect: Callable[[Order], object] | None = None, **env: str) -> Iterator[Bench]:
    """A consumer whose spans go to `url`; on leaving the block they are exported."""
    given = {"AMQP_HOST": "a", "AMQP_PASS": "b", "DISPATCH_OTLP_ENDPOINT": url, **env}
    tracer = tracing.configured(load(given))
    assert tracer
    bench = Bench(path / "ledger.db", effect, spans=tracer.deliveries("mq-1"))
    try:
        yield bench
    finally:
        bench.close()
        tracer.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("dispatch"), "propagate", True)
    caplog.set_level(logging.INFO, "dispatch")
    return caplog


@pytest.fixture
def payment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The lab's payment, whose broker and neighbours are away; what it publishes stands in its `published`."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.syspath_prepend(str(SOURCE))
    for name, value in (("AMQP_HOST", "a"), ("AMQP_USER", "b"), ("AMQP_PASS", "c")):
        monkeypatch.setenv(name, value)
    import payment as module  # type: ignore[import-not-found]  # the lab's program is found by the path above

    published: list[tuple[bytes, bytes]] = []

    class Broker:
        def __init__(self, _: object) -> None: ...
        def __enter__(self) -> Broker:
            return self

        def __exit__(self, *_: object) -> None: ...
        def channel(self) -> Broker:
            return self

        def exchange_declare(self, *_: object, **__: object) -> None: ...
        def basic_publish(self, _exchange: str, _key: str, body: str, props: Any) -> None:
            published.append((b"".join(props.encode()), body.encode()))

    monkeypatch.setattr(module.pika, "BlockingConnection", Broker)
    monkeypatch.setattr(module, "ask", lambda *_: None)
    module.published = published
    yield module
    del sys.modules["payment"]


def request(cart: object, **headers: str) -> dict[str, Any]:
    body = json.dumps(cart).encode()
    return {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/pay/dave", "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body), **headers,
    }  # fmt: skip


def test_one_trace_leads_from_the_request_to_the_commit(
    collector: Collector, payment: ModuleType, tmp_path: Path
) -> None:
    statuses: list[str] = []
    (answer,) = payment.app(request({"items": [{}]}), lambda status, _: statuses.append(status))
    assert statuses == ["200 OK"]
    ((raw, body),) = payment.published
    with traced(tmp_path, collector.url) as bench:
        bench.deliver(1, body, raw=raw)
        bench.broker.fire()
        assert bench.broker.acks == [1]
    spans = {span.name: span for span in collector.wait(4)}
    print(*tree(list(spans.values())), sep="\n")
    names = ("POST /pay/{id}", "publish robot-shop:orders", "process robot-shop:orders", "COMMIT orders")
    paid, published, processed, committed = path = [spans[name] for name in names]
    assert {span.trace for span in spans.values()} == {paid.trace}
    assert [span.parent for span in path] == ["", paid.id, published.id, processed.id]
    assert [span.kind for span in path] == ["SERVER", "PRODUCER", "CONSUMER", "CLIENT"]
    assert [span.service for span in path] == ["payment", "payment", "dispatch", "dispatch"]
    assert processed.links == ((committed.trace, committed.id),)
    assert processed.begun <= committed.begun <= committed.ended <= processed.ended
    assert processed.attributes == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "robot-shop:orders",
        "messaging.rabbitmq.destination.routing_key": "orders",
        "messaging.rabbitmq.message.delivery_tag": 1,
        "server.address": "mq-1",
        "server.port": 5672,
        "order.id": json.loads(answer)["orderid"],
    }
    assert committed.attributes == {
        "db.system.name": "sqlite", "db.operation.name": "COMMIT", "db.collection.name": "orders",
    }  # fmt: skip
    assert not [span for span in spans.values() if span.failed]


def test_a_request_that_belongs_to_a_trace_goes_on_with_it(collector: Collector, payment: ModuleType) -> None:
    payment.app(request({"items": [{}]}, HTTP_TRACEPARENT=SAMPLED), lambda *_: None)
    spans = {span.name: span for span in collector.wait(2)}
    paid = spans["POST /pay/{id}"]
    assert (paid.trace, paid.parent) == PAYMENT
    assert f"00-{paid.trace}-{spans['publish robot-shop:orders'].id}-01".encode() in payment.published[0][0]


def test_orders_of_one_commit_have_a_span_each_and_link_to_the_commit_s(collector: Collector, tmp_path: Path) -> None:
    with traced(tmp_path, collector.url) as bench:
        bench.deliver(1, "a", raw=carrying(traceparent=SAMPLED, other=7))
        bench.deliver(2, "b")
        bench.deliver(3, "a", redelivered=1, raw=carrying(traceparent=SAMPLED))
        bench.broker.fire()
    (commit,) = (span for span in collector.spans if span.name == "COMMIT orders")
    orders = [span for span in collector.spans if span != commit]
    assert (commit.parent, commit.attributes["db.operation.batch.size"]) == ("", 3)
    assert [span.links for span in orders] == [((commit.trace, commit.id),)] * 3
    assert [(span.trace, span.parent) == PAYMENT for span in orders] == [True, False, True]
    assert orders[1].parent == ""
    assert len({commit.trace, *(span.trace for span in orders)}) == 3
    assert [span.attributes.get("dispatch.duplicate") for span in orders] == [None, None, True]


def test_another_queue_and_a_correlation_id_are_told(collector: Collector, tmp_path: Path) -> None:
    raw = properties.join({"correlation_id": b"\x03c-1"})
    with traced(tmp_path, collector.url, AMQP_QUEUE="paid") as bench:
        bench.deliver(1, "a", raw=raw)
        bench.broker.fire()
    (order,) = (span for span in collector.spans if span.kind == "CONSUMER")
    assert order.name == "process robot-shop:orders:paid"
    assert order.attributes["messaging.destination.name"] == "robot-shop:orders:paid"
    assert order.attributes["messaging.message.conversation_id"] == "c-1"


def test_what_is_put_aside_fails_with_its_reason_and_a_later_try_belongs_to_the_same_trace(
    collector: Collector, tmp_path: Path
) -> None:
    tries: list[str] = []

    def effect(order: Order) -> None:
        tries.append(order.id)
        if len(tries) == 1:
            raise RuntimeError("no courier")

    raw = carrying(traceparent=SAMPLED)
    with traced(tmp_path, collector.url, effect) as bench:
        bench.deliver(1, b"no order", raw=raw)
        bench.deliver(2, "a", raw=raw)
        bench.broker.fire()
        bench.fire_until(lambda: bench.aside.published == ["orders.dead", "orders.retry.1s"])
        again, body = envelope.wrap(raw, b'{"orderid": "a"}', {"attempt": 1}, envelope.ENVELOPED, 131072)
        bench.deliver(3, body, raw=again)
        bench.fire_until(lambda: bench.recorded() == ["a"])
    ended = [span for span in collector.spans if span.kind == "CONSUMER"]
    assert [(span.failed, span.attributes.get("error.type"), span.attributes.get("order.id")) for span in ended] == [
        (True, "not-json", None), (True, "call-failed", "a"), (False, None, "a"),
    ]  # fmt: skip
    assert {(span.trace, span.parent) for span in ended} == {PAYMENT}


def test_a_commit_that_fails_is_told_and_its_orders_go_into_another(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with traced(tmp_path, collector.url) as bench:
        record = bench.ledger.record

        def away(_: object) -> list[int]:
            raise AwayError("disk full", "free some")

        monkeypatch.setattr(bench.ledger, "record", away)
        bench.deliver(1, "a")
        bench.broker.fire()
        monkeypatch.setattr(bench.ledger, "record", record)
        bench.consumer._retry_at = 0.0  # the time has come
        bench.broker.fire()
        assert bench.recorded() == ["a"]
    failed, succeeded = (span for span in collector.spans if span.name == "COMMIT orders")
    (order,) = (span for span in collector.spans if span.kind == "CONSUMER")
    assert (failed.failed, failed.attributes["error.type"], succeeded.failed) == (True, "AwayError", False)
    assert order.links == ((succeeded.trace, succeeded.id),)
    assert (order.id, order.id) == (failed.parent, succeeded.parent)


@pytest.mark.parametrize(
    ("ratio", "traceparent", "spans"),
    [("1", UNSAMPLED, 0), ("0", SAMPLED, 2), ("0", None, 0), ("1", None, 2), ("0", "00-nonsense", 0)],
)
def test_the_publisher_decides_and_for_whom_it_has_not_the_ratio(
    collector: Collector, tmp_path: Path, ratio: str, traceparent: str | None, spans: int
) -> None:
    with traced(tmp_path, collector.url, DISPATCH_OTLP_RATIO=ratio) as bench:
        bench.deliver(1, "a", raw=carrying(**{"traceparent": traceparent} if traceparent else {}))
        bench.broker.fire()
        assert bench.broker.acks == [1]
    assert len(collector.spans) == spans


@pytest.mark.parametrize(
    "raw",
    [
        carrying(traceparent="00-" + "f" * 10_000),
        carrying(traceparent=SAMPLED, tracestate="a=1," * 100 + "\N{PILE OF POO}=\x00,=,a=b=c"),
        carrying(traceparent=b"\xff\xfe", tracestate=7),
        b"\x20\x00\x00\x00\x00\xfftraceparent",
    ],
)
def test_no_header_of_a_message_s_keeps_its_order(collector: Collector, tmp_path: Path, raw: bytes) -> None:
    with traced(tmp_path, collector.url) as bench:
        bench.deliver(1, "a", raw=raw)
        bench.broker.fire()
        assert (bench.recorded(), bench.broker.acks) == (["a"], [1])
    assert len(collector.spans) == 2


def test_the_collector_is_told_by_the_given_headers(collector: Collector, tmp_path: Path) -> None:
    headers = "x-api-key=s3cret%2Cword, Authorization=Basic YQ=="
    with traced(tmp_path, f"{collector.url}/otlp/", DISPATCH_OTLP_HEADERS=headers) as bench:
        bench.deliver(1, "a")
        bench.broker.fire()
    ((path, sent),) = collector.requests
    assert (path, sent["content-type"]) == ("/otlp/v1/traces", "application/x-protobuf")
    assert (sent["x-api-key"], sent["authorization"]) == ("s3cret,word", "Basic YQ==")


def test_a_collector_that_takes_nothing_is_named_once_and_so_is_its_return(
    collector: Collector, tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "EXPORT_PERIOD", 50)
    collector.status = 401
    with traced(tmp_path, collector.url) as bench:
        for tag, status in enumerate((401, 401, 200, 200), 1):
            collector.status = status
            bench.deliver(tag, f"order-{tag}")
            bench.broker.fire()
            collector.wait(0, requests=tag)
        assert bench.broker.acks == [1, 2, 3, 4]
    told = [record.getMessage() for record in said.records if collector.url in record.getMessage()]
    assert told == [
        f"spans are dropped, because {collector.url} does not take them "
        "(Failed to export spans batch code: 401, reason: Unauthorized)",
        f"{collector.url} takes spans again",
    ]


def test_an_absent_collector_costs_its_spans_alone_and_their_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "QUEUE", 20)
    monkeypatch.setattr(otlp, "BATCH", 10)
    monkeypatch.setattr(otlp, "CLOSE_SECONDS", 0.05)
    # Nobody ever answers here, so each attempt to export lasts until its limit.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with traced(tmp_path, url) as bench:
            for tag in range(1, 201):
                bench.deliver(tag, f"order-{tag}")
                if tag % 40 == 0:
                    bench.broker.fire()
            assert bench.broker.acks[-1] == 200
            assert len(bench.recorded()) == 200
            processor = bench.consumer._spans._tracer._processor._batch_processor  # type: ignore[union-attr]
            assert len(processor._queue) <= 20
            assert bench.consumer._spans._open == {}  # type: ignore[union-attr]
        # The stop went on, though the attempt to export has not ended.
        assert processor._worker_thread.is_alive()
        assert bench.broker.acks[-1] == 200


def test_with_a_ledger_that_answers_later_the_commit_lasts_until_then(collector: Collector, tmp_path: Path) -> None:
    with traced(tmp_path, collector.url) as bench:
        desk = bench.consumer._desk = Later(bench.ledger)
        bench.deliver(1, "a")
        bench.broker.fire()
        bench.deliver(2, "b")
        bench.broker.fire()
        desk.answer()
        assert bench.broker.acks == [1]
        desk.answer()
        assert bench.broker.acks == [1, 2]
        assert bench.consumer._spans._open == {}  # type: ignore[union-attr]
    orders = [span for span in collector.spans if span.kind == "CONSUMER"]
    commits = [span for span in collector.spans if span.kind == "CLIENT"]
    assert [order.links for order in orders] == [((commit.trace, commit.id),) for commit in commits]
    assert [order.id for order in orders] == [commit.parent for commit in commits]


SHOW = """
import sys
from pathlib import Path
from dispatch_app import effects, ledgers, service, settings
found = settings.load({"AMQP_HOST": "a", "AMQP_PASS": "b", **dict(word.split("=", 1) for word in sys.argv[2:])})
service.Service(found, ledgers.opened(found, Path(sys.argv[1])), effects.configured(found), Path(sys.argv[1]))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_opentelemetry_is_imported_only_for_a_collector(tmp_path: Path) -> None:
    def imported(*settings: str) -> set[str]:
        command = [sys.executable, "-c", SHOW, str(tmp_path), *settings]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return set(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split())

    ours = {"opentelemetry", "google", "requests", "urllib3"}
    assert imported() & ours == set()
    assert imported("DISPATCH_OTLP_ENDPOINT=http://127.0.0.1:9") >= ours


def test_without_opentelemetry_a_collector_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dispatch_app.otlp", None)
    found = load({"AMQP_HOST": "a", "AMQP_PASS": "b", "DISPATCH_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    with pytest.raises(SettingsError, match="OpenTelemetry can't be imported"):
        tracing.configured(found)


def test_a_tree_is_drawn_with_durations_and_links() -> None:
    first = Span("payment", "paid", "SERVER", "t" * 32, "a" * 16, "", (), {}, False, 0, 2_500_000)
    second = Span("dispatch", "done", "CONSUMER", "t" * 32, "b" * 16, "a" * 16, (("u" * 32, "c" * 16),), {}, True, 1, 2)
    top, below = tree([second, first])
    assert top.split() == [f"{'t' * 8}/{'a' * 16}", "paid", "payment", "SERVER", "2.50", "ms"]
    assert below.split()[1:] == ["done", "dispatch", "CONSUMER", "0.00", "ms", "failed", "->", f"{'u' * 8}/{'c' * 16}"]
    assert "    done" in below
