"""Answers to whoever asks how the service is: `/livez`, `/readyz` and `/metrics`, by HTTP.

Anybody who reaches the address may ask, or do worse, and consuming must not suffer from it: an address
that can't be used now is tried again, and what connections cost is bounded.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from . import health
from .logs import log

BACKOFF = (0.2, 30.0)  # seconds before the second attempt to use the address, and at most before any


def serve(address: tuple[str, int], state: health.State, ledger_bytes: Callable[[], int]) -> None:
    """Answer requests in daemon threads, as soon as and for as long as the address can be used."""
    # Looking up a name may take minutes while DNS is down, and the work loop can't wait for it.
    work = partial(_serve_when_possible, address, state, ledger_bytes)
    threading.Thread(target=work, name="http", daemon=True).start()


def _serve_when_possible(address: tuple[str, int], state: health.State, ledger_bytes: Callable[[], int]) -> None:
    where = "DISPATCH_HTTP {}:{}".format(*address)
    delay = BACKOFF[0]
    while True:
        try:
            server = Server(address, state, ledger_bytes)
        except OSError as error:
            trouble = f"{where} can't be used ({error.strerror or error})"
            if trouble != state.unserved:
                log.error("%s; free it or set another address:port, orders are consumed meanwhile", trouble)
            state.unserved = trouble
            time.sleep(delay)
            delay = min(BACKOFF[1], delay * 2)
        else:
            break
    if state.unserved:
        log.info("%s can be used now", where)
        state.unserved = None
    server.serve_forever()


class Server(ThreadingHTTPServer):
    """The HTTP server, with a thread for each connection."""

    def __init__(self, address: tuple[str, int], state: health.State, ledger_bytes: Callable[[], int]) -> None:
        """Listen at `address`, an IPv6 one in brackets. Raises OSError if it can't be used now."""
        host, port = address
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, where = found[0][0], str(found[0][4][0])
        self.state, self.ledger_bytes = state, ledger_bytes
        super().__init__((where, port), _Handler)

    def server_bind(self) -> None:
        """Bind the socket, without looking up this host's name, which is needed for nothing."""
        TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 10  # seconds, so that a client that sends nothing doesn't hold a thread for ever

    def do_GET(self) -> None:
        self.wfile.write(self._head())

    def do_HEAD(self) -> None:
        self._head()

    def _head(self) -> bytes:
        """Send status and headers; return the body."""
        state = self.server.state
        age, reasons, path = time.monotonic() - state.beat, state.reasons.values(), self.path.partition("?")[0]
        status, body = 404, b"see /livez, /readyz and /metrics\n"
        if path == "/livez":
            status, body = 200 if age < health.STUCK else 503, f"work loop seen {age:.1f} s ago\n".encode()
        elif path == "/readyz":
            status, body = 503 if reasons else 200, ("\n".join(reasons) or "consuming").encode() + b"\n"
        elif path == "/metrics":
            status, body = 200, health.exposition(state, self.server.ledger_bytes())
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None:
        """Log nothing: probes every few seconds would drown out what matters."""
