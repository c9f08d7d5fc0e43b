"""One ledger for two Dispatch hosts, in a PostgreSQL that the roles provision, with a replica; and what they refuse."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from tests.integration.conftest import booted, order, until
from tests.integration.shop import Shop
from tests.lab.ansible import Run
from tests.lab.hosts import Host, Lab, await_boot
from tests.lab.inventory import copied
from tests.second_engine import deploy

pytestmark = pytest.mark.long

BROKER, PRIMARY, REPLICA, FIRST, SECOND = (
    "fleet-broker",
    "fleet-db-1",
    "fleet-db-2",
    "fleet-dispatch-1",
    "fleet-dispatch-2",
)
AMQP = 22751
SUBNET = "172.31.226.0/24"
SERVER = "postgresql@15-main"
LEDGER = f"postgresql://dispatch@{PRIMARY},{REPLICA}/dispatch"


class Fleet(Shop):
    """A broker, two databases and two Dispatch hosts in a user's inventory."""

    ledger_password = ""

    def play(self, book: str, *arguments: str, **variables: object) -> Run:
        run = self.playbook(book, "--diff", *arguments, **variables)
        assert self.ledger_password not in run.output
        return run

    def refused(self, book: str, **variables: object) -> str:
        """Run a playbook, which has to fail without a change; return what was said, without what only lays it out."""
        run = self.play(book, **variables)
        assert run.code != 0, run.output
        assert run.changed == 0, run.output
        return " ".join(run.output.split())

    def sql(self, host: str, statement: str, database: str = "dispatch") -> str:
        return self.run(host, f'runuser -u postgres -- psql -XAtq -d {database} -c "{statement}"')

    def started(self, host: str, unit: str) -> str:
        """What tells one start of a unit from another."""
        return self.run(host, f"systemctl show {unit} -p MainPID -p ActiveEnterTimestampMonotonic")

    def dispatched(self, order_id: str) -> list[dict[str, Any]]:
        """What the ledger says of an order."""
        said = self.run(FIRST, f"dispatch orders --json --id {order_id}")
        return [dict(json.loads(line)) for line in said.splitlines()]

    @contextlib.contextmanager
    def channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        login = pika.PlainCredentials("roboshop", self.password)
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", AMQP, credentials=login))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def publish(self, body: dict[str, Any]) -> None:
        with self.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish("robot-shop", "orders", json.dumps(body).encode(), mandatory=True)

    def waiting(self) -> int:
        with self.channel() as channel:
            return int(channel.queue_declare("orders", passive=True).method.message_count)

    def duplicates(self, host: str) -> float:
        """How many orders a host has found in the ledger already."""
        metrics = self.run(host, "curl -fsS http://127.0.0.1:9672/metrics")
        return sum(map(float, re.findall(r"^dispatch_\w*duplicate\w*_total(?:\{.*\})? (\S+)$", metrics, re.MULTILINE)))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    hosts = (
        Host(BROKER, "rabbitmq", 22701, ((5672, AMQP),)),
        Host(PRIMARY, "postgresql", 22702),
        Host(REPLICA, "postgresql", 22703),
        Host(FIRST, "dispatch", 22704),
        Host(SECOND, "dispatch", 22705),
    )
    lab = Lab("fleet", directory / ".lab", hosts, SUBNET)
    with booted(lab) as client:
        passwords = uuid.uuid4().hex, uuid.uuid4().hex
        for name, password in zip(("amqp_password", "ledger_password"), passwords, strict=True):
            (lab.state / name).write_text(password + "\n")
        made = Fleet(client, lab, copied(lab, directory, BROKER), passwords[0])
        made.ledger_password = passwords[1]
        preview = made.play("site", "--check", "--limit", "postgresql")
        assert preview.code == 0, preview.output
        run = made.play("site", "-vvv")
        assert run.code == 0, run.output
        yield made


def test_neither_engine_has_anything_left_to_change(fleet: Fleet) -> None:
    run = fleet.play("site")
    assert (run.code, run.changed) == (0, 0), run.output
    preview = fleet.play("site", "--check")
    assert (preview.code, preview.changed) == (0, 0), preview.output
    second = deploy(fleet.inventory, "--yes")
    assert (second.code, second.changed) == (0, {}), second.output
    fleet.run(FIRST, "dpkg --remove --force-depends libpq5")
    mended = deploy(fleet.inventory, "--yes", "--limit", FIRST)
    assert list(mended.changed.values()) == [[FIRST]], mended.output
    assert fleet.play("dispatch").changed == 0


def test_an_order_published_twice_is_dispatched_once_over_the_fleet(fleet: Fleet) -> None:
    body = order()
    for host, other in ((FIRST, SECOND), (SECOND, FIRST)):
        fleet.run(other, "systemctl stop dispatch")
        fleet.publish(body)
        until(lambda: len(fleet.dispatched(body["orderid"])) == 1)
        until(lambda host=host: fleet.duplicates(host) == (host == SECOND))  # type: ignore[misc]
        fleet.run(other, "systemctl start dispatch")
    (found,) = fleet.dispatched(body["orderid"])
    assert found["host"] == FIRST
    table = fleet.play("find", "-e", f"order={body['orderid']}")
    assert table.output.count(body["orderid"]) == 1, table.output
    assert fleet.waiting() == 0
    # What a host keeps of its own is no ledger, but which orders it died over.
    assert fleet.run(FIRST, "ls /var/lib/dispatch") == fleet.run(SECOND, "ls /var/lib/dispatch") == "in-hand"


def test_dispatch_s_role_may_do_what_dispatch_does_and_nothing_else(fleet: Fleet) -> None:
    as_dispatch = "SET ROLE dispatch; {}".format
    fleet.sql(PRIMARY, as_dispatch("SELECT count(*) FROM dispatch.orders"))
    for forbidden in (
        "DROP TABLE dispatch.orders", "UPDATE dispatch.orders SET host = id", "CREATE TABLE public.mine (a int)",
        "CREATE SCHEMA mine", "CREATE TEMP TABLE mine (a int)", "UPDATE dispatch.version SET version = 2",
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=r"permission denied|must be owner"):
            fleet.sql(PRIMARY, as_dispatch(forbidden))
    # Without TLS, or from elsewhere than Dispatch's hosts, nobody gets so far as to say a password.
    for host, mode, said in ((SECOND, "disable", "no encryption"), (BROKER, "require", "no pg_hba.conf entry")):
        fleet.run(
            host, "command -v psql || { apt-get update -qq && apt-get install -qq postgresql-client; } >/dev/null 2>&1"
        )
        with pytest.raises(AssertionError, match=said):
            fleet.run(host, f"psql 'postgresql://dispatch:x@{PRIMARY}/dispatch?sslmode={mode}' -c 'SELECT 1'")


def test_what_can_t_work_is_refused_by_name_before_the_switch(fleet: Fleet) -> None:
    before = {host: fleet.started(host, "dispatch") for host in (FIRST, SECOND)}
    said = fleet.refused("dispatch", dispatch_ledger_password="wrong")  # noqa: S106 - no one's
    assert "refuses the password of dispatch" in said
    assert "ledger_password" in said
    said = fleet.refused("dispatch", dispatch_ledger=f"postgresql://dispatch@{REPLICA}/dispatch")
    assert "what answers is a replica" in said
    said = fleet.refused("dispatch", dispatch_ledger=f"postgresql://dispatch@{PRIMARY}/other")
    assert "/other" in said
    said = fleet.refused("dispatch", dispatch_ledger=f"postgresql://dispatch@{PRIMARY}")
    assert "dispatch_ledger names no database" in said
    assert before == {host: fleet.started(host, "dispatch") for host in (FIRST, SECOND)}


def test_rights_that_are_missing_and_a_newer_schema_are_refused_by_name(fleet: Fleet) -> None:
    before = {host: fleet.started(host, "dispatch") for host in (FIRST, SECOND)}
    change = {"dispatch_environment": {"DISPATCH_RETENTION_DAYS": 90}}
    fleet.sql(PRIMARY, "REVOKE INSERT ON dispatch.orders FROM dispatch")
    said = fleet.refused("dispatch", **change)
    assert "dispatch lacks rights at" in said
    assert "INSERT on orders" in said
    assert "dispatch ledger migrate" in said
    assert fleet.play("postgresql").code == 0  # which grants them
    fleet.sql(PRIMARY, "UPDATE dispatch.version SET version = 99")
    for book in ("dispatch", "postgresql"):
        said = fleet.refused(book, **change)
        assert "is of version 99, and this release knows version" in said
        assert "deploy the release that made it, or a later one" in said
    fleet.sql(PRIMARY, "UPDATE dispatch.version SET version = 1")
    assert before == {host: fleet.started(host, "dispatch") for host in (FIRST, SECOND)}
    body = order()
    fleet.publish(body)
    until(lambda: len(fleet.dispatched(body["orderid"])) == 1)


def test_a_replica_that_is_named_as_the_primary_is_refused(fleet: Fleet) -> None:
    said = fleet.refused("postgresql", postgresql_primary=REPLICA)
    assert "postgresql_primary names this host, and its PostgreSQL is a replica" in said
    assert "it has databases of its own" in said


def test_a_setting_restarts_the_server_only_where_it_asks_for_that(fleet: Fleet) -> None:
    before = fleet.started(PRIMARY, SERVER)
    run = fleet.play("postgresql", "--limit", PRIMARY, postgresql_settings={"work_mem": "8MB"})
    assert (run.code, run.recap[PRIMARY]["changed"]) == (0, 1), run.output
    assert fleet.sql(PRIMARY, "SHOW work_mem") == "8MB"
    assert fleet.started(PRIMARY, SERVER) == before
    run = fleet.play("postgresql", "--limit", PRIMARY, postgresql_settings={"shared_buffers": "128MB"})
    assert (run.code, run.recap[PRIMARY]["changed"]) == (0, 1), run.output
    assert fleet.sql(PRIMARY, "SHOW shared_buffers") == "128MB"
    assert fleet.sql(PRIMARY, "SHOW work_mem") == "4MB"
    assert fleet.started(PRIMARY, SERVER) != before
    assert fleet.play("postgresql").code == 0


def test_a_commit_waits_for_the_replica_where_that_is_asked_for(fleet: Fleet) -> None:
    run = fleet.play("postgresql", postgresql_synchronous=True)
    assert run.code == 0, run.output
    state = "SELECT application_name, sync_state FROM pg_stat_replication"
    until(lambda: fleet.sql(PRIMARY, state) == f"{REPLICA}|quorum")
    assert fleet.play("postgresql").code == 0
    until(lambda: fleet.sql(PRIMARY, state) == f"{REPLICA}|async")


def test_a_bad_setting_is_refused_and_one_that_keeps_the_server_from_starting_undone(fleet: Fleet) -> None:
    conf = "cat /etc/postgresql/15/main/conf.d/*"
    before, files = fleet.started(PRIMARY, SERVER), fleet.run(PRIMARY, conf)
    for wrong in ({"shared_buffers": "plenty"}, {"no_such_setting": 1}):
        said = fleet.refused("postgresql", postgresql_settings=wrong)
        assert "PostgreSQL does not take its new settings" in said
        assert next(iter(wrong)) in said
    assert (fleet.started(PRIMARY, SERVER), fleet.run(PRIMARY, conf)) == (before, files)
    run = fleet.play("postgresql", "--limit", PRIMARY, postgresql_settings={"shared_buffers": "900GB"})
    assert run.code != 0
    said = " ".join(run.output.split())
    assert "the previous one is back and PostgreSQL runs with it" in said
    assert "could not map anonymous shared memory" in said or "Cannot allocate memory" in said
    assert fleet.run(PRIMARY, conf) == files
    body = order()
    fleet.publish(body)
    until(lambda: len(fleet.dispatched(body["orderid"])) == 1, 60)


def test_a_replica_takes_the_primary_s_place_and_orders_go_on(fleet: Fleet) -> None:
    first, second = order(), order()
    fleet.publish(first)
    until(lambda: len(fleet.dispatched(first["orderid"])) == 1)
    run = fleet.play("promote", "-e", f"host={REPLICA}")
    assert run.code == 0, run.output
    assert f"Set postgresql_primary: {REPLICA} in the inventory" in " ".join(run.output.split())
    fleet.publish(second)
    until(lambda: len(fleet.dispatched(second["orderid"])) == 1, 60)
    assert len(fleet.dispatched(first["orderid"])) == 1
    again = fleet.play("promote", "-e", f"host={REPLICA}")
    assert (again.code, again.changed) == (0, 0), again.output
    # The inventory still names the one that was taken out of service.
    assert "was taken out of service when another one took its place" in fleet.refused("postgresql")
    assert "databases of its own" in fleet.refused("postgresql", postgresql_primary=REPLICA)
    rebuilt = fleet.play("postgresql", postgresql_primary=REPLICA, postgresql_rebuild=PRIMARY)
    assert rebuilt.code == 0, rebuilt.output
    assert fleet.sql(REPLICA, "SELECT application_name, state FROM pg_stat_replication") == f"{PRIMARY}|streaming"
    settled = fleet.play("postgresql", postgresql_primary=REPLICA)
    assert (settled.code, settled.changed) == (0, 0), settled.output


def test_a_replica_takes_the_place_of_a_primary_that_can_t_be_reached(fleet: Fleet) -> None:
    # The test before has left them with each other's part.
    fleet.client.containers.get(REPLICA).kill()
    try:
        run = fleet.play("promote", "-e", f"host={PRIMARY}", postgresql_primary=REPLICA)
        assert run.recap[PRIMARY]["changed"] == 1, run.output
        assert f"Set postgresql_primary: {PRIMARY} in the inventory" in " ".join(run.output.split())
        body = order()
        fleet.publish(body)
        until(lambda: len(fleet.dispatched(body["orderid"])) == 1, 60)
    finally:
        fleet.client.containers.get(REPLICA).start()
        await_boot(fleet.client.containers.get(REPLICA))
    assert "databases of its own" in fleet.refused("postgresql")
    rebuilt = fleet.play("postgresql", postgresql_rebuild=REPLICA)
    assert rebuilt.code == 0, rebuilt.output
    assert fleet.sql(PRIMARY, "SELECT application_name, state FROM pg_stat_replication") == f"{REPLICA}|streaming"


def test_it_is_removed_and_the_data_only_where_that_is_asked_for(fleet: Fleet) -> None:
    run = fleet.play("remove")
    assert run.code == 0, run.output
    assert fleet.run(PRIMARY, "ls /var/lib/postgresql/15/main/PG_VERSION && ! ls /usr/lib/postgresql/15/bin/postgres")
    assert fleet.run(PRIMARY, "find /etc/postgresql -name '*roboshop*' -o -name tls") == ""
    assert fleet.play("remove", postgresql_remove_data=True).code == 0
    fleet.run(PRIMARY, "test ! -e /var/lib/postgresql && test ! -e /etc/postgresql")
