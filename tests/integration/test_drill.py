"""A drill: every host is destroyed and made anew, and gets back from a backup what its shop can't do without."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import TestLab, booted, order, until
from tests.lab import image
from tests.lab.ansible import Run
from tests.lab.hosts import Host, Lab, execute
from tests.lab.inventory import copied

pytestmark = pytest.mark.long

BROKER, DATABASE, DISPATCH = "drill-broker", "drill-db", "drill-dispatch"
AMQP = 22851
SAVED, LATER = 500, 20  # orders that are dispatched before the last backup, and after it
# An operator's own user, which no inventory knows.
OPERATOR = ("ops", "an-operator-s-own")


@dataclass(frozen=True)
class Drill:
    """A shop that is to be destroyed, and where its backups are kept."""

    lab: TestLab
    backups: Path
    books: tuple[str, ...]  # that make its servers anew, before anything is restored

    def play(self, book: str, *arguments: str) -> Run:
        run = self.lab.playbook(book, "--diff", "-e", f"backup_directory={self.backups}", *arguments)
        assert self.lab.password not in run.output
        return run

    def done(self, book: str, *arguments: str) -> Run:
        run = self.play(book, *arguments)
        assert run.code == 0, run.output
        return run

    def publish(self, ids: list[str]) -> None:
        with contextlib.closing(self.lab.connect(BROKER)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for one in ids:
                channel.basic_publish("robot-shop", "orders", json.dumps(order(one)).encode(), mandatory=True)

    def metric(self, name: str) -> float:
        metrics = self.lab.run(DISPATCH, "curl", "-fsS", "http://127.0.0.1:9672/metrics")
        (value,) = re.findall(rf"^{name} (\S+)$", metrics, re.MULTILINE)
        return float(value)

    def known(self) -> list[str]:
        """The ids in the ledger."""
        lines = self.lab.run(DISPATCH, "dispatch", "orders", "--json", "--limit", "100000").splitlines()
        return [json.loads(line)["id"] for line in lines]

    def destroy(self) -> None:
        """Take every host away with its disks, and boot new ones of the same names."""
        self.lab.lab.down(self.lab.client)
        self.lab.lab.up(self.lab.client, image.ensure(self.lab.client))


@pytest.fixture(scope="module", params=["own", "fleet"])
def drill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """A shop whose Dispatch has a ledger of its own, and one whose ledger is the fleet's."""
    directory, shared = tmp_path_factory.mktemp("drill"), request.param == "fleet"
    database = (Host(DATABASE, "postgresql", 22803),) if shared else ()
    hosts = (Host(BROKER, "rabbitmq", 22801, ((5672, AMQP),)), Host(DISPATCH, "dispatch", 22802), *database)
    lab = Lab("drill", directory / ".lab", hosts)
    with booted(lab) as client:
        password = uuid.uuid4().hex
        (lab.state / "amqp_password").write_text(f"{password}\n")
        test_lab = TestLab(client, lab, copied(lab, directory, BROKER), password, {BROKER: AMQP})
        made = Drill(test_lab, directory / "backups", ("rabbitmq", "postgresql") if shared else ("rabbitmq",))
        made.done("site")
        yield made


def test_nothing_that_was_saved_is_lost_or_dispatched_twice(drill: Drill, capsys: pytest.CaptureFixture[str]) -> None:
    lab = drill.lab
    lab.run(BROKER, "rabbitmqctl", "add_user", *OPERATOR)
    saved, later = ([str(uuid.uuid4()) for _ in range(count)] for count in (SAVED, LATER))
    drill.publish(saved)
    until(lambda: drill.metric("dispatch_orders_dispatched_total") == SAVED)
    assert drill.metric("dispatch_backup_last_success_timestamp_seconds") == 0

    begun = time.time()
    backup = drill.done("backup")
    backed_up = time.time()
    assert OPERATOR[1] not in backup.output
    assert "password_hash" not in backup.output
    assert int(begun) <= drill.metric("dispatch_backup_last_success_timestamp_seconds") <= backed_up
    drill.publish(later)
    until(lambda: drill.metric("dispatch_orders_dispatched_total") == SAVED + LATER)

    drill.destroy()
    booted = time.time()
    for book in drill.books:
        drill.done(book)
    servers = time.time()
    preview = drill.done("restore", "--check")
    assert preview.changed > 0
    checked = time.time()
    drill.done("restore")
    restored = time.time()
    drill.done("dispatch")
    drill.done("doctor", "-e", f"dispatch_doctor_page={drill.backups}/doctor.html")
    healthy = time.time()
    recovery = healthy - booted - (checked - servers)

    there = {*drill.known()}
    assert there == {*saved}
    assert execute(lab.host(BROKER), "rabbitmqctl", "authenticate_user", *OPERATOR)[0] == 0
    again = drill.done("restore")
    assert again.changed == 0, again.output

    drill.publish(saved + later)
    until(lambda: drill.metric("dispatch_orders_received_total") == SAVED + LATER)
    until(lambda: drill.metric("dispatch_orders_in_flight") == 0)
    doubled = drill.metric("dispatch_orders_dispatched_total") - LATER
    assert drill.metric("dispatch_orders_duplicate_total") == SAVED
    assert doubled == 0
    assert sorted(drill.known()) == sorted(saved + later)
    settled = drill.done("restore")
    assert settled.changed == 0, settled.output

    kind = "the fleet's" if DATABASE in backup.recap else "the host's own"
    with capsys.disabled():
        print(f"\n{'ledger':<16}{'orders dispatched':<20}{'lost':>6}{'doubled':>9}")
        print(f"{kind:<16}{f'{SAVED} before it':<20}{SAVED - len(there & {*saved}):>6}{doubled:>9.0f}")
        print(f"{kind:<16}{f'{LATER} after it':<20}{LATER - len(there & {*later}):>6}{LATER:>9}")
        seconds = (("backup", backed_up - begun), ("restore", restored - checked), ("from booted to healthy", recovery))
        print(", ".join(f"{name} {taken:.0f} s" for name, taken in seconds))


def test_a_ledger_that_has_gone_on_without_the_backup_is_not_overwritten(drill: Drill) -> None:
    """After the drill above: the ledger is lost once more, and orders are dispatched before anybody restores it."""
    lab, fresh = drill.lab, str(uuid.uuid4())
    if DATABASE in [host.name for host in lab.lab.hosts]:
        script = "runuser -u postgres -- psql -d dispatch -c 'TRUNCATE dispatch.orders, dispatch.unannounced'"
        lab.run(DATABASE, "sh", "-c", script)
        holder = DATABASE
    else:
        lab.run(
            DISPATCH, "sh", "-c", "systemctl stop dispatch; rm /var/lib/dispatch/ledger.db*; systemctl start dispatch"
        )
        holder = DISPATCH
    drill.publish([fresh])
    until(lambda: drill.known() == [fresh])
    refused = drill.play("restore")
    assert refused.code != 0
    assert refused.changed == 0, refused.output
    said = " ".join(refused.output.split())
    assert f"such as {fresh}" in said
    assert f"-e backup_overwrite={holder}" in said
    assert drill.known() == [fresh]
    drill.done("restore", "-e", f"backup_overwrite={holder}")
    assert len(drill.known()) == SAVED
    drill.done("doctor", "-e", f"dispatch_doctor_page={drill.backups}/doctor.html")
