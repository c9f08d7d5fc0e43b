"""What can be seen from outside: metrics, the watchdog, dead letters, and the way out of a broker."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import pika
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dispatch_app.amqp import envelope
from tests.integration.consumer import hooks
from tests.integration.consumer.harness import SIGKILLED, USER, Broker, Proxy, Service, order, until
from tests.lab.ansible import ROOT


def test_metrics_are_prometheus_text_and_count_what_happened(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    broker.publish(order("a"), order("b"), order("a"), b"no order")
    service.await_dispatched("a", "b")
    until(lambda: service.metric("dispatch_orders_dead_total") == 1)
    status, text = service.get("/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["dispatch_orders_received_total", None] == 4
    assert samples["dispatch_orders_dispatched_total", None] == 2
    assert samples["dispatch_orders_duplicate_total", None] == 1
    assert samples["dispatch_orders_dead_total", "not-json"] == 1
    assert samples["dispatch_orders_in_flight", None] == 0
    assert samples["dispatch_batch_orders_sum", None] == 3
    assert 1 <= samples["dispatch_ack_seconds_count", None] <= 4
    assert samples["dispatch_connections_total", None] == 1
    assert samples["dispatch_ready", None] == 1
    assert samples["dispatch_ledger_bytes", None] > 0
    assert families["dispatch_build_info"].samples[0].labels.keys() == {"version", "python", "release"}
    assert {family.type for family in families.values()} == {"counter", "gauge", "histogram"}


class Manager:
    """systemd's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def next(self, seconds: float) -> list[str]:
        """Return the next message's assignments; an empty list if no message comes in time."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return []

    def await_message(self, assignment: str) -> None:
        until(lambda: assignment in self.next(30), what=assignment)

    def close(self) -> None:
        self._socket.close()


WATCHDOG = 1.0  # seconds


@pytest.fixture
def manager(tmp_path: Path, service: Service) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    service.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
    yield made
    made.close()


def test_a_stuck_loop_stops_feeding_the_watchdog(broker: Broker, service: Service, manager: Manager) -> None:
    service.start("tests.integration.consumer.variants", "stuck_over_an_order")
    manager.await_message("READY=1")
    manager.await_message("WATCHDOG=1")
    broker.publish(order("stuck"))
    # systemd would kill the service after one such silence.
    until(lambda: manager.next(WATCHDOG) == [], what="silence")
    assert service.alive()


DEADLY = {"DISPATCH_HOOK": f"{hooks.__name__}:deadly", "DISPATCH_HOOK_SECONDS": "2", "DISPATCH_RETRY_DELAYS": "1"}


@pytest.mark.parametrize("service", [DEADLY], indirect=True)
def test_a_hook_that_hangs_or_dies_stops_neither_the_loop_nor_the_other_orders(
    broker: Broker, service: Service, manager: Manager
) -> None:
    service.start()
    manager.await_message("READY=1")
    broker.publish(order("hang"), order("good"), order("die"), order("better"))
    for _ in range(5):
        assert "WATCHDOG=1" in manager.next(WATCHDOG)
    service.await_dispatched("good", "better")
    until(lambda: service.metric("dispatch_orders_dead_total") == 2)
    letters = [json.loads(line) for line in service.command("dead", "list", "--json").stdout.splitlines()]
    assert sorted((letter["reason"], letter["attempt"], letter["order-id"]) for letter in letters) == [
        ("hook-died", 2, "die"),
        ("hook-timeout", 2, "hang"),
    ]
    text = service.get("/metrics")[1]
    for outcome, count in (("done", 2), ("hook-died", 2), ("hook-failed", 0), ("hook-timeout", 2)):
        assert f'dispatch_effects_total{{effect="hook",outcome="{outcome}"}} {count}.0\n' in text
    assert "dispatch_effect_seconds_count 6.0\n" in text
    assert service.journal.read_text().count("the hook has") == 6


def test_a_broker_outage_keeps_feeding_it(service: Service, proxy: Proxy, manager: Manager) -> None:
    service.environment["AMQP_PORT"] = str(proxy.port)
    service.start()
    manager.await_message("READY=1")
    proxy.close()
    service.await_trouble("refuses connections")
    for _ in range(10):
        assert "WATCHDOG=1" in manager.next(WATCHDOG)
    assert service.stop() == 0
    manager.await_message("STOPPING=1")


def test_it_is_ready_for_systemd_only_once_it_consumes(service: Service, proxy: Proxy, manager: Manager) -> None:
    proxy.silence()
    service.environment["AMQP_PORT"] = str(proxy.port)
    service.start()
    for _ in range(5):
        assert "READY=1" not in manager.next(WATCHDOG)
    proxy.speak()
    manager.await_message("READY=1")
    assert service.get("/readyz")[0] == 200


COURIER = {"DISPATCH_HOOK": f"{hooks.__name__}:courier", "DISPATCH_RETRY_DELAYS": "1"}


@pytest.mark.parametrize("service", [COURIER], indirect=True)
def test_dead_letters_are_replayed_once_their_cause_is_mended(broker: Broker, service: Service, tmp_path: Path) -> None:
    away = tmp_path / "courier is away"
    away.touch()
    service.environment[hooks.AWAY] = str(away)
    service.start()
    service.await_ready()
    props = {"headers": {"kept": 7, "CC": ["elsewhere"]}, "correlation_id": "c-1", "expiration": "3600000"}
    broker.publish(order("one"), order("two"), b"no order", **props)
    until(lambda: service.metric("dispatch_orders_dead_total") == 3)
    letters = [json.loads(line) for line in service.command("dead", "list", "--json").stdout.splitlines()]
    assert sorted((letter["reason"], letter["attempt"], letter.get("order-id")) for letter in letters) == [
        ("hook-failed", 2, "one"),
        ("hook-failed", 2, "two"),
        ("not-json", 1, None),
    ]
    assert {(letter["exchange"], letter["routing-key"], letter["queue"]) for letter in letters} == {
        ("robot-shop", "orders", "orders")
    }
    shown = json.loads(service.command("dead", "show", "--id", "one").stdout)
    assert shown["body"].encode() == order("one")
    assert shown["properties"] == props
    assert (shown["exception-type"], shown["exception-message"]) == ("ConnectionError", "the courier is away")

    assert (
        service.command("dead", "replay", "--reason", "hook-failed", "--dry-run").stdout
        == "2 dead letters would be replayed\n"
    )
    assert service.dispatched() == []
    # A replayed message that fails again returns to the dead letters, with its history.
    assert service.command("dead", "replay", "--reason", "not-json").stdout == "1 dead letters replayed\n"
    until(lambda: service.metric("dispatch_orders_dead_total") == 4)
    (again,) = map(json.loads, service.command("dead", "list", "--json", "--reason", "not-json").stdout.splitlines())
    (before,) = [letter for letter in letters if letter["reason"] == "not-json"]
    for name in ("first-seen", "exchange", "routing-key", "attempt"):
        assert again[name] == before[name]
    away.unlink()
    assert service.command("dead", "replay", "--id", "one").stdout == "1 dead letters replayed\n"
    service.await_dispatched("one")
    assert service.command("dead", "replay", "--reason", "hook-failed").stdout == "1 dead letters replayed\n"
    service.await_dispatched("two")
    assert service.command("dead", "purge", "--all").stdout == "1 dead letters purged\n"
    assert service.command("dead", "list", "--json").stdout == ""
    assert service.command("dead", "replay", "--id", "one").returncode == 1


def test_dead_letters_go_into_files_and_come_back(broker: Broker, service: Service, tmp_path: Path) -> None:
    service.start()
    service.await_ready()
    bodies = [b"no order", b"\xff\x00 no text", b'{"orderid": 7e999}']
    broker.publish(*bodies)
    until(lambda: service.metric("dispatch_orders_dead_total") == 3)
    before = sorted(service.command("dead", "show", "--all").stdout.split("\n}\n"))

    kept = tmp_path / "kept.jsonl"
    first = service.command("dead", "export", "--all", str(kept))
    assert first.stdout == f"3 dead letters moved to {kept}; `dispatch dead import` puts them back\n"
    assert service.command("dead", "list", "--json").stdout == ""
    assert f"File exists: '{kept}'" in service.command("dead", "export", "--all", str(kept)).stderr
    for put, there in ((3, 0), (0, 3)):
        done = service.command("dead", "import", str(kept))
        assert done.stdout == f"{put} dead letters put back into the dead-letter queue, {there} were there already\n"
    assert sorted(service.command("dead", "show", "--all").stdout.split("\n}\n")) == before


@pytest.mark.long
def test_a_killed_export_amid_new_letters_loses_none_and_all_come_back_as_they_were(
    broker: Broker, service: Service, tmp_path: Path
) -> None:
    service.start()
    service.await_ready()
    assert service.stop() == 0
    moment = datetime(2026, 11, 26, tzinfo=timezone.utc)
    kinds = [
        pika.BasicProperties(headers={"at": moment, "x": b"\xff", "deep": {"a": [1, None]}}, delivery_mode=2),
        pika.BasicProperties(correlation_id="c-1", delivery_mode=1, timestamp=int(moment.timestamp()), type="t"),
        pika.BasicProperties(user_id=USER, expiration="3600000", headers={"CC": ["elsewhere"]}),
        pika.BasicProperties(),
    ]
    sent = {b"\xff letter %d" % number: kinds[number % len(kinds)] for number in range(800)}
    bodies = iter(sent)

    def publish(count: int) -> None:
        with closing(broker.connect()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in islice(bodies, count):
                channel.basic_publish("", "orders.dead", body, sent[body], mandatory=True)

    publish(600)
    files = [tmp_path / "first", tmp_path / "second"]
    export = subprocess.Popen(
        [sys.executable, "-m", "dispatch_app", "dead", "export", "--all", str(files[0])],
        cwd=ROOT, env=service.environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    publisher = threading.Thread(target=publish, args=(200,))
    until(lambda: files[0].exists() and files[0].read_bytes().count(b"\n") > 20, interval=0.001)
    publisher.start()
    export.kill()
    assert export.wait() == SIGKILLED
    publisher.join()
    assert service.command("dead", "export", "--all", str(files[1])).returncode == 0
    for file in files:
        done = service.command("dead", "import", str(file))
        assert done.returncode == 0, done.stderr

    found = {body: raw for raw, body, _ in (envelope.unwrap(*letter) for letter in broker.take_dead())}
    assert found == {body: b"".join(props.encode()) for body, props in sent.items()}


@pytest.mark.parametrize("service", [{"DISPATCH_HOOK": f"{hooks.__name__}:gate"}], indirect=True)
def test_drain_counts_the_order_that_the_hook_has(broker: Broker, service: Service, gate: Path) -> None:
    broker.publish(order("gate"))
    left = service.command("drain", "--timeout", "5")
    assert left.returncode == 1
    assert "1 messages left, 0 of them to be tried again and 1 in hand here; 1 consumers" in left.stdout
    gate.unlink()
    assert service.command("drain", "--timeout", "60").returncode == 0
    assert [row[0] for row in service.dispatched()] == ["gate"]


@pytest.mark.long
def test_drain_counts_orders_that_are_held_for_the_ledger(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    with service.locked_out():
        broker.publish(*(order(f"order-{number}") for number in range(100)))
        service.await_trouble("ledger")
        left = service.command("drain", "--timeout", "5")
        assert left.returncode == 1
        assert "100 in hand here" in left.stdout
    assert service.command("drain", "--timeout", "60").returncode == 0
    assert len(service.dispatched()) == 100


def test_drain_waits_for_the_last_order(broker: Broker, service: Service) -> None:
    service.start()
    service.await_ready()
    assert service.stop() == 0
    broker.publish(*(order(f"order-{number}") for number in range(50)))
    left = service.command("drain", "--timeout", "1")
    assert left.returncode == 1
    assert "50 messages are left" in left.stderr
    service.start()
    done = service.command("drain", "--timeout", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(service.dispatched()) == 50
