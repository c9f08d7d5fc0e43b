"""Probes by HTTP: served as soon as the address can be used, whatever clients do."""

import http.client
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pika.adapters.select_connection import IOLoop

from dispatch_app import health, probes
from dispatch_app.amqp import connection
from dispatch_app.amqp.resolver import Services
from dispatch_app.failures import explain
from dispatch_app.settings import Interface, load


@pytest.fixture
def held() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder


def await_(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def answer(port: int, path: str, method: str = "GET") -> tuple[int, bytes] | None:
    """Return status and body, or None without an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as client:
        try:
            client.request(method, path)
            reply = client.getresponse()
            return reply.status, reply.read()
        except OSError:
            return None


def test_a_port_taken_for_a_moment_is_served_once_it_is_free(
    held: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "BACKOFF", (0.01, 0.01))
    state = health.State()
    port = held.getsockname()[1]
    with caplog.at_level("INFO", "dispatch"):
        probes.serve("DISPATCH_HTTP", ("127.0.0.1", port), state, lambda: 1)
        await_(lambda: state.unserved)
        trouble = f"DISPATCH_HTTP 127.0.0.1:{port} can't be used (Address already in use)"
        assert state.unserved == {"DISPATCH_HTTP": trouble}
        held.close()
        await_(lambda: answer(port, "/livez"))
    assert state.unserved == {}
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.parametrize("host", ["192.0.2.1", "not-there.invalid"])
def test_an_address_or_name_that_is_not_there_yet_is_told_and_tried_again(host: str) -> None:
    state = health.State()
    probes.serve("DISPATCH_HTTP", (host, 9672), state, lambda: 1)
    await_(lambda: state.unserved, 60)
    assert state.unserved["DISPATCH_HTTP"].startswith(f"DISPATCH_HTTP {host}:9672 can't be used (")


def test_dispatch_runs_while_its_port_is_taken(held: socket.socket, tmp_path: Path) -> None:
    port = held.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    env = {
        **os.environ, "AMQP_HOST": "127.0.0.1", "AMQP_PORT": str(nobody), "AMQP_PASS": "p",
        "STATE_DIRECTORY": str(tmp_path), "DISPATCH_HTTP": f"127.0.0.1:{port}",
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "dispatch_app", "run"], env=env, stderr=subprocess.PIPE) as service:
        assert service.stderr
        try:
            seen = ""
            # Two threads write these, in either order.
            while "refuses connections" not in seen or "Address already in use" not in seen:
                seen += json.loads(service.stderr.readline())["message"]
            held.close()
            await_(lambda: answer(port, "/livez"))
            service.send_signal(signal.SIGTERM)
            assert service.wait(10) == 0
        finally:
            service.kill()


@pytest.fixture
def server() -> Iterator[int]:
    """Yield the port of a server that answers as in a running service."""
    made = probes.Server(("127.0.0.1", 0), health.State(), lambda: 1)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made.server_address[1]
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_server_listens_on_ipv6_and_asks_no_resolver_for_this_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(socket, "getfqdn", resolve)
    with probes.Server(("[::1]", 0), health.State(), lambda: 1) as made:
        assert made.socket.family == socket.AF_INET6


def test_metrics_are_served_at_an_interface_s_address_or_a_socket_for_a_proxy(tmp_path: Path) -> None:
    with probes.Server(Interface("lo", 0), health.State(), lambda: 1) as made:
        assert made.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="No such device"):
        probes.Server(Interface("not-there0", 9672), health.State(), lambda: 1)
    path = tmp_path / "http.sock"
    for _ in range(2):  # the second finds the socket that the first has left
        made = probes.Server(path, health.State(), lambda: 1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        thread = threading.Thread(target=made.handle_request)
        thread.start()
        with closing(http.client.HTTPConnection("proxy")) as client:
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.connect(str(path))
            client.request("GET", "/metrics")
            assert b"dispatch_ready" in client.getresponse().read()
        thread.join()
        made.server_close()


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("orders")
    with pytest.raises(OSError, match="Address already in use"):
        probes.Server(path, health.State(), lambda: 1)
    assert path.read_text() == "orders"


def test_head_and_queries_are_answered_as_monitors_ask(server: int) -> None:
    assert answer(server, "/livez", "HEAD") == (200, b"")
    status, body = answer(server, "/metrics?format=prometheus") or (0, b"")
    assert (status, b"dispatch_ready" in body) == (200, True)


@pytest.mark.parametrize(("other", "path"), [("/health", "/livez"), ("/ready", "/readyz")])
def test_probes_written_for_other_services_are_answered_alike(server: int, other: str, path: str) -> None:
    (status, _), (same, _) = answer(server, other) or (0, b""), answer(server, path) or (1, b"")
    assert status == same
    assert answer(server, f"{other}?verbose", "HEAD") == (same, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_what_would_change_something_is_refused_with_what_is_allowed(server: int, method: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server, timeout=2)) as client:
        client.request(method, "/readyz")
        reply = client.getresponse()
        assert (reply.status, reply.getheader("Allow"), reply.read()) == (405, "GET, HEAD", b"only GET and HEAD\n")


@pytest.mark.parametrize("path", ["/index.html", "/readyz/", "/metric"])
def test_an_unknown_path_is_not_found(server: int, path: str) -> None:
    assert (answer(server, path) or (0,))[0] == 404
    assert answer(server, path, "HEAD") == (404, b"")


@pytest.fixture
def drip() -> Iterator[Callable[[int, int], list[socket.socket]]]:
    """Yield a function that opens connections, each of which has sent half a request."""
    opened: list[socket.socket] = []

    def connect(port: int, count: int) -> list[socket.socket]:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port)))
            opened[-1].sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        return opened

    yield connect
    for each in opened:
        each.close()


def test_dripping_connections_keep_no_probe_from_its_answer(
    server: int, drip: Callable[[int, int], list[socket.socket]]
) -> None:
    before = threading.active_count()
    drip(server, 100)
    began = time.monotonic()
    assert (answer(server, "/livez") or (0,))[0] == 200
    assert time.monotonic() - began < 2
    assert threading.active_count() - before <= probes.HANDLERS


def test_a_request_ends_in_time_however_its_octets_come(
    server: int, drip: Callable[[int, int], list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 0.3)
    (slow,) = drip(server, 1)
    slow.settimeout(0.05)

    def ended() -> bool:
        try:
            slow.sendall(b"x")
            return slow.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    await_(ended, 5)


def test_connections_reset_by_clients_write_nothing(server: int, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\nmore")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
    assert answer(server, "/livez")
    await_(lambda: not any("process_request" in thread.name for thread in threading.enumerate()))
    assert capfd.readouterr() == ("", "")


def test_a_host_out_of_threads_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop, seen = IOLoop(), []

    def failed(_: object, error: BaseException) -> None:
        seen.append(error)
        loop.stop()

    settings = load({"AMQP_HOST": "localhost", "AMQP_PASS": "p"})
    monkeypatch.setattr(threading.Thread, "start", start)
    connection.Connection(
        connection.parameters(settings, "localhost"), on_open_error_callback=failed, custom_ioloop=Services(loop)
    )
    loop.start()
    loop.close()
    (error,) = seen
    assert "can't start new thread" in str(explain(error, settings, "localhost"))
