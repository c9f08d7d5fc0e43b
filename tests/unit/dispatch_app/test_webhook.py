"""Orders posted to an endpoint of this machine's, which answers as endpoints do: late, badly, or not at all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dispatch_app import settings
from dispatch_app.check import unreachable
from dispatch_app.effects.port import EffectError
from dispatch_app.effects.webhook import Webhook
from dispatch_app.orders import Order

KEY = bytes(range(32))


class Endpoint(ThreadingHTTPServer):
    """An endpoint, and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.peers: set[int] = set()
        self.status, self.headers, self.body = 204, dict[str, str](), b""
        self.before: Callable[[Any], None] = lambda _: None

    def handle_error(self, *_: object) -> None:
        """Say nothing: tests and clients cut connections."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dispatched?token=t"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.server.peers.add(self.client_address[1])
        self.server.before(self)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if self.server.status != 204:
            self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def webhook(endpoint: Endpoint) -> Iterator[Webhook]:
    made = webhook_of(endpoint.url)
    yield made
    made.close()


def webhook_of(url: str, seconds: int = 10) -> Webhook:
    return Webhook(settings.Webhook(url, KEY, seconds))


def order(order_id: str = "o-1", **more: object) -> Order:
    return Order(order_id, "ann", 9.5, 1, {"orderid": order_id, **more})


def error_of(webhook: Webhook, what: Order | None = None) -> EffectError:
    with pytest.raises(EffectError) as caught:
        webhook.perform(what or order())
    return caught.value


def test_the_receiver_finds_the_whole_order_signed_by_the_shared_key(endpoint: Endpoint, webhook: Webhook) -> None:
    begun = int(time.time())
    webhook.perform(order(cart={"total": 9.5, "name": "Zoë"}))
    path, headers, body = endpoint.asked[0]
    assert (path, headers["Content-Type"]) == ("/dispatched?token=t", "application/json")
    assert json.loads(body) == {"orderid": "o-1", "cart": {"total": 9.5, "name": "Zoë"}}
    assert headers["webhook-id"] == "o-1"
    assert begun <= int(headers["webhook-timestamp"]) <= time.time()
    signed = b".".join([b"o-1", headers["webhook-timestamp"].encode(), body])
    digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"


def test_an_id_that_no_header_can_hold_is_replaced_by_the_same_digest_each_time(
    endpoint: Endpoint, webhook: Webhook
) -> None:
    for _ in range(2):
        webhook.perform(order("Bestellung 7.ü"))
    names = {headers["webhook-id"] for _, headers, _ in endpoint.asked}
    assert names == {hashlib.sha256("Bestellung 7.ü".encode()).hexdigest()}


def test_a_number_beyond_any_range_does_not_keep_an_order_back(endpoint: Endpoint, webhook: Webhook) -> None:
    webhook.perform(order(points=float("inf"), note="\udcff"))
    assert json.loads(endpoint.asked[0][2]) == {"orderid": "o-1", "points": None, "note": "\udcff"}


def test_one_connection_serves_one_order_after_another(endpoint: Endpoint, webhook: Webhook) -> None:
    for number in range(3):
        webhook.perform(order(f"o-{number}"))
    assert (len(endpoint.asked), len(endpoint.peers)) == (3, 1)


def test_a_connection_that_the_endpoint_has_closed_meanwhile_is_replaced(endpoint: Endpoint, webhook: Webhook) -> None:
    webhook.perform(order())
    ended = threading.Event()

    def hang_up(handler: Any) -> None:
        endpoint.before = lambda _: None
        handler.connection.shutdown(socket.SHUT_RDWR)
        ended.set()

    endpoint.before = hang_up
    webhook.perform(order("o-2"))
    assert ended.wait(5)
    assert [json.loads(body)["orderid"] for _, _, body in endpoint.asked] == ["o-1", "o-2", "o-2"]


def test_an_answer_longer_than_anybody_reads_costs_the_connection_alone(endpoint: Endpoint, webhook: Webhook) -> None:
    endpoint.status, endpoint.body = 200, b"x" * (1 << 20)
    webhook.perform(order())
    webhook.perform(order("o-2"))
    assert len(endpoint.peers) == 2


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_endpoint_that_is_down_or_busy_is_away(endpoint: Endpoint, webhook: Webhook, status: int) -> None:
    endpoint.status = status
    error = error_of(webhook)
    assert (error.reason, error.away, error.after) == ("webhook-away", True, 0)
    assert str(error) == f"http://127.0.0.1:{endpoint.server_port}/dispatched answers {status}"  # without the token


@pytest.mark.parametrize(
    ("after", "low", "high"),
    [("7", 7, 7), ("Thu, 01 Jan 2099 00:00:00 GMT", 1e9, 1e10), ("Thu, 01 Jan 2009 00:00:00 GMT", 0, 0), ("x", 0, 0)],
)
def test_it_says_how_long_it_wants_to_be_left_alone(
    endpoint: Endpoint, webhook: Webhook, after: str, low: float, high: float
) -> None:
    endpoint.status, endpoint.headers = 429, {"Retry-After": after}
    assert low <= error_of(webhook).after <= high


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
def test_an_endpoint_that_does_not_want_this_order_refuses_it(
    endpoint: Endpoint, webhook: Webhook, status: int
) -> None:
    endpoint.status = status
    error = error_of(webhook)
    assert (error.reason, error.away) == ("webhook-refused", False)


def test_a_redirect_is_not_followed_but_told(endpoint: Endpoint, webhook: Webhook) -> None:
    endpoint.status, endpoint.headers = 307, {"Location": "http://127.0.0.1/elsewhere?token=t"}
    error = error_of(webhook)
    assert (error.reason, len(endpoint.asked)) == ("webhook-refused", 1)
    assert str(error).endswith("answers 307 (to 'http://127.0.0.1/elsewhere', not followed)")


def test_an_endpoint_that_nobody_serves_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = error_of(webhook_of(f"http://127.0.0.1:{port}/"))
    assert (error.reason, error.away) == ("webhook-away", True)
    assert "Connection refused" in str(error)


def test_a_look_whether_the_endpoint_is_there_asks_it_nothing(endpoint: Endpoint) -> None:
    assert unreachable(endpoint.url) == ""
    endpoint.shutdown()
    endpoint.server_close()
    assert "Connection refused" in unreachable(endpoint.url)
    assert endpoint.asked == []


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_an_answer_that_drips_is_cut_off_at_the_limit(endpoint: Endpoint, first: bytes) -> None:
    ended = threading.Event()

    def drip(handler: Any) -> None:
        handler.wfile.write(first)
        try:
            while not ended.wait(0.2):
                handler.wfile.write(b"x")
        except OSError:
            ended.set()

    endpoint.before = drip
    error = error_of(webhook_of(endpoint.url, seconds=1))
    assert (error.reason, error.away) == ("webhook-away", True)
    assert str(error).endswith("is away: its answer took too long")
    assert ended.wait(20)  # the endpoint has found the connection closed


def test_a_certificate_that_no_ca_of_the_host_vouches_for_is_refused(endpoint: Endpoint, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    options = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *options, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    endpoint.socket = context.wrap_socket(endpoint.socket, server_side=True)
    error = error_of(webhook_of(f"https://localhost:{endpoint.server_port}/"))
    assert (error.reason, error.away) == ("webhook-away", True)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert not endpoint.asked
