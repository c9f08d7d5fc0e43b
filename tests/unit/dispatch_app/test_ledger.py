"""The ledger: durable once, duplicates found, damage and faults told apart, copies consistent."""

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dispatch_app.ledgers.port import AwayError, ClockError, Filter, LedgerError, Row
from dispatch_app.ledgers.sqlite import SqliteLedger, backup, read
from dispatch_app.service import Service
from dispatch_app.settings import load
from tests.integration.conftest import until

ANY = Filter()
SETTINGS = load({"AMQP_HOST": "a", "AMQP_PASS": "b"})


def row(order_id: str, user: str = "u") -> Row:
    return (order_id, user, 1.5, 2, "corr", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a %? dir" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    path.parent.mkdir()
    opened = SqliteLedger(path)
    yield opened
    opened.close()


def ids(path: Path, limit: int = 100, wanted: Filter = ANY) -> list[str]:
    return [order["id"] for order in read(path, limit, wanted)]


def test_orders_are_kept_and_read_newest_first(ledger: SqliteLedger, path: Path) -> None:
    assert ledger.record([row("a"), row("b", "v")]) == []
    assert ledger.record([row("c")]) == []
    assert ids(path) == ["c", "b", "a"]
    assert ids(path, limit=1) == ["c"]
    assert ids(path, wanted=Filter(user="v")) == ["b"]
    assert ids(path, wanted=Filter(id="zzz")) == []
    (order,) = read(path, 9, Filter(id="a"))
    assert (order["user"], order["total"], order["items"], order["correlation_id"]) == ("u", 1.5, 2, "corr")


def test_duplicates_are_found_across_batches_and_within_one(ledger: SqliteLedger, path: Path) -> None:
    ledger.record([row("a")])
    assert ledger.record([row("b"), row("a"), row("c"), row("c"), row("b")]) == [1, 3, 4]
    assert ledger.record([row("a"), row("b")]) == [0, 1]
    assert sorted(ids(path)) == ["a", "b", "c"]


def test_known(ledger: SqliteLedger) -> None:
    ledger.record([row("a")])
    assert ledger.known(["a", "b"]) == {"a"}


def test_a_failed_batch_leaves_nothing_and_can_be_tried_again(ledger: SqliteLedger, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AwayError, match="locked"):
        ledger.record([row("a")])
    other.execute("ROLLBACK")
    other.close()
    assert ids(path) == []
    assert ledger.record([row("a")]) == []


def test_a_full_disk_is_an_error_and_no_loss(ledger: SqliteLedger, path: Path) -> None:
    ledger.record([row("before")])
    ledger._db.execute("PRAGMA max_page_count=1")  # SQLite then answers as for a full disk
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(AwayError, match="full"):
        ledger.record([row(f"{number:0100}") for number in range(1000)])
    assert ids(path) == ["before"]


def test_every_commit_is_synced(ledger: SqliteLedger) -> None:
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_retention_forgets_the_old_in_bites(ledger: SqliteLedger, path: Path) -> None:
    ledger.record([row(f"old-{number}") for number in range(5)])
    ledger._db.execute("UPDATE dispatched SET dispatched_at = 1000")
    ledger.record([row("new")])
    assert ledger.forget(days=1, limit=3) == 3
    assert ledger.forget(days=1, limit=3) == 2
    assert ledger.forget(days=1, limit=3) == 0
    assert ids(path) == ["new"]


DAY = 86_400_000  # milliseconds


def test_orders_recorded_while_the_clock_was_ahead_don_t_keep_others_from_being_forgotten(
    ledger: SqliteLedger, path: Path
) -> None:
    ledger.record([row(f"ahead-{number}") for number in range(5000)])
    ledger._db.execute("UPDATE dispatched SET dispatched_at = dispatched_at + ?", (400 * DAY,))
    ledger.record([row(f"old-{number}") for number in range(60_000)])
    ledger._db.execute("UPDATE dispatched SET dispatched_at = dispatched_at - ? WHERE id LIKE 'old%'", (2 * DAY,))
    ledger.record([row("new")])
    assert sum(ledger.forget(days=1) for _ in range(30)) == 60_000
    assert len(ids(path, 10**9)) == 5001


def test_nothing_is_forgotten_while_the_clock_is_far_ahead(
    ledger: SqliteLedger, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.record([row("a"), row("b")])
    ledger.close()
    now = time.time() + 100 * 86400
    monkeypatch.setattr("dispatch_app.ledgers.sqlite.time.time", lambda: now)
    monkeypatch.setattr("dispatch_app.ledgers.sqlite.time.time_ns", lambda: int(now * 1e9))
    opened = SqliteLedger(path)
    opened.record([row("c")])  # which is recorded as of then
    with pytest.raises(ClockError):
        opened.forget(days=30)
    service = Service(replace(SETTINGS, retention_days=30), opened, None, path.parent)
    for _ in range(3):
        service._forget()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["no order is deleted"]
    service._loop.close()
    assert opened.forget(days=101) == 0
    opened.close()
    assert ids(path) == ["c", "b", "a"]


def test_a_long_run_is_no_clock_ahead(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    opened = SqliteLedger(path)
    opened.record([row("a")])
    later, ticks = time.time() + 100 * 86400, time.monotonic() + 100 * 86400
    monkeypatch.setattr("dispatch_app.ledgers.sqlite.time.time", lambda: later)
    monkeypatch.setattr("dispatch_app.ledgers.sqlite.time.monotonic", lambda: ticks)
    assert opened.forget(days=30) == 1
    opened.close()


def test_a_damaged_file_is_told_from_one_that_cannot_be_opened(tmp_path: Path) -> None:
    damaged = tmp_path / "ledger.db"
    damaged.write_bytes(b"no database at all" * 300)
    with pytest.raises(LedgerError, match="is damaged") as caught:
        SqliteLedger(damaged)
    assert caught.value.damaged
    with pytest.raises(LedgerError, match="is no use") as caught:
        SqliteLedger(tmp_path / "missing" / "ledger.db")
    assert not caught.value.damaged


def damaged_inside(path: Path, orders: int = 2000, page: int = 8) -> None:
    ledger = SqliteLedger(path)
    ledger.record([row(f"order-{number}") for number in range(orders)])
    ledger.close()
    content = bytearray(path.read_bytes())
    content[page * 4096 : (page + 4) * 4096] = b"\xa5" * (4 * 4096)
    path.write_bytes(content)


def test_damage_inside_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    damaged_inside(path)
    with pytest.raises(LedgerError, match="is damaged"):
        SqliteLedger(path)


def test_a_large_file_is_looked_through_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatch_app.ledgers.soundness.AT_ONCE", 0)
    monkeypatch.setattr("dispatch_app.ledgers.soundness.LATER", 0)
    ledger = SqliteLedger(tmp_path / "sound.db")
    ledger.record([row("a")])
    assert ledger.damage is None
    ledger.close()
    path = tmp_path / "ledger.db"
    damaged_inside(path, 20_000, 100)  # more than are read at the start
    ledger = SqliteLedger(path)
    until(lambda: ledger.damage is not None)
    assert ledger.damage
    assert "is damaged" in str(ledger.damage)
    assert ledger.damage.damaged
    ledger.close()


@pytest.mark.parametrize("later", [0.0, 60.0])
def test_a_look_ends_with_its_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: float) -> None:
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path)
    ledger.record([row(f"order-{number}") for number in range(20_000)])
    ledger.close()
    monkeypatch.setattr("dispatch_app.ledgers.soundness.AT_ONCE", 0)
    monkeypatch.setattr("dispatch_app.ledgers.soundness.LATER", later)
    SqliteLedger(path).close()
    assert all(thread.name != "ledger-look" for thread in threading.enumerate())


def test_a_backup_is_whole_while_the_ledger_is_written(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    begun, enough = threading.Event(), threading.Event()
    batch = 50

    def write() -> None:
        ledger = SqliteLedger(path)
        numbers = itertools.count()
        while not enough.is_set():
            ledger.record([row(f"order-{next(numbers)}") for _ in range(batch)])
            begun.set()
        ledger.close()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    counts = [backup(path, tmp_path / f"copy-{number}.db") for number in range(5)]
    enough.set()
    writer.join()
    assert counts[0] < len(ids(path, 10**9))
    for number, count in enumerate(counts):
        copy = tmp_path / f"copy-{number}.db"
        # Whole transactions, the first ones, and nothing else.
        assert set(ids(copy, 10**9)) == {f"order-{one}" for one in range(count)}
        assert count % batch == 0
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.glob("copy*"))) == len(counts)


@pytest.mark.usefixtures("ledger")
def test_a_backup_overwrites_nothing(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    with pytest.raises(FileExistsError):
        backup(path, target)
    assert target.read_text() == "keep me"


def test_size_counts_the_log_too(ledger: SqliteLedger, path: Path) -> None:
    ledger.record([row("a")])
    assert ledger.size() > path.stat().st_size
