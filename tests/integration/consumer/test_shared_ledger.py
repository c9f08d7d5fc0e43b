"""The ledger of a fleet on a real PostgreSQL: each order once, whatever the server does."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

import dispatch_app.ledgers.postgresql as module
from dispatch_app.check import check_ledger
from dispatch_app.database import Database
from dispatch_app.ledgers import schema, statements
from dispatch_app.ledgers.port import AwayError, ClockError, Filter, Row
from dispatch_app.ledgers.postgresql import PostgresqlLedger, read
from dispatch_app.ledgers.schema import migrate
from dispatch_app.ledgers.sqlite import SqliteLedger
from dispatch_app.ledgers.takeover import take_over
from dispatch_app.orders import InvalidOrderError, parse
from tests.integration.consumer.harness import Proxy, until
from tests.lab.ansible import ROOT
from tests.postgresql import OWNER, ROLE, Server
from tests.unit.dispatch_app.test_orders import order_like

WRONG = "not the password"


def row(order_id: str, correlation_id: str | None = None) -> Row:
    return (order_id, "dave", 2001.5, 2, correlation_id, 0)


def rows(*ids: str) -> list[Row]:
    return [row(order_id) for order_id in ids]


def ids(database: Database) -> list[str]:
    return sorted(order["id"] for order in read(database, 10**6, Filter()))


@pytest.fixture
def ledgers(database: Database) -> Iterator[Any]:
    """A function that opens the ledger as one more process of the fleet."""
    opened: list[PostgresqlLedger] = []

    def open_one(announcing: bool = False, where: Database = database, host: str = "") -> PostgresqlLedger:
        opened.append(PostgresqlLedger(where, announcing))
        opened[-1]._host = host or f"host-{len(opened)}"
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()


def test_an_order_is_recorded_once_by_whichever_host(ledgers: Any, database: Database) -> None:
    first, second = ledgers(), ledgers()
    assert first.record(rows("a", "b")) == []
    assert second.record(rows("b", "c", "c", "a", "d")) == [0, 2, 3]
    assert ids(database) == ["a", "b", "c", "d"]
    assert second.known(["a", "z", "d"]) == {"a", "d"}
    assert {order["host"] for order in read(database, 9, Filter(id="a"))} == {"host-1"}


def test_what_an_order_holds_comes_back_as_it_was(ledgers: Any, database: Database) -> None:
    odd = "N\0L \\u0000 ü \N{PILE OF POO} '; DROP TABLE dispatch.orders; --"
    ledgers().record([("ä'\"\\", "Zoë", 0.1 + 0.2, 3, odd, 1), ("bare", None, None, None, None, 0)])
    full, bare = read(database, 9, Filter())  # the ids went in sorted
    expected = {"user": None, "total": None, "items": None, "correlation_id": None, "redelivered": False}
    assert {name: bare[name] for name in expected} == expected
    assert (full["id"], full["user"], full["total"], full["items"]) == ("ä'\"\\", "Zoë", 0.1 + 0.2, 3)
    assert (full["correlation_id"], full["redelivered"]) == (odd.replace("\0", "\\x00"), True)
    assert abs(full["dispatched_at"] / 1000 - time.time()) < 60
    assert [order["id"] for order in read(database, 9, Filter(user="Zoë", correlation_id=full["correlation_id"]))]
    assert list(read(database, 9, Filter(since=int(time.time() * 1000) + 10**7))) == []


def test_the_database_can_store_whatever_is_an_order(ledgers: Any, database: Database) -> None:
    """So no message can make a commit fail, which would hold every order behind it."""
    ledger = ledgers()

    @given(document=order_like(), correlation_id=st.none() | st.binary(max_size=255))
    def stored(document: Any, correlation_id: bytes | None) -> None:
        try:
            order = parse(json.dumps(document).encode())
        except InvalidOrderError:
            return
        given_id = correlation_id.decode("utf-8", "replace") if correlation_id else None  # as the consumer reads it
        if ledger.record([(*order[:4], given_id, 0)]) == []:
            (found,) = read(database, 1, Filter(id=order.id))
            assert (found["id"], found["user"], found["total"], found["items"]) == order[:4]

    stored()


def crowd(ledgers: Any, count: int = 3, batches: int = 60) -> list[str]:
    """Have several hosts record the same orders, each in an order of its own; return what went wrong."""
    orders = [f"{number:05}" for number in range(3000)]
    wrong: list[str] = []

    def host(seed: int) -> None:
        ledger, random = ledgers(), Random(seed)  # noqa: S311 - no secret
        for _ in range(batches):
            try:
                ledger.record(rows(*random.sample(orders, 400)))
            except AwayError as error:
                wrong.append(str(error))

    hosts = [threading.Thread(target=host, args=(seed,)) for seed in range(count)]
    for thread in hosts:
        thread.start()
    for thread in hosts:
        thread.join()
    return wrong


def test_hosts_that_record_the_same_orders_at_once_never_deadlock(ledgers: Any, database: Database) -> None:
    assert crowd(ledgers) == []
    assert len(ids(database)) == len(set(ids(database)))


@pytest.mark.long
def test_without_an_order_among_the_ids_they_would(ledgers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sorted", lambda rows, key: rows, raising=False)  # noqa: ARG005 - sorted's signature
    assert "deadlock" in " ".join(crowd(ledgers))


class Forgetful:
    """A connection that is lost just after the server has committed."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def execute(self, *arguments: Any, **options: Any) -> Any:
        self._conn.execute(*arguments, **options)
        raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


def test_what_a_lost_connection_has_recorded_is_no_duplicate_and_what_others_have_is(ledgers: Any) -> None:
    ledger, other = ledgers(), ledgers()
    ledger.record(rows("old"))
    other.record(rows("other's"))
    ledger._conn = Forgetful(ledger._conn)
    with pytest.raises(AwayError, match="closed the connection"):
        ledger.record(rows("a", "b", "old", "other's"))
    assert ledger.known(["a", "b"]) == {"a", "b"}  # they had been committed
    assert ledger.record(rows("b", "new", "other's", "a", "a", "old")) == [2, 4, 5]
    assert ledger.record(rows("a", "b")) == [0, 1]


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that a test may break."""
    made = Server()
    yield made
    made.remove()


def test_nothing_is_lost_and_each_order_counts_once_when_the_server_is_killed_under_load(own_server: Server) -> None:
    database = own_server.create("orders")
    counted: list[str] = []
    tried = threading.Event()
    end = threading.Event()
    failures = 0

    def work() -> None:
        nonlocal failures
        ledger = PostgresqlLedger(database)
        for number in itertools.count():
            batch = rows(*(f"{number:05}-{place:03}" for place in range(200)))
            while True:
                try:
                    duplicates = ledger.record(batch)
                except AwayError:
                    failures += 1
                    continue
                break
            counted.extend(order[0] for index, order in enumerate(batch) if index not in duplicates)
            tried.set()
            if end.is_set():
                break
        ledger.close()

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(4):
        tried.clear()
        tried.wait(30)
        own_server.kill()
        own_server.start()
    tried.clear()
    tried.wait(30)
    end.set()
    worker.join(60)
    assert failures
    assert sorted(counted) == ids(database)
    assert len(counted) == len(set(counted))


def in_thread(ledger: PostgresqlLedger) -> tuple[threading.Thread, list[AwayError]]:
    """Record an order in a thread; return it, and where it tells what went wrong."""
    failed: list[AwayError] = []

    def work() -> None:
        try:
            ledger.record(rows("b"))
        except AwayError as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    return worker, failed


def test_a_server_that_answers_no_more_is_given_up(own_server: Server) -> None:
    ledger = PostgresqlLedger(own_server.create("orders"))
    ledger.record(rows("a"))
    own_server.freeze()
    worker, failed = in_thread(ledger)
    worker.join(1)
    assert worker.is_alive()
    ledger.interrupt()
    worker.join(5)
    assert failed
    own_server.thaw()
    assert ledger.record(rows("b")) in ([], [0])
    ledger.close()


def test_a_network_that_swallows_everything_ends_in_an_error(own_server: Server) -> None:
    database = own_server.create("orders")
    proxy = Proxy(own_server.port)
    ledger = PostgresqlLedger(replace(database, ports=(proxy.port,)))
    ledger.record(rows("a"))
    proxy.silence()
    failing, failed = in_thread(ledger)
    failing.join(0.5)
    assert failing.is_alive()
    ledger.interrupt()
    failing.join(5)
    assert failed
    with pytest.raises(AwayError, match="doesn't answer"):
        ledger.record(rows("b"))  # nor is there a new connection
    proxy.speak()
    assert ledger.record(rows("b")) == []
    ledger.close()
    proxy.close()


def test_the_primary_is_found_among_several_and_again_after_a_failover(own_server: Server) -> None:
    database = own_server.create("orders")
    replica = Server(copy_of=own_server)
    try:
        alone = replica.database("orders")
        failure = check_ledger(alone)
        assert failure
        assert "takes writes: what answers is a replica; name the primary in DISPATCH_LEDGER" in str(failure)
        with pytest.raises(AwayError, match="replica"):
            PostgresqlLedger(alone).record(rows("a"))
        ledger = PostgresqlLedger(replica.database("orders", own_server))
        assert ledger.record(rows("a")) == []
        until(lambda: replica.sql("SELECT count(*) FROM dispatch.orders", "orders") == [(1,)], what="a copy")
        own_server.kill()
        with pytest.raises(AwayError):
            ledger.record(rows("b"))
        replica.sql("SELECT pg_promote()")
        assert ledger.record(rows("a", "b")) == [0]
        ledger.close()
        assert ids(database.as_role(ROLE, replica.password).__class__(**vars(alone))) == ["a", "b"]
    finally:
        replica.remove()
        own_server.start()


def waiting_for_replica(server: Server) -> int:
    """Return how many commits wait until a replica has confirmed them."""
    return int(server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")[0][0])


def make_commits_wait(server: Server) -> None:
    """Have commits wait for a replica, of which there is none, and return once they do."""
    server.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    server.sql("SELECT pg_reload_conf()")
    # The server heeds that a moment later, and a commit that comes before never waits.
    for number in range(100):
        probe = threading.Thread(target=server.sql, args=(f"CREATE TABLE probe_{number} ()",))
        probe.start()
        until(lambda probe=probe: not probe.is_alive() or waiting_for_replica(server), what="a commit")  # type: ignore[misc]
        waits = waiting_for_replica(server)
        server.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        probe.join(30)
        if waits:
            return
    raise AssertionError("no commit waits for a replica")


def test_what_no_replica_has_confirmed_is_no_duplicate_before_one_has(own_server: Server) -> None:
    ledger = PostgresqlLedger(own_server.create("orders"))
    ledger.record(rows("a"))
    make_commits_wait(own_server)
    worker, failed = in_thread(ledger)
    until(lambda: waiting_for_replica(own_server), what="a commit that waits")
    own_server.kill()
    worker.join(30)
    assert failed
    own_server.start()
    # The order is there, and would be lost with this server: whoever is told that it is known would acknowledge it. The
    # first one to ask also takes a number for the order, and its commit may wait for that alone; the second does not.
    assert ledger.known(["b"]) == {"b"}
    for asked in (1, 2):
        worker, failed = in_thread(ledger)
        while worker.is_alive() and waiting_for_replica(own_server) < asked:
            worker.join(0.1)
        assert worker.is_alive()
        ledger.interrupt()
        worker.join(30)
        assert failed
    replica = Server(copy_of=own_server)
    assert ledger.record(rows("b")) == []
    ledger.close()
    replica.remove()


def test_the_schema_waits_for_no_replica(own_server: Server) -> None:
    database = own_server.create("orders", migrated=False)
    make_commits_wait(own_server)
    found: list[int] = []
    worker = threading.Thread(target=lambda: found.extend(migrate(database, as_owner(database)) for _ in range(2)))
    worker.start()
    until(lambda: not worker.is_alive() or waiting_for_replica(own_server), what="the schema")
    assert found == [0, schema.VERSION]


# -- announcing -----------------------------------------------------------------------


def test_each_announces_its_own_orders_and_those_of_the_dead(ledgers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADOPT_SECONDS", 0.0)
    first, second, third = (ledgers(announcing=True) for _ in range(3))
    for ledger, names in ((first, "ab"), (second, "cd"), (third, "ef")):
        ledger.record(rows(*names))
    assert [order.id for order in first.unannounced(9)] == ["a", "b"]
    first.announced([first.unannounced(1)[0].seq])
    last = second.unannounced(9)[-1].seq
    first.close()  # without a word, as far as the others can tell
    until(lambda: {order.id for order in second.unannounced(9)} >= {"b"} or third.unannounced(9, last), what="a heir")
    heirs = [{order.id for order in ledger.unannounced(9)} for ledger in (second, third)]
    assert heirs in ([{"b", "c", "d"}, {"e", "f"}], [{"c", "d"}, {"b", "e", "f"}])
    assert {order.host for order in second.unannounced(9) if order.id == "c"} == {"host-2"}


def test_a_process_that_connects_again_keeps_its_orders_when_its_old_connection_ends(
    ledgers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ADOPT_SECONDS", 0.0)
    first, second = ledgers(announcing=True), ledgers(announcing=True)
    first.record(rows("a"))
    old, first._conn = first._conn, None
    first.record(rows("b"))
    old.close()
    gone = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
    until(lambda: first._conn.execute(gone, (first._process,)).fetchone() == (1,), what="the end of the old one")
    assert second.unannounced(9) == []
    assert [order.id for order in first.unannounced(9)] == ["a", "b"]


def test_what_becomes_ours_is_told_though_later_orders_were(ledgers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ledgers(announcing=True), ledgers(announcing=True)
    first.record(rows("a"))
    second.record(rows("b"))
    (ours,) = second.unannounced(9)
    first.close()
    second._adopt_at = 0.0
    monkeypatch.setattr(module, "ADOPT_SECONDS", 3600)
    until(lambda: not second._conn.execute("SELECT 1 FROM pg_locks WHERE objid = %s", (first._process,)).fetchone())
    assert [order.id for order in second.unannounced(9, after=ours.seq)] == ["a"]


def test_an_order_is_recorded_and_listed_or_neither(ledgers: Any, own_server: Server) -> None:
    database = own_server.create("orders")
    own_server.sql("ALTER TABLE dispatch.unannounced ADD CHECK (seq < 0)", "orders")
    with pytest.raises(AwayError, match="check constraint"):
        ledgers(announcing=True, where=database).record(rows("a"))
    assert ids(database) == []


# -- retention ------------------------------------------------------------------------


def age(server: Server, database: Database, days: int, where: str = "true") -> None:
    changed = f"UPDATE dispatch.orders SET dispatched_at = dispatched_at - interval '{days} days' WHERE {where}"  # noqa: S608 - a test's own
    server.sql(changed, database.name)


def test_retention_forgets_the_old_in_bites_and_keeps_what_is_to_be_announced(
    ledgers: Any, postgresql: Server, database: Database
) -> None:
    ledger = ledgers()
    ledger.record(rows("old-1", "old-2", "old-3", "old-4"))
    ledgers(announcing=True).record(rows("old-5"))
    age(postgresql, database, 2)
    ledger.record(rows("new"))
    assert [ledger.forget(days=1, limit=3) for _ in range(3)] == [3, 1, 0]
    assert ids(database) == ["new", "old-5"]


def test_one_process_forgets_at_a_time(ledgers: Any, postgresql: Server, database: Database) -> None:
    ledger = ledgers()
    ledger.record(rows("old"))
    age(postgresql, database, 2)
    ledger.record(rows("new"))
    with psycopg.connect(**{**database.parameters(), "password": database.password}) as other:  # type: ignore[arg-type]
        other.execute(statements.MAY_FORGET)
        assert ledger.forget(days=1) == 0
    assert ledger.forget(days=1) == 1


def test_nothing_is_forgotten_while_the_database_s_clock_is_far_ahead(
    ledgers: Any, postgresql: Server, database: Database
) -> None:
    ledgers().record(rows("a"))
    age(postgresql, database, 100)
    ledger = ledgers()  # to which it is as if the clock had been put forward since
    with pytest.raises(ClockError):
        ledger.forget(days=30)
    assert ledger.forget(days=101) == 0
    assert ids(database) == ["a"]


# -- the schema -----------------------------------------------------------------------


def as_owner(database: Database) -> Database:
    return database.as_role(OWNER, database.password)


def test_migrating_again_changes_nothing_and_the_service_has_no_more_rights_than_it_needs(
    ledgers: Any, database: Database
) -> None:
    ledgers().record(rows("a"))
    assert migrate(database, as_owner(database)) == schema.VERSION
    assert ids(database) == ["a"]
    assert check_ledger(database) is None
    for statement in (
        "UPDATE dispatch.orders SET host = 'x'", "TRUNCATE dispatch.orders", "DROP TABLE dispatch.orders",
        "UPDATE dispatch.version SET version = 2", "CREATE TABLE dispatch.more (a int)", "CREATE SCHEMA more",
    ):  # fmt: skip
        with (
            psycopg.connect(**{**database.parameters(), "password": database.password}) as conn,  # type: ignore[arg-type]
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            conn.execute(statement)


def test_two_that_migrate_at_once_make_one_schema(postgresql: Server) -> None:
    database = postgresql.create("racing", migrated=False)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(migrate(database, as_owner(database)))) for _ in range(4)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP SCHEMA dispatch CASCADE", "has no ledger; run `dispatch ledger migrate`"),
        ("UPDATE dispatch.version SET version = 2", "is of version 2, and this release knows version 1; deploy the"),
        ("UPDATE dispatch.version SET version = 0", "is of version 0, and this release knows version 1; run `dispatch"),
        (f"REVOKE DELETE ON dispatch.orders FROM {ROLE}", "lacks rights at {d}: DELETE on orders; run `dispatch"),
        (f"REVOKE UPDATE (owner) ON dispatch.unannounced FROM {ROLE}", "UPDATE (owner) on unannounced; run"),
        (f"REVOKE USAGE ON SCHEMA dispatch FROM {ROLE}", "dispatch lacks a right at {d} (permission denied for schema"),
    ],
)
def test_a_schema_that_does_not_fit_is_told_by_name(
    change: str, told: str, postgresql: Server, database: Database
) -> None:
    postgresql.sql(change, database.name)
    failure = check_ledger(database)
    assert failure
    assert told.format(d=database) in str(failure)
    assert failure.code == 19
    if "REVOKE DELETE" not in change and "owner" not in change:
        with pytest.raises(AwayError):
            PostgresqlLedger(database).record(rows("a"))


def test_a_newer_schema_is_not_migrated(postgresql: Server, database: Database) -> None:
    postgresql.sql("UPDATE dispatch.version SET version = 7", database.name)
    with pytest.raises(AwayError, match="is of version 7, and this release knows version 1"):
        migrate(database, as_owner(database))
    assert postgresql.sql("SELECT version FROM dispatch.version", database.name) == [(7,)]


def test_what_keeps_a_migration_from_its_work_is_told_and_nothing_is_left(postgresql: Server) -> None:
    database = postgresql.create("unready", migrated=False)
    with pytest.raises(AwayError, match="dispatch may not do this"):
        migrate(database, database)
    nobody = database.as_role("nobody_here", "x")
    with pytest.raises(AwayError, match="there is no role nobody_here"):
        migrate(nobody, as_owner(database))
    postgresql.sql(f"CREATE DATABASE latin OWNER {OWNER} ENCODING 'LATIN1' TEMPLATE template0")
    latin = replace(database, name="latin")
    with pytest.raises(AwayError, match="has the encoding LATIN1"):
        migrate(latin, as_owner(latin))
    for name in ("unready", "latin"):
        assert postgresql.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'dispatch'", name) == [(0,)]


def test_what_is_wrong_with_the_way_to_the_database_is_told_by_name(database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    for wrong, told in (
        (replace(database, name="elsewhere"), "there is no database elsewhere at"),
        (database.as_role(ROLE, "x"), "refuses the password of dispatch; correct DISPATCH_LEDGER_PASSWORD"),
        (replace(database, user="somebody"), "refuses the password of somebody"),
        (replace(database, ports=(closed,)), "refuses connections; see that PostgreSQL runs there"),
        (replace(database, hosts=("db.invalid",)), "can't be resolved"),
        (replace(database, sslmode="require"), "does not speak TLS; turn `ssl` on"),
    ):
        failure = check_ledger(wrong)
        assert failure
        assert told in str(failure), failure
        assert database.password not in str(failure)


def certify(server: Server) -> Path:
    """Have a server speak TLS with a certificate for localhost; return the file of the CA."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("CA of the test", "server")]
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    ca, certificate = (
        x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(more, critical=True)
        .sign(keys[0], hashes.SHA256())
        for name, key, more in (
            (names[0], keys[0], x509.BasicConstraints(ca=True, path_length=None)),
            (names[1], keys[1], x509.SubjectAlternativeName([x509.DNSName("localhost")])),
        )
    )
    pem = serialization.Encoding.PEM
    private = keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {"ca.pem": ca.public_bytes(pem), "server.pem": certificate.public_bytes(pem), "server.key": private}
    for name, content in files.items():
        path = server.directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        shutil.chown(path, server.directory.owner(), server.directory.group())
    server.sql(f"ALTER SYSTEM SET ssl_cert_file = '{server.directory / 'server.pem'}'")
    server.sql(f"ALTER SYSTEM SET ssl_key_file = '{server.directory / 'server.key'}'")
    server.sql("ALTER SYSTEM SET ssl = on")
    server.sql("SELECT pg_reload_conf()")
    until(lambda: server.sql("SHOW ssl") == [("on",)], what="TLS")
    return server.directory / "ca.pem"


def test_the_server_s_certificate_is_verified_name_and_all(own_server: Server) -> None:
    plain = own_server.create("orders")
    ca = certify(own_server)
    full = replace(plain, hosts=("localhost",), sslmode="verify-full", ca=str(ca))
    assert check_ledger(full) is None
    assert check_ledger(replace(full, hosts=("127.0.0.1",), sslmode="verify-ca")) is None
    assert check_ledger(replace(full, hosts=("127.0.0.1",), sslmode="require", ca=None)) is None
    # The CAs that this machine trusts are not the test's, and no name but localhost is in the certificate.
    for wrong in (replace(full, ca=None), replace(full, hosts=("127.0.0.1",))):
        failure = check_ledger(wrong)
        assert failure
        assert "is not trusted" in str(failure), failure
        assert "set DISPATCH_LEDGER_CA to the CA that signed it" in str(failure)


# -- commands -------------------------------------------------------------------------


def command(database: Database, *words: str, typed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DISPATCH_LEDGER": database.uri,
        "DISPATCH_LEDGER_PASSWORD": database.password, **more,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-m", "dispatch_app", *words], env=environment, input=typed,
                          capture_output=True, text=True, timeout=60)  # fmt: skip


def test_the_command_makes_the_schema_and_lists_orders(postgresql: Server, ledgers: Any) -> None:
    database = postgresql.create("commanded", migrated=False)
    owner = ("ledger", "migrate", "--owner", OWNER, "--password-file", "-")
    done = command(database, *owner, typed=f"{database.password}\n")
    assert done.stdout == f"the ledger at {database} is of version 1, is new, and dispatch may use it\n", done.stderr
    assert "was of version 1 before" in command(database, *owner, typed=f"{database.password}\n").stdout
    ledgers(where=database).record([row("a"), row("b", "c-1")])
    listed = command(database, "orders", "--json", "--correlation-id", "c-1")
    (order,) = map(json.loads, listed.stdout.splitlines())
    assert (order["id"], order["host"], order["redelivered"]) == ("b", "host-1", False)
    assert "host-1" in command(database, "orders").stdout
    wrong = command(database, "orders", DISPATCH_LEDGER_PASSWORD=WRONG)
    assert (wrong.returncode, wrong.stdout) == (69, "")
    assert "refuses the password" in wrong.stderr


def test_a_backup_is_refused_with_the_command_that_makes_one(
    ledgers: Any, database: Database, tmp_path: Path, postgresql: Server
) -> None:
    ledgers().record(rows("a"))
    done = command(database, "ledger", "backup", str(tmp_path / "co py"))
    assert done.returncode == 1
    words = shlex.split(done.stderr.partition("copy it by: ")[2])
    environment = {**os.environ, "PGPASSWORD": database.password}
    subprocess.run(words, env=environment, check=True)
    other = postgresql.create("restored", migrated=False)
    into = [
        "pg_restore",
        "-h",
        str(postgresql.directory),
        "-p",
        str(postgresql.port),
        "-U",
        "postgres",
        "-d",
        other.name,
    ]
    subprocess.run([*into, words[3].partition("=")[2]], check=True)
    assert ids(other) == ["a"]


def test_a_host_s_own_ledger_is_taken_over_and_again(ledgers: Any, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    own = SqliteLedger(path, announcing=True)
    own.record([row(f"{number:04}") for number in range(2500)] + [row("nul", "a\0b")])
    own._db.execute("UPDATE dispatched SET dispatched_at = 1700000000123 WHERE id = '0007'")
    own.announced([order.seq for order in own.unannounced(2499)])
    fleet = ledgers(announcing=True)
    fleet.record(rows("0003"))
    assert take_over(database, path, "old-host") == (2500, 1)
    (order,) = read(database, 9, Filter(id="0007"))
    assert (order["dispatched_at"], order["host"]) == (1700000000123, "old-host")
    fleet._adopt_at = 0.0
    assert {order.id for order in fleet.unannounced(9)} == {"0003", "2499", "nul"}
    fleet.announced([order.seq for order in fleet.unannounced(9)])
    own.record(rows("later"))
    own.close()
    done = command(database, "ledger", "import", str(path))
    assert f"1 orders of {path} added to {database}, 2501 were there already" in done.stdout, done.stderr
    fleet._adopt_at = 0.0
    assert {order.id for order in fleet.unannounced(9)} == {"later"}


def test_no_file_and_no_ledger_are_no_orders(database: Database, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database" * 100)
    for name, told in (("none", "is no use"), ("text", "is damaged")):
        done = command(database, "ledger", "import", str(tmp_path / name))
        assert (done.returncode != 0, told in done.stderr) == (True, True), done.stderr
    unset = command(database, "ledger", "migrate", DISPATCH_LEDGER="", DISPATCH_LEDGER_PASSWORD="")
    assert (unset.returncode, unset.stderr) == (
        78, "bad setting: DISPATCH_LEDGER is not set; set the URL of the ledger's database.\n"
    )  # fmt: skip


def test_figures_are_those_of_the_last_look(ledgers: Any) -> None:
    ledger = ledgers(announcing=True)
    ledger.look()
    empty = ledger.size()
    ledger.record([row(f"{number:05}") for number in range(2000)])
    assert (ledger.size(), ledger.backlog().orders) == (empty, 0)
    ledger.look()
    assert ledger.size() > empty > 0
    assert ledger.backlog().orders == 2000
    assert 0 <= ledger.backlog().seconds < 60
