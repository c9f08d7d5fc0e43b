"""What others see: systemd's messages, probes, metrics, and failures in plain words."""

import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from dispatch_app import failures, health, probes, topology
from dispatch_app.amqp.connection import parameters
from dispatch_app.settings import RETRY_DELAYS, load
from dispatch_app.systemd import Notifier

SETTINGS = load({"AMQP_HOST": "mq", "AMQP_PASS": "s3cret-word", "AMQP_QUEUE": "paid"})


@pytest.mark.parametrize("abstract", [False, True])
def test_notifications_reach_the_manager(tmp_path: Path, abstract: bool) -> None:
    address = f"@dispatch-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if abstract else address)
        Notifier({"NOTIFY_SOCKET": address}).send("READY=1", "STATUS=consuming")
        assert manager.recv(1000) == b"READY=1\nSTATUS=consuming"


def test_a_text_of_the_brokers_is_no_notification_of_ours(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.send("WATCHDOG=1", "STATUS=inequivalent arg 'a\nWATCHDOG=trigger\r\x1b[2J\u2028\udcff'")
        assert manager.recv(5000) == b"WATCHDOG=1\nSTATUS=inequivalent arg 'a WATCHDOG=trigger  [2J  '"
        notifier.send("WATCHDOG=1", "STATUS=" + "\N{PILE OF POO}" * 9999)
        assert len(manager.recv(50_000)) < 4096


def test_a_manager_that_reads_nothing_is_told_later_and_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        while notifier.send("WATCHDOG=1"):
            pass
        manager.recv(100)
        assert notifier.send("READY=1")


def test_without_a_manager_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")


def test_the_watchdog_is_ours_only_if_it_names_us() -> None:
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog == 30.0
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog == 0.0
    assert Notifier({}).watchdog == 0.0


@pytest.fixture
def served() -> Iterator[tuple[str, health.State]]:
    state = health.State()
    server = probes.Server(("127.0.0.1", 0), state, lambda: 4096)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", state
    server.shutdown()
    server.server_close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_ready_only_without_reasons(served: tuple[str, health.State]) -> None:
    url, state = served
    assert get(f"{url}/readyz") == (503, "not connected yet\n")
    state.set("broker", None)
    assert get(f"{url}/readyz") == (200, "consuming\n")
    state.set("ledger", "disk full")
    assert get(f"{url}/readyz") == (503, "disk full\n")


def test_alive_only_while_the_loop_beats(served: tuple[str, health.State]) -> None:
    url, state = served
    assert get(f"{url}/livez")[0] == 200
    state.beat -= health.STUCK
    assert get(f"{url}/livez")[0] == 503
    assert get(f"{url}/elsewhere")[0] == 404


def test_metrics_are_what_prometheus_reads(served: tuple[str, health.State]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    url, state = served
    state.dispatched, state.dead["not-json"] = 7, 2
    state.batch.observe(30)
    families = list(text_string_to_metric_families(get(f"{url}/metrics")[1]))
    samples = {(s.name, s.labels.get("reason", s.labels.get("le", ""))): s.value for f in families for s in f.samples}
    assert samples["dispatch_orders_dispatched_total", ""] == 7
    assert samples["dispatch_orders_dead_total", "not-json"] == 2
    assert samples["dispatch_batch_orders_bucket", "20"] == 0
    assert samples["dispatch_batch_orders_bucket", "50"] == 1
    assert samples["dispatch_batch_orders_bucket", "+Inf"] == samples["dispatch_batch_orders_count", ""] == 1
    assert samples["dispatch_ledger_bytes", ""] == 4096
    assert samples["dispatch_backup_last_success_timestamp_seconds", ""] == 0
    state.last_backup = lambda: 1_795_846_501.0
    assert "last_success_timestamp_seconds 1.795846501e+09\n" in get(f"{url}/metrics")[1]
    assert all(family.documentation for family in families)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(-2, "unknown"), failures.UNRESOLVABLE),
        (workflow.AMQPConnectorSocketConnectError(ConnectionRefusedError()), failures.REFUSED),
        (workflow.AMQPConnectorSocketConnectError(TimeoutError()), failures.TIMED_OUT),
        (workflow.AMQPConnectorStackTimeout(), failures.TIMED_OUT),
        (exceptions.AMQPHeartbeatTimeout("x"), failures.TIMED_OUT),
        (exceptions.ProbableAuthenticationError("x"), failures.CREDENTIALS),
        (exceptions.ConnectionClosedByBroker(403, "ACCESS_REFUSED - Login was refused"), failures.CREDENTIALS),
        (exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost x not found"), failures.VHOST),
        (exceptions.ProbableAccessDeniedError("(530) access to vhost '/' refused"), failures.PERMISSION),
        (exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to queue 'q'"), failures.PERMISSION),
        (exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED - inequivalent arg"), failures.DECLARED),
        (ssl.SSLCertVerificationError(1, "self-signed"), failures.TLS),
        (ssl.SSLError(1, "wrong version"), failures.TLS),
        (exceptions.IncompatibleProtocolError("StreamLostError: SSLError alert certificate required"), failures.TLS),
        (exceptions.IncompatibleProtocolError("StreamLostError: EOF"), failures.OTHER),
        (OSError(113, "No route to host"), failures.OTHER),
        (exceptions.StreamLostError("EOF"), failures.OTHER),
        (RuntimeError("something else"), failures.OTHER),
    ],
)
def test_every_failure_has_its_code_and_a_sentence(error: BaseException, code: int) -> None:
    wrapped = exceptions.AMQPConnectionError(workflow.AMQPConnectionWorkflowFailed([error]))
    for given in (error, wrapped):
        failure = failures.explain(given, SETTINGS, "mq")
        assert failure.code == code
        assert failure.remedy
        assert "s3cret-word" not in str(failure)


def test_the_password_is_in_nothing_pika_prints() -> None:
    assert "s3cret-word" not in repr(parameters(SETTINGS, "mq"))


def test_the_order_queue_has_no_arguments_and_retries_lead_back_to_it() -> None:
    queues = topology.queues(SETTINGS)
    assert queues.pop("paid") is None
    assert "x-message-ttl" not in (queues.pop("paid.dead") or {})
    assert len(queues) == len(RETRY_DELAYS)
    for name, arguments in queues.items():
        assert arguments
        assert name == f"paid.retry.{arguments['x-message-ttl'] // 1000}s"
        assert arguments["x-dead-letter-exchange"] == ""
        assert arguments["x-dead-letter-routing-key"] == "paid"
    delays = [arguments["x-message-ttl"] for arguments in queues.values() if arguments]
    assert delays == sorted(set(delays))
