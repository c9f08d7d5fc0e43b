"""Answers by HTTP to whoever asks how the service is: `/livez`, `/readyz`, `/metrics`, and for people a page at `/`.

`/health` and `/ready` are other names of the first two, for probes that are written for other services.

Anybody who reaches the address may ask, or do worse, and consuming must not suffer from it: an address
that can't be used now is tried again, and what connections cost is bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any

from . import health, page
from .logs import log
from .settings import Interface

if TYPE_CHECKING:
    from .settings import Place

BACKOFF = (0.2, 30.0)  # seconds before the second attempt to use the address, and at most before any
HANDLERS = 8  # connections at a time; each costs a thread, and TasksMax= bounds those of the whole service
REQUEST_SECONDS = 10.0  # for a whole request and its answer, however slowly the octets come
SLOT_SECONDS = 1.0  # until a connection that was cut short has ended
_SIOCGIFADDR = 0x8915  # the IPv4 address of an interface (netdevice(7))
_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # as Prometheus' text format has it


def serve(setting: str, place: Place, state: health.State, ledger_bytes: Callable[[], int]) -> None:
    """Answer requests in daemon threads, as soon as and for as long as the place that a setting names can be used."""
    # Looking up a name may take minutes while DNS is down, and the work loop can't wait for it.
    work = partial(_serve_when_possible, setting, place, state, ledger_bytes)
    threading.Thread(target=work, name="http", daemon=True).start()


def _serve_when_possible(setting: str, place: Place, state: health.State, ledger_bytes: Callable[[], int]) -> None:
    where = f"{setting} {place[0]}:{place[1]}" if isinstance(place, tuple) else f"{setting} {place}"
    delay = BACKOFF[0]
    while True:
        try:
            server = Server(place, state, ledger_bytes)
        except OSError as error:
            trouble = f"{where} can't be used ({error.strerror or error})"
            if trouble != state.unserved.get(setting):
                log.error("%s; free it or set another one; orders are consumed meanwhile", trouble)
            state.unserved = {**state.unserved, setting: trouble}
            time.sleep(delay)
            delay = min(BACKOFF[1], delay * 2)
        else:
            break
    if setting in state.unserved:
        log.info("%s can be used now", where)
        state.unserved = {name: trouble for name, trouble in state.unserved.items() if name != setting}
    server.serve_forever()


class Server(ThreadingHTTPServer):
    """The HTTP server, with a thread for each of at most HANDLERS connections.

    Where there are more, the oldest is cut short: a probe needs a moment, so what lasts is none.
    """

    request_queue_size = 128  # connections the kernel takes ahead; with socketserver's 5, a burst of them delays probes

    def __init__(self, place: Place, state: health.State, ledger_bytes: Callable[[], int]) -> None:
        """Listen at a place, of which an IPv6 address stands in brackets. Raises OSError if it can't be used now."""
        self.address_family, where = _resolved(place)
        self.state, self.ledger_bytes = state, ledger_bytes
        self._slots = threading.Semaphore(HANDLERS)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}  # since which time.monotonic(), the oldest first
        super().__init__(where, _Handler)  # type: ignore[arg-type]  # of a Unix socket, the path

    def server_bind(self) -> None:
        """Bind the socket, without looking up this host's name, which is needed for nothing."""
        if self.address_family == socket.AF_UNIX:
            _remove_socket(Path(str(self.server_address)))
        TCPServer.server_bind(self)
        if self.address_family == socket.AF_UNIX:
            # As at an address, anybody may ask; who reaches the directory decides.
            Path(str(self.server_address)).chmod(0o666)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection where there can't be one."""
        if not self._slots.acquire(blocking=False):
            self._cut(0.0, most=1)
            if not self._slots.acquire(timeout=SLOT_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads can be started
            self._leave(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer in this thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def service_actions(self) -> None:
        """End what takes too long; `serve_forever` calls this at least twice a second."""
        self._cut(REQUEST_SECONDS, most=HANDLERS)

    def handle_error(self, *_: Any) -> None:
        """Log what is our fault; what clients and networks do would fill the journal."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("a request by HTTP failed: %r", error)

    def _leave(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
        self._slots.release()

    def _cut(self, seconds: float, most: int) -> None:
        """End at most that many connections older than `seconds`; their threads then find them closed."""
        until = time.monotonic() - seconds
        with self._lock:
            old = [request for request, since in self._open.items() if since <= until][:most]
            for request in old:
                del self._open[request]
        for request in old:
            with contextlib.suppress(OSError):  # the thread has just closed it
                request.shutdown(socket.SHUT_RDWR)


def _resolved(place: Place) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    """Return the family of a place and what to bind to there. Raises OSError."""
    if isinstance(place, Path):
        return socket.AF_UNIX, str(place)
    if isinstance(place, Interface):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            told = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", place.name.encode()))
        return socket.AF_INET, (socket.inet_ntoa(told[20:24]), place.port)
    host, port = place
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], (str(found[0][4][0]), port)


def _remove_socket(path: Path) -> None:
    """Remove the socket that an earlier process has left; nothing else that may stand there."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.wfile.write(self._head())

    def do_HEAD(self) -> None:
        self._head()

    def __getattr__(self, name: str) -> Any:
        # http.server looks up do_<method>, and answers 501 where there is none; nothing here may be changed (405).
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        body = b"only GET and HEAD\n"
        self._begin(405, body)
        self.wfile.write(body)

    def _head(self) -> bytes:
        """Send status and headers; return the body."""
        state = self.server.state
        age, reasons, path = time.monotonic() - state.beat, state.reasons.values(), self.path.partition("?")[0]
        status, body, kind = 404, b"see /, /livez, /readyz and /metrics\n", _TEXT
        if path == "/":
            status, body, kind = 200, page.page(state, self.server.ledger_bytes()), "text/html; charset=utf-8"
        elif path in ("/livez", "/health"):
            status, body = 200 if age < health.STUCK else 503, f"work loop last seen {age:.1f} s ago\n".encode()
        elif path in ("/readyz", "/ready"):
            held = state.held  # the work loop may change it between two looks
            said = "\n".join(reasons) or (held[0] if held else "consuming")
            status, body = 503 if reasons else 200, f"{said}\n".encode()
        elif path == "/metrics":
            status, body = 200, health.exposition(state, self.server.ledger_bytes())
        self._begin(status, body, kind)
        return body

    def _begin(self, status: int, body: bytes, kind: str = _TEXT) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(body)))
        if status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing: probes every few seconds would drown out what matters."""
