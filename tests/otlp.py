"""A collector of the tests' own: it takes OTLP over HTTP, decodes it with OpenTelemetry's protobuf, and can go away."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Span:
    """One span as the collector was told of it."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str  # empty for the first one of a trace
    links: tuple[tuple[str, str], ...]  # trace and span
    attributes: dict[str, Any]
    failed: bool
    begun: int  # nanoseconds since 1970
    ended: int


class Collector:
    """Answers at a loopback port from the start, until it is closed."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.status = 200  # of each answer
        self.requests: list[tuple[str, dict[str, str]]] = []  # paths and headers
        self._told = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector._take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._handler = Handler
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()

    def wait(self, count: int = 1, requests: int = 0, seconds: float = 60) -> list[Span]:
        """Return the spans as soon as there are `count`, and so many requests; fail after `seconds`."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.spans) >= count and len(self.requests) >= requests, seconds), (
                f"{len(self.spans)} spans, and not {count}, in {len(self.requests)} requests within {seconds} s"
            )
            return list(self.spans)

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._told:
            self.requests.append((path, headers))
            if self.status == 200:
                self.spans += _spans(request)
            self._told.notify_all()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector for the time of the block."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def tree(spans: Sequence[Span]) -> list[str]:
    """Draw traces: a line for each span, with its service, its kind, its duration and where it links to."""
    ordered = sorted(spans, key=lambda span: span.begun)
    known = {span.id for span in ordered}

    def below(parent: Span | None, depth: int) -> Iterator[str]:
        for span in ordered:
            if span.parent == parent.id if parent else span.parent not in known:
                links = "".join(f" -> {trace[:8]}/{to}" for trace, to in span.links)
                what = f"{'  ' * depth}{span.name}"
                milliseconds = (span.ended - span.begun) / 1e6
                yield (
                    f"{span.trace[:8]}/{span.id}  {what:<40} {span.service:<9} {span.kind:<9} {milliseconds:8.2f} ms"
                    f"{' failed' if span.failed else ''}{links}"
                )
                yield from below(span, depth + 1)

    return list(below(None, 0))


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service,
                    span.name,
                    Encoded.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    _attributes(span.attributes),
                    span.status.code == Status.STATUS_CODE_ERROR,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
