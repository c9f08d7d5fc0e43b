"""`make bench-consumer`: Dispatch beside other consumers, one after the other on the same broker and the same orders.

Dispatch syncs each order to its ledger before it acknowledges; the others store nothing. Runs are interleaved, so
that other work on this machine slows all of them alike, and medians are shown. The broker is the lab's (`make lab`).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
import venv
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import docker
import pika
from pika.exceptions import AMQPError

from dispatch_app.database import Database
from dispatch_app.ledgers.sqlite import SqliteLedger
from dispatch_app.topology import EVENT
from tests.benchmarks.results import Results
from tests.integration.consumer import hooks
from tests.integration.consumer.harness import EVENTS, USER, Broker, Endpoint, until
from tests.lab import LabError, engine
from tests.lab import __main__ as lab
from tests.lab.ansible import ROOT
from tests.postgresql import Server

HERE = Path(__file__).parent
WORK = ROOT / "build" / "benchmark"
PYTHON, GO = WORK / "venv" / "bin" / "python", WORK / "go-consumer"
ORDERS, RATE, SECONDS = 60_000, 500, 5
FILL = """INSERT INTO dispatch.orders (id, "user", total, items, redelivered, host, process)
  SELECT gen_random_uuid(), 'user', 2028.5, 2, false, 'host', 1 FROM generate_series(1, %s)"""
NOT_ANNOUNCED = "SELECT count(*) FROM listed"


@dataclass(frozen=True)
class Peer:
    """One consumer: how to start it, and how to read from its log what it has done."""

    name: str
    command: tuple[str, ...]
    consuming: bytes = b" consuming"
    order: bytes = b" Order "  # the log has this once for each order
    order_id: re.Pattern[bytes] = re.compile(rb'"orderid": "([^"]+)"')
    ledger: int = 0  # orders in the ledger at the start
    processes: int = 1
    shared: bool = False  # whether the ledger is in PostgreSQL


_DISPATCH = Peer(
    "dispatch",
    (str(PYTHON), "-m", "dispatch_app", "run"),
    b'"waiting for messages"',
    b'{"id": "',
    re.compile(rb'{"id": "([^"]+)"'),
)


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


WEBHOOK = free_port()  # where this process answers at once, to spans, too
SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


def with_settings(what: str, **settings: str) -> Peer:
    """Dispatch with an effect of each order."""
    environment = [f"{name}={value}" for name, value in settings.items()]
    return replace(_DISPATCH, name=f"with {what}", command=("env", *environment, *_DISPATCH.command))


PEERS = (
    _DISPATCH,
    replace(_DISPATCH, name="dispatch, 1M", ledger=1_000_000),
    replace(_DISPATCH, name="dispatch, 10M", ledger=10_000_000),
    *(
        replace(_DISPATCH, name=f"shared x{count}, 1M", ledger=1_000_000, processes=count, shared=True)
        for count in (1, 2, 3)
    ),
    with_settings("events", DISPATCH_EVENT_EXCHANGE=EVENTS),
    with_settings("a hook", DISPATCH_HOOK=f"{hooks.__name__}:{hooks.nothing.__name__}", PYTHONPATH=str(ROOT)),
    with_settings("a webhook", DISPATCH_WEBHOOK_URL=f"http://127.0.0.1:{WEBHOOK}/", DISPATCH_WEBHOOK_SECRET=SECRET),
    with_settings("traces", DISPATCH_OTLP_ENDPOINT=f"http://127.0.0.1:{WEBHOOK}"),
    with_settings("1 % traces", DISPATCH_OTLP_ENDPOINT=f"http://127.0.0.1:{WEBHOOK}", DISPATCH_OTLP_RATIO="0.01"),
    Peer("Go original", ("env", "PROCESS=1", str(GO))),
    Peer("Go lean", (str(GO),)),
    Peer("pika", (str(PYTHON), str(HERE / "with_pika.py"))),
    Peer("aio-pika", (str(PYTHON), str(HERE / "with_aio_pika.py"))),
)


@dataclass
class Run:
    """The figures of one run of one peer."""

    rate: float = 0.0  # orders per second
    cpu: float = 0.0  # microseconds an order, user and system, the start included
    memory: float = 0.0  # MiB at the peak
    start: float = 0.0  # seconds from exec to consuming
    p50: float = 0.0  # milliseconds from publishing to the log line, which Dispatch writes after the commit
    p99: float = 0.0
    busy: float = 0.0  # percent of one processor at that rate, without the processes that it starts
    server: float = 0.0  # microseconds an order, of PostgreSQL's processes
    behind: float = 0.0  # orders that were done and not announced yet, when the last one was done


UNITS = {
    "rate": "orders/s", "cpu": "µs/order", "memory": "MiB", "start": "s", "p50": "ms", "p99": "ms", "busy": "%",
    "server": "µs/order", "behind": "orders",
}  # fmt: skip


class RunError(Exception):
    """A peer has ended before its run did."""


class Process:
    """One process of a peer, and its log."""

    def __init__(self, peer: Peer, number: int, environment: dict[str, str]) -> None:
        self._peer, self._path = peer, WORK / f"log-{number}"
        state = WORK / f"state-{number}"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        if peer.ledger and not peer.shared:
            filled = filled_ledger(peer.ledger)
            for file in filled.parent.glob(f"{filled.name}*"):
                shutil.copy(file, state / file.name.replace(filled.name, "ledger.db"))
        environment = {
            "PATH": os.environ["PATH"], "STATE_DIRECTORY": str(state), "DISPATCH_HTTP": f"127.0.0.1:{free_port()}",
            **environment,
        }  # fmt: skip
        self.started = time.time()
        with self._path.open("wb") as log:
            self._process = subprocess.Popen(peer.command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self._read = self._path.open("rb")
        self._text = b""
        self._count = 0

    def look(self) -> int:
        """Return how many orders are done. This has to be cheap, because it runs beside the work that is measured."""
        if self._process.poll() is not None:
            raise RunError(f"{self._peer.name} ended: {self._path.read_text(errors='replace')[-2000:].strip()}")
        new = self._read.read()
        new = new[: new.rfind(b"\n") + 1]  # leaves a half-written line for the next look
        self._read.seek(len(self._text) + len(new))
        self._text += new
        self._count += new.count(self._peer.order)
        return self._count

    def consumes(self) -> bool:
        self.look()
        return self._peer.consuming in self._text

    def times(self) -> tuple[float, dict[str, float]]:
        """Return when the process began to consume, and when each order was done, in seconds since the epoch."""
        consuming, done = 0.0, {}
        for line in self._text.splitlines():
            if self._peer.order in line:
                done.update(dict.fromkeys(map(bytes.decode, self._peer.order_id.findall(line)), _moment(line)))
            elif self._peer.consuming in line:
                consuming = _moment(line)
        return consuming, done

    def cpu(self) -> float:
        """Return the processor time so far, in seconds."""
        return cpu(self._process.pid)

    def memory(self) -> float:
        status = Path("/proc", str(self._process.pid), "status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found
        return int(found[1]) / 1024

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._read.close()


class Running:
    """A peer's processes, which share the work, and the server of their ledger."""

    def __init__(self, peer: Peer, broker: Broker, host: str, port: int, server: Server | None) -> None:
        environment = {
            "AMQP_HOST": host, "AMQP_PORT": str(port), "AMQP_VHOST": broker.vhost,
            "AMQP_USER": USER, "AMQP_PASS": broker.password,
        }  # fmt: skip
        self._server = server if peer.shared else None
        if self._server:
            self._database = filled_database(self._server, peer.ledger)
            environment["DISPATCH_LEDGER"] = self._database.uri
            environment["DISPATCH_LEDGER_PASSWORD"] = self._database.password
        self._processes = [Process(peer, number, environment) for number in range(peer.processes)]
        self.started = self._processes[0].started

    def look(self) -> int:
        """Return how many orders are done."""
        return sum(process.look() for process in self._processes)

    def consumes(self) -> bool:
        return all(process.consumes() for process in self._processes)

    def times(self) -> tuple[float, dict[str, float]]:
        """Return when the first one began to consume, and when each order was done, in seconds since the epoch."""
        told = [process.times() for process in self._processes]
        return min(consuming for consuming, _ in told if consuming), {
            order: at for _, done in told for order, at in done.items()
        }

    def cpu(self) -> float:
        """Return the processor time so far, in seconds."""
        return sum(process.cpu() for process in self._processes)

    def server_cpu(self) -> float:
        """Return the processor time of PostgreSQL so far, in seconds."""
        return sum(map(cpu, self._server.processes())) if self._server else 0.0

    def memory(self) -> float:
        return max(process.memory() for process in self._processes)

    def stop(self) -> None:
        for process in self._processes:
            process.stop()
        if self._server:
            self._server.sql(f"DROP DATABASE {self._database.name} WITH (FORCE)")


def cpu(pid: int) -> float:
    """Return the processor time that a process and the children it has waited for have taken, in seconds."""
    fields = Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def filled_ledger(orders: int) -> Path:
    """Return a ledger with that many orders; the first call makes it."""
    path = WORK / f"ledger-{orders}.db"
    if not path.exists():
        building = path.with_suffix(".new")
        building.unlink(missing_ok=True)
        ledger = SqliteLedger(building)
        for _ in range(orders // 50_000):
            ledger.record([(str(uuid.uuid4()), "user", 2028.5, 2, None, 0) for _ in range(50_000)])
        # A process that ends well leaves its filter to the next one.
        until(lambda: ledger._index._filter and ledger._index._filter._full, 900, interval=0.2)
        ledger.close()
        for file in WORK.glob(f"{building.name}*"):
            file.rename(file.with_name(file.name.replace(building.name, path.name)))
    return path


def filled_database(server: Server, orders: int) -> Database:
    """Return a new database with that many orders in the ledger; the first call makes them."""
    full = f"ledger_{orders}"
    if not server.sql("SELECT 1 FROM pg_database WHERE datname = %s", "postgres", full):
        server.create(full)
        server.sql(FILL, full, orders)
        server.sql("VACUUM ANALYZE", full)
    name = f"run_{uuid.uuid4().hex[:8]}"
    server.sql(f"CREATE DATABASE {name} TEMPLATE {full} STRATEGY FILE_COPY")
    server.sql("CHECKPOINT")
    return server.database(name)


def _moment(line: bytes) -> float:
    """Return the time of a log line, which Go, Python and Dispatch each write in their own way, all in UTC."""
    found = re.search(r"(\d{4})[-/](\d\d)[-/](\d\d)[ T](\d\d:\d\d:\d\d\.\d+)", line[:60].decode())
    assert found, line
    text = f"{found[1]}-{found[2]}-{found[3]}T{found[4]:0<15}"
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def body(number: int) -> tuple[str, bytes]:
    """An order as payment sends it: one or two robots, and shipping."""
    order_id = str(uuid.uuid4())
    items = [
        {"sku": f"HAL-{n}", "qty": n, "name": "Robotic Hal 9000", "price": 2001, "subtotal": 2001 * n}
        for n in range(1, 2 + number % 2)
    ]
    items.append({"sku": "SHIP", "qty": 1, "name": "shipping to London", "price": 27.5, "subtotal": 27.5})
    cart = {"items": items, "total": 2028.5, "tax": 338.08}
    return order_id, json.dumps({"orderid": order_id, "user": f"user-{number % 100}", "cart": cart}).encode()


def backlog(peer: Peer, broker: Broker, host: str, port: int, server: Server | None, run: Run) -> None:
    """Measure how fast a peer works off ORDERS waiting orders."""
    with closing(broker.connect()) as connection:
        channel = connection.channel()
        channel.queue_purge("orders")
        for number in range(ORDERS):
            channel.basic_publish("robot-shop", "orders", body(number)[1], pika.BasicProperties(headers={}))
        until(lambda: channel.queue_declare("orders", passive=True).method.message_count == ORDERS)
    running = Running(peer, broker, host, port, server)
    served = running.server_cpu()
    try:
        until(lambda: running.look() >= ORDERS, 120, peer.name, interval=0.1)
        run.cpu = running.cpu() / ORDERS * 1e6
        run.server = (running.server_cpu() - served) / ORDERS * 1e6
        run.memory = running.memory()
        consuming, done = running.times()
        run.rate = ORDERS / (max(done.values()) - consuming)
        run.start = consuming - running.started
    finally:
        running.stop()


def latency(
    peer: Peer, broker: Broker, host: str, port: int, server: Server | None, rate: int, run: Run
) -> None:  # fmt: skip
    """Measure from publishing to done, and what the peer needs for it, at `rate` orders a second."""
    running = Running(peer, broker, host, port, server)
    published = {}
    try:
        until(running.consumes, 30, peer.name)
        before = running.cpu()
        with closing(broker.connect()) as connection:
            channel = connection.channel()
            begin = time.time()
            for number in range(rate * SECONDS):
                time.sleep(max(0.0, begin + number / rate - time.time()))
                order_id, content = body(number)
                published[order_id] = time.time()
                channel.basic_publish("robot-shop", "orders", content, pika.BasicProperties(headers={}))
        until(lambda: running.look() >= len(published), 30, peer.name, interval=0.1)
        run.busy = (running.cpu() - before) / (time.time() - begin) * 100
        if "DISPATCH_EVENT_EXCHANGE" in " ".join(peer.command):
            with closing(sqlite3.connect(WORK / "state-0" / "ledger.db")) as db:
                (run.behind,) = db.execute(NOT_ANNOUNCED).fetchone()
        _, done = running.times()
    finally:
        running.stop()
    delays = statistics.quantiles([(done[order] - moment) * 1000 for order, moment in published.items()], n=100)
    run.p50, run.p99 = delays[49], delays[98]


def one_run(
    peer: Peer, broker: Broker, host: str, port: int, server: Server | None, rate: int, into: list[Run],
    results: Results,
) -> tuple[str, bool]:  # fmt: skip
    """Make one run and keep its figures, or why it has none; return what to tell of it, and whether it failed."""
    run = Run()
    try:
        backlog(peer, broker, host, port, server, run)
        latency(peer, broker, host, port, server, rate, run)
    # A late fault of one run, its broker's included, must not take the figures of all others with it.
    except (RunError, AssertionError, OSError, AMQPError, ValueError, KeyError) as error:
        results.fail(peer.name, repr(error))
        return f"failed: {error!r}", True
    into.append(run)
    results.add(peer.name, {f"{name} {UNITS[name]}": value for name, value in asdict(run).items()})
    return f"{run.rate:8,.0f} orders/s  {run.cpu:5.1f} µs  p99 {run.p99:6.1f} ms  {run.busy:3.0f} %", False


def medians(done: dict[str, list[Run]]) -> dict[str, Run]:
    """Return the median of each figure; a peer without a run that went well has none."""
    return {
        name: Run(*(statistics.median(vars(run)[figure] for run in each) for figure in vars(Run())))
        for name, each in done.items()
        if each
    }


def show(figures: dict[str, Run]) -> None:
    """Print the table, and which of the aims are reached."""
    columns: list[tuple[str, Callable[[Run], float], str]] = [
        ("orders/s", lambda run: run.rate, ",.0f"), ("CPU µs", lambda run: run.cpu, ".1f"),
        ("peak MiB", lambda run: run.memory, ".0f"), ("p50 ms", lambda run: run.p50, ".1f"),
        ("p99 ms", lambda run: run.p99, ".1f"), ("busy %", lambda run: run.busy, ".0f"),
        ("behind", lambda run: run.behind, ".0f"), ("server µs", lambda run: run.server, ".1f"),
        ("start s", lambda run: run.start, ".2f"),
    ]  # fmt: skip
    print(f"{'':14}" + "".join(f"{name:>12}" for name, *_ in columns))
    for name, run in figures.items():
        print(f"{name:14}" + "".join(f"{format(value(run), form):>12}" for _, value, form in columns))
    dispatch = figures.get("dispatch")
    if dispatch is None:
        return
    for name in ("Go original", "Go lean"):
        if name not in figures:
            continue
        go = figures[name]
        print(f"\ndispatch beside {name} (aims: at least 1.3, at most 0.8):")
        print(f"  {dispatch.rate / go.rate:.2f} of its orders/s, {dispatch.cpu / go.cpu:.2f} of its CPU an order")
    if own := figures.get("dispatch, 1M"):
        for name in (name for name in figures if name.startswith("shared")):
            print(f"{name}: {figures[name].rate / own.rate:.2f} of the orders/s of one host with its own (aim: 0.7)")
    if full := figures.get("dispatch, 10M"):
        print(
            f"with ten million orders in the ledger {full.rate / dispatch.rate:.2f} of the orders/s (aim: at least 0.9)"
        )
    print(f"p99 {dispatch.p99:.1f} ms (aim: at most 10), peak memory {dispatch.memory:.0f} MiB (aim: at most 40)")
    print(f"start to consuming {dispatch.start:.2f} s (aim: below 0.5)")


def prepare() -> None:
    """Make the venv and build the Go consumer. Raises LabError where Go is missing and can't be installed."""
    WORK.mkdir(parents=True, exist_ok=True)
    requirements = HERE / "requirements.txt"
    if not PYTHON.exists() or (WORK / "venv").stat().st_mtime < requirements.stat().st_mtime:
        venv.create(WORK / "venv", with_pip=True, clear=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
    source = Path("/usr/share/gocode/src/github.com/rabbitmq/amqp091-go")
    if not (shutil.which("go") and source.is_dir()):
        engine.install("golang-go", "golang-github-rabbitmq-amqp091-go-dev")
    # Debian installs Go libraries as sources below this path, and a build finds them there only without modules.
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(WORK / "go-cache")}
    subprocess.run(["go", "build", "-o", GO, HERE / "go" / "consumer.go"], env=environment, check=True)


def find_broker() -> Broker:
    """The lab's broker. Raises LabError where the lab isn't up."""
    running = os.environ.get("DISPATCH_TEST_BROKER")  # tests/integration/consumer takes it, too
    client = engine.connect(lab.STATE)
    try:
        name, port, password = running.split(":") if running else ("broker", "5672", "")
        password = password or (lab.STATE / "amqp_password").read_text().strip()
        return Broker(client.containers.get(name), int(port), password, f"benchmark-{uuid.uuid4().hex[:8]}")
    except (OSError, docker.errors.NotFound) as error:
        raise LabError(
            f"The benchmark uses the lab's broker, which isn't there ({error}); run `make lab` first."
        ) from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each consumer (default: 5)")
    parser.add_argument(
        "--rate", type=int, default=RATE, metavar="N", help=f"orders/s for the latency (default: {RATE})"
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--consumers", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"of {', '.join(map(repr, names))} (default: all)")  # fmt: skip
    arguments = parser.parse_args()
    runs, rate = arguments.runs, arguments.rate
    peers = [peer for peer in PEERS if peer.name in arguments.consumers]
    try:
        prepare()
        broker = find_broker()
    except LabError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    results = Results("consumer", {"orders": ORDERS, "latency at orders/s": rate})
    # Docker's proxy for published ports would be measured as well, so peers connect to the container directly.
    (network,) = broker.container.attrs["NetworkSettings"]["Networks"].values()
    host, port = network["IPAddress"], 5672
    # It syncs as it does by default.
    server = Server(buffers="512MB") if any(peer.shared for peer in peers) else None
    broker.ctl("add_vhost", broker.vhost)
    try:
        broker.ctl("set_permissions", "--vhost", broker.vhost, USER, ".*", ".*", ".*")
        with closing(broker.connect()) as connection:
            channel = connection.channel()
            channel.exchange_declare("robot-shop", "direct", durable=True)
            channel.queue_declare("orders", durable=True)
            channel.queue_bind("orders", "robot-shop", "orders")
            channel.exchange_declare(EVENTS, "topic", durable=True)
            channel.queue_declare("heard", durable=True, arguments={"x-max-length": 1000})  # the rest is dropped
            channel.queue_bind("heard", EVENTS, EVENT)
        endpoint = Endpoint(WEBHOOK)
        faults = 0
        done: dict[str, list[Run]] = {peer.name: [] for peer in peers}
        for number in range(runs):
            for peer in peers:
                told, failed = one_run(peer, broker, host, port, server, rate, done[peer.name], results)
                faults += failed
                print(f"run {number + 1} of {runs}: {peer.name:14} {told}", flush=True)
        endpoint.go_away()
    finally:
        broker.ctl("delete_vhost", broker.vhost)
        if server:
            server.remove()
    print(
        f"\nMedians of {runs} runs, {ORDERS:,} waiting orders; latency at {rate} orders/s; {os.cpu_count()} processors"
    )
    if faults:
        print(f"{faults} runs failed and are left out")
    show(medians(done))
    print(f"Each run's figures: {results.path}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
