"""No order is taken for a duplicate of none, and no duplicate for a new order, wherever the index has its id."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_app.ledgers import bloom, index, tables
from dispatch_app.ledgers.bloom import BloomFilter
from dispatch_app.ledgers.port import AwayError, Filter, Row
from dispatch_app.ledgers.sqlite import SqliteLedger, backup, listing
from tests.integration.conftest import until


def rows(first: int, count: int) -> list[Row]:
    return [(f"order-{number}", "u", 1.5, 2, None, 0) for number in range(first, first + count)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ten latest ids, and thirty in a part."""
    monkeypatch.setattr(index, "LATEST", 10)
    monkeypatch.setattr(index, "PART", 30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    with closing(SqliteLedger(path)) as opened:
        yield opened


def fill(ledger: SqliteLedger, count: int) -> None:
    for first in range(0, count, 5):
        assert ledger.record(rows(first, 5)) == []


def parts(ledger: SqliteLedger) -> list[tuple[int, int]]:
    return [(part, last - tables.FIRST) for part, last in ledger._db.execute("SELECT * FROM parts ORDER BY part")]


def test_ids_are_found_in_each_part_and_among_the_latest(ledger: SqliteLedger) -> None:
    fill(ledger, 200)
    assert parts(ledger) == [(0, 30), (1, 60), (2, 90), (3, 120), (4, 150), (5, 180), (6, 190)]
    assert ledger._db.execute("SELECT count(*) FROM ids").fetchone() == (190,)
    assert ledger.record(rows(0, 201)) == list(range(200))
    assert ledger.known([row[0] for row in rows(150, 100)]) == {row[0] for row in rows(150, 51)}


def test_the_next_process_knows_what_a_killed_one_has_recorded(ledger: SqliteLedger, path: Path) -> None:
    fill(ledger, 45)
    with closing(SqliteLedger(path)) as other:  # the first one has not closed it
        assert other.record(rows(0, 46)) == list(range(45))
        assert other._db.execute("SELECT seq FROM dispatched WHERE id = 'order-45'").fetchone() == (tables.FIRST + 46,)


def test_a_batch_that_fails_while_ids_are_settled_is_recorded_later(ledger: SqliteLedger) -> None:
    fill(ledger, 10)
    ledger._db.execute("PRAGMA max_page_count=1")  # SQLite then answers as for a full disk
    ledger._db.execute(f"PRAGMA max_page_count={ledger._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(AwayError, match="full"):
        ledger.record(rows(10, 1000))
    assert ledger.known(["order-9", "order-10"]) == {"order-9"}
    ledger._db.execute("PRAGMA max_page_count=1000000")
    assert ledger.record(rows(9, 1001)) == [0]
    assert ledger.record(rows(0, 1011)) == list(range(1010))


def test_what_is_forgotten_leaves_the_index_and_its_number_is_not_given_again(ledger: SqliteLedger) -> None:
    fill(ledger, 65)
    ledger._db.execute("UPDATE dispatched SET dispatched_at = 1000")
    assert sum(ledger.forget(days=1, limit=7) for _ in range(12)) == 65
    assert ledger._db.execute("SELECT count(*) FROM ids").fetchone() == (0,)
    assert parts(ledger) == [(2, 65)]
    assert ledger.record(rows(60, 6)) == []
    assert ledger._db.execute("SELECT min(seq) FROM dispatched").fetchone() == (tables.FIRST + 66,)
    assert ledger.record(rows(64, 3)) == [0, 1]


def test_a_large_ledger_is_exact_before_its_filter_is_full_and_after(
    ledger: SqliteLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ledger, 100)
    ledger.close()
    monkeypatch.setattr(index, "_AT_ONCE", 0)
    monkeypatch.setattr(index, "_STEP", 7)
    begin = index.Filling.start
    waiting: list[Any] = []
    monkeypatch.setattr(index.Filling, "start", lambda *arguments: waiting.append(arguments))
    with closing(SqliteLedger(path)) as opened:
        assert opened.record(rows(90, 20)) == list(range(10))
        begin(*waiting[0])
        filling = waiting[0][0]
        until(lambda: bool(filling._full))
        assert opened.record(rows(0, 120)) == list(range(110))
        assert opened.known(["order-3", "order-119", "order-120"]) == {"order-3", "order-119"}


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_without_a_filter_each_id_is_looked_for(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(ledger, 50)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", no_space)
        assert ledger.record(rows(0, 60)) == list(range(50))
        assert ledger.record(rows(0, 61)) == list(range(60))
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        assert not ledger._index._filter
    assert ledger.record(rows(55, 20)) == list(range(6))
    assert ledger.record(rows(0, 76)) == list(range(75))
    assert ledger._index._filter


def test_a_filter_whose_ids_could_not_be_read_is_made_again(
    ledger: SqliteLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ledger, 50)
    ledger.close()
    monkeypatch.setattr(index, "_AT_ONCE", 0)

    def locked() -> sqlite3.Connection:
        raise sqlite3.OperationalError("database is locked")

    with closing(SqliteLedger(path)) as opened:
        made = opened._index
        with monkeypatch.context() as patched:
            patched.setattr(made, "_reader", locked)
            made._fill()
        first = made._filter
        assert first
        until(lambda: first.failed)
        assert opened.record(rows(0, 60)) == list(range(50))
        assert opened.record(rows(60, 10)) == []
        assert opened.record(rows(60, 11)) == list(range(10))
        assert made._filter is not first


def test_a_ledger_opens_where_a_filter_can_not_be_made(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "truncate", no_space)
    with closing(SqliteLedger(path)) as opened:
        assert opened.record(rows(0, 3)) == []
        assert opened.record(rows(0, 4)) == [0, 1, 2]
    assert "No space left" in caplog.text


def test_a_filter_that_gets_crowded_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_ROOM", 40)
    with closing(SqliteLedger(path)) as opened:
        first = opened._index._filter
        fill(opened, 100)
        assert opened._index._filter is not first
        assert opened._index._filter
        assert not opened._index._filter.crowded
        assert opened.record(rows(0, 101)) == list(range(100))


def test_the_index_is_used_for_what_is_looked_up(ledger: SqliteLedger) -> None:
    for query in tables.FIND:
        plan = " ".join(row[3] for row in ledger._db.execute(f"EXPLAIN QUERY PLAN {query}", ("x",)))
        assert "SEARCH" in plan, plan
        assert "SCAN orders" not in plan, plan
        assert "SCAN ids" not in plan, plan


@pytest.fixture
def saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger whose process has ended well, and whose ids are too many for a filter at once."""
    with closing(SqliteLedger(path)) as made:
        fill(made, 50)
        monkeypatch.setattr(index, "_AT_ONCE", 0)
    monkeypatch.setattr(index.Filling, "start", lambda *_: None)
    return path


def filled(ledger: SqliteLedger) -> bool:
    assert ledger.record(rows(40, 15)) == list(range(10))
    assert ledger._index._filter
    return ledger._index._filter._full


def test_the_filter_is_there_at_once_where_the_process_before_has_ended_well(saved: Path) -> None:
    for _ in range(2):
        with closing(SqliteLedger(saved)) as ledger:
            assert ledger._index._filter
            assert ledger._index._filter._full
            assert ledger._index._filter.possible(["order-3", "order-77"]) == ["order-3"]
            assert ledger._db.execute("SELECT count(*) FROM filter").fetchone() == (0,)
    with closing(SqliteLedger(saved)) as ledger:
        assert filled(ledger)


def test_the_filter_of_a_ledger_of_an_earlier_release_is_left_to_the_next_process_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteLedger(path).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO orders (id, redelivered, dispatched_at) VALUES (?, 0, 0)", [("a",), ("b",)])
    with closing(SqliteLedger(path)) as opened:
        monkeypatch.setattr(index, "_AT_ONCE", 0)
    monkeypatch.setattr(index.Filling, "start", lambda *_: None)
    with closing(SqliteLedger(path)) as opened:
        assert opened._index._filter
        assert opened._index._filter._full
        assert opened._index._filter.possible(["a", "c"]) == ["a"]


def test_a_filter_of_a_process_that_was_killed_is_not_used(saved: Path) -> None:
    killed = SqliteLedger(saved)
    killed.record(rows(50, 3))
    with closing(SqliteLedger(saved)) as ledger:
        assert ledger._index._filter
        assert not ledger._index._filter._full
        assert ledger.record(rows(40, 15)) == list(range(13))


def test_a_filter_of_an_earlier_state_of_the_ledger_is_not_used(saved: Path, tmp_path: Path) -> None:
    backup(saved, tmp_path / "backup")
    with closing(SqliteLedger(saved)) as ledger:
        ledger.record(rows(50, 3))
    saved.write_bytes((tmp_path / "backup").read_bytes())  # as a restoration does
    with closing(SqliteLedger(saved)) as ledger:
        assert not filled(ledger)


def test_a_filter_is_not_used_once_an_earlier_release_has_recorded_orders(saved: Path) -> None:
    with closing(sqlite3.connect(saved)) as db, db:
        db.execute("INSERT INTO orders (id, redelivered, dispatched_at) VALUES ('order-60', 0, 0)")
    with closing(SqliteLedger(saved)) as ledger:
        assert not filled(ledger)
        assert ledger.record(rows(60, 2)) == [0]


def test_a_filter_that_is_gone_or_foreign_is_not_used(saved: Path) -> None:
    path = Path(f"{saved}-filter")
    content = path.read_bytes()
    for other in (None, content[:-1], content + b"x", b""):
        path.unlink(missing_ok=True)
        if other is not None:
            path.write_bytes(other)
        copy = saved.with_name("copy.db")
        copy.write_bytes(saved.read_bytes())
        if other is not None:
            path.rename(f"{copy}-filter")
        with closing(SqliteLedger(copy)) as ledger:
            assert not filled(ledger)
        path.write_bytes(content)


@pytest.mark.parametrize("wanted", [Filter(), Filter(since=1), Filter(id="x"), Filter(user="u")])
def test_the_newest_orders_are_read_without_all_others(ledger: SqliteLedger, wanted: Filter) -> None:
    query, values = listing(wanted, "all_orders")
    plan = " ".join(row[3] for row in ledger._db.execute(f"EXPLAIN QUERY PLAN {query}", (*values, 9)))
    assert "TEMP B-TREE" not in plan, plan
    assert ("SCAN dispatched" in plan) == (wanted.id is None), plan


@given(known=st.sets(st.text()), asked=st.sets(st.text()))
def test_the_filter_denies_no_id_that_it_has(
    tmp_path_factory: pytest.TempPathFactory, known: set[str], asked: set[str]
) -> None:
    with closing(BloomFilter(tmp_path_factory.mktemp("filter") / "filter", 64)) as made:
        made.add(known)
        assert known <= set(made.possible(known | asked))
        assert set(made.possible(asked)) <= set(made.add(asked))


def test_the_filter_rarely_takes_a_new_id_for_a_known_one(tmp_path: Path) -> None:
    assert bloom._OCTETS * 8 == 16
    with closing(BloomFilter(tmp_path / "filter", 100_000)) as made:
        made.add(row[0] for row in rows(0, 100_000))
        assert len(made.possible(row[0] for row in rows(100_000, 100_000))) < 2_500
        assert not made.crowded
