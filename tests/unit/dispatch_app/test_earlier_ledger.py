"""A ledger of the earlier generation goes on in place, and a release that is rolled back to goes on with it, too."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from dispatch_app.ledgers import tables
from dispatch_app.ledgers.port import Filter, LedgerError, Row
from dispatch_app.ledgers.sqlite import SqliteLedger, backup, batches, read

ANY = Filter()
DAY = 86_400_000  # milliseconds
# What releases before this generation do, word for word.
SCHEMA = """CREATE TABLE IF NOT EXISTS orders (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  user TEXT,
  total REAL,
  items INTEGER,
  correlation_id TEXT,
  redelivered INTEGER NOT NULL,
  dispatched_at INTEGER NOT NULL -- milliseconds since 1970, UTC
)"""
INSERT = """INSERT INTO orders (id, user, total, items, correlation_id, redelivered, dispatched_at)
  VALUES (?, ?, ?, ?, ?, ?, {now}) ON CONFLICT (id) DO NOTHING"""
LIST = "CREATE TABLE IF NOT EXISTS unannounced (seq INTEGER PRIMARY KEY) -- of `orders`"
ORPHANS = "DELETE FROM unannounced WHERE seq NOT IN (SELECT seq FROM orders)"
TO_ANNOUNCE = "INSERT OR IGNORE INTO unannounced SELECT seq FROM orders WHERE seq > ?"


def row(order_id: str) -> Row:
    return (order_id, "u", 1.5, 2, "corr", 0)


def earlier(path: Path, *ids: str, announcing: bool = False) -> list[str]:
    """Record orders as an earlier release does; return those that it takes for new ones."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        assert db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        db.execute(SCHEMA)
        if announcing:
            db.execute(LIST)
            db.execute(ORPHANS)
        db.execute("SELECT dispatched_at FROM orders ORDER BY seq DESC LIMIT 1")
        db.execute("BEGIN IMMEDIATE")
        last = db.execute("SELECT max(seq) FROM orders").fetchone()[0] or 0
        db.executemany(INSERT.format(now=time.time_ns() // 1_000_000), map(row, ids))
        fresh = [order_id for (order_id,) in db.execute("SELECT id FROM orders WHERE seq > ? ORDER BY seq", (last,))]
        if announcing:
            db.execute(TO_ANNOUNCE, (last,))
        db.execute("COMMIT")
    return fresh


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def ids(path: Path, wanted: Filter = ANY) -> list[str]:
    return [order["id"] for order in read(path, 10**9, wanted)]


def test_orders_of_an_earlier_release_are_known_and_read(path: Path, tmp_path: Path) -> None:
    earlier(path, "a", "b")
    assert ids(path) == ["b", "a"]
    with closing(SqliteLedger(path)) as ledger:
        assert ledger.record([row("c"), row("a"), row("d"), row("b"), row("c")]) == [1, 3, 4]
        assert ledger.known(["a", "c", "e"]) == {"a", "c"}
        assert ids(path) == ["d", "c", "b", "a"]
        assert [ids(path, Filter(id=one)) for one in "ade"] == [["a"], ["d"], []]
        assert [[order["id"] for order in batch] for batch in batches(path)] == [["a", "b"], ["c", "d"]]
        assert backup(path, tmp_path / "copy.db") == 4
    assert sorted(ids(tmp_path / "copy.db")) == ["a", "b", "c", "d"]


def test_a_ledger_of_an_earlier_release_is_copied_and_read_as_it_is(path: Path, tmp_path: Path) -> None:
    earlier(path, "a", "b", announcing=True)
    before = path.read_bytes()
    assert backup(path, tmp_path / "copy.db") == 2
    assert [[(order["id"], order["listed"]) for order in batch] for batch in batches(path)] == [[("a", 1), ("b", 1)]]
    assert ids(path, Filter(id="b")) == ["b"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("killed", [True, False])
def test_an_earlier_release_that_is_rolled_back_to_knows_all_orders(path: Path, tmp_path: Path, killed: bool) -> None:
    earlier(path, "a")
    ledger = SqliteLedger(path)
    ledger.record([row("b"), row("c")])
    if killed:  # what is on the disk now is what a kill leaves
        path = Path(shutil.copytree(tmp_path, tmp_path / "killed")) / "ledger.db"
    ledger.close()
    assert earlier(path, "c", "d", "a", "b", "e") == ["d", "e"]
    with closing(SqliteLedger(path)) as ledger:
        assert ledger.record([row(one) for one in "abcdef"]) == [0, 1, 2, 3, 4]
    assert sorted(ids(path)) == list("abcdef")


def test_what_is_to_be_announced_outlives_a_change_of_release_in_both_directions(path: Path) -> None:
    def waiting(ledger: SqliteLedger) -> list[str]:
        return [order.id for order in ledger.unannounced(9)]

    earlier(path, "a", "b", announcing=True)
    with closing(SqliteLedger(path, announcing=True)) as ledger:
        ledger.record([row("c")])
        assert waiting(ledger) == ["a", "b", "c"]
        ledger.announced([ledger.unannounced(1)[0].seq])
        assert ledger.backlog().orders == 2
    earlier(path, "d", announcing=True)
    with closing(SqliteLedger(path, announcing=True)) as ledger:
        assert waiting(ledger) == ["b", "d", "c"]
        assert [one.id for one in ledger.unannounced(9, after=ledger.unannounced(2)[1].seq)] == ["c"]
        assert ledger.forget(days=1) == 0
        ledger.announced([one.seq for one in ledger.unannounced(9)])
        assert waiting(ledger) == []


def test_an_order_that_an_earlier_release_has_forgotten_is_not_announced_as_another(path: Path) -> None:
    earlier(path, "a", "b", announcing=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM orders WHERE id = 'b'")
    with closing(SqliteLedger(path, announcing=True)) as ledger:
        assert ledger.backlog().orders == 1


def test_retention_forgets_orders_of_both(path: Path) -> None:
    earlier(path, *(f"old-{number}" for number in range(70)))
    with closing(SqliteLedger(path)) as ledger:
        ledger.record([row(f"later-{number}") for number in range(70)])
        ledger.record([row("new")])
        ledger._db.execute("UPDATE orders SET dispatched_at = dispatched_at - ?", (2 * DAY,))
        ledger._db.execute("UPDATE dispatched SET dispatched_at = dispatched_at - ? WHERE id <> 'new'", (2 * DAY,))
        assert sum(ledger.forget(days=1, limit=6) for _ in range(40)) == 140
        assert ids(path) == ["new"]
        assert ledger.record([row("old-3"), row("later-3"), row("new")]) == [2]


def test_a_ledger_that_cannot_be_changed_stays_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier(path, "a")
    monkeypatch.setattr(tables, "SCHEMA", (*tables.SCHEMA[:-1], "CREATE nonsense"))
    with pytest.raises(LedgerError, match="is no use"):
        SqliteLedger(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE type <> 'index'").fetchall() == [("orders",)]
    assert earlier(path, "a", "b") == ["b"]


def test_an_earlier_release_and_this_one_find_each_other_s_orders_at_once(path: Path) -> None:
    with closing(SqliteLedger(path)) as ledger:
        ledger.record([row("a")])
        assert earlier(path, "a", "b") == ["b"]
        assert ledger.record([row("b"), row("c")]) == [0]
        with closing(SqliteLedger(path)) as other:
            assert other.record([row("c"), row("d")]) == [0]
            assert ledger.known(["d"]) == {"d"}
            assert ledger.record([row("d"), row("e")]) == [0]
            assert other.record([row("e"), row("f")]) == [0]
    assert sorted(ids(path)) == list("abcdef")
