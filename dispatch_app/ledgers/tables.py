# ruff: noqa: S608 - all that is put together here is ours
"""The tables of a host's ledger, and what they are asked.

Random ids in one index would have each order change a page of its own: with ten million orders that takes four times
what all else does. So an order is added to the end of `dispatched`, which has no index of ids, and some thousands at a
time have their ids added to `ids`, sorted. That begins a new part now and then, so that a part's pages are few enough
to be changed many ids at a time.

`orders` and `unannounced` are those of earlier releases: what is in them counts, and nothing is added. An earlier
release that is rolled back to goes on adding there; the trigger has it find the orders of this one, as its index would.
"""

from __future__ import annotations

# Above all numbers of `orders`.
FIRST = 1 << 40

_COLUMNS = "seq, id, user, total, items, correlation_id, redelivered, dispatched_at"
# The table of orders, and which of them have still to be announced.
TABLES = (("orders", "unannounced"), ("dispatched", "listed"))
# The number up to which ids are in `ids`.
INDEXED = "SELECT coalesce(max(last), 0) FROM parts"

_ORDERS = """CREATE TABLE IF NOT EXISTS {table} (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL{unique},
  user TEXT,
  total REAL,
  items INTEGER,
  correlation_id TEXT,
  redelivered INTEGER NOT NULL,
  dispatched_at INTEGER NOT NULL -- milliseconds since 1970, UTC
)"""
SCHEMA = (
    _ORDERS.format(table="orders", unique=" UNIQUE"),
    "CREATE TABLE IF NOT EXISTS unannounced (seq INTEGER PRIMARY KEY) -- of `orders`",
    _ORDERS.format(table="dispatched", unique=""),
    "CREATE TABLE IF NOT EXISTS listed (seq INTEGER PRIMARY KEY) -- of `dispatched`, to be announced",
    """CREATE TABLE IF NOT EXISTS ids (
  part INTEGER NOT NULL,
  id TEXT NOT NULL,
  seq INTEGER NOT NULL, -- of `dispatched`
  PRIMARY KEY (part, id)
) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS parts (part INTEGER PRIMARY KEY, last INTEGER NOT NULL) -- seq of `ids`",
    # Where the process before has ended well: what it has left in the filter's file, and the name of that. A file that
    # is not of this ledger, or of an earlier state of it, has another name.
    """CREATE TABLE IF NOT EXISTS filter (
  name BLOB NOT NULL,
  room INTEGER NOT NULL,
  added INTEGER NOT NULL,
  last INTEGER NOT NULL -- seq of `dispatched`
)""",
    """CREATE TRIGGER IF NOT EXISTS filter_lacks_orders AFTER INSERT ON orders
  WHEN EXISTS (SELECT 1 FROM filter) BEGIN DELETE FROM filter; END""",
    f"""CREATE VIEW IF NOT EXISTS all_orders AS
  SELECT {_COLUMNS} FROM orders UNION ALL SELECT {_COLUMNS} FROM dispatched""",
    f"""CREATE TRIGGER IF NOT EXISTS dispatched_already BEFORE INSERT ON orders
  WHEN EXISTS (SELECT 1 FROM ids WHERE part IN (SELECT part FROM parts) AND id = NEW.id)
    OR EXISTS (SELECT 1 FROM dispatched WHERE seq > ({INDEXED}) AND id = NEW.id)
  BEGIN SELECT RAISE(IGNORE); END""",
)

FIND = (
    "SELECT seq FROM orders WHERE id = ?",
    "SELECT seq FROM ids WHERE part IN (SELECT part FROM parts) AND id = ?",
)
FIND_ANY = f"{' UNION ALL '.join(FIND)} UNION ALL SELECT seq FROM dispatched WHERE seq > ({INDEXED}) AND id = ?"
NOT_INDEXED = f"SELECT seq, id FROM dispatched WHERE seq > ({INDEXED})"
INDEX = "INSERT INTO ids SELECT ?, id, seq FROM dispatched WHERE seq > ? ORDER BY id"
BEGIN_PART = "INSERT INTO parts VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET last = excluded.last"
FORGET_ID = """DELETE FROM ids WHERE part = (SELECT part FROM parts WHERE last >= ?1 ORDER BY part LIMIT 1)
  AND id = (SELECT id FROM dispatched WHERE seq = ?1)"""
# The last part stays, because numbers go on from it.
FORGET_PARTS = """DELETE FROM parts WHERE last < (SELECT coalesce(min(seq), 1 << 60) FROM dispatched)
  AND part < (SELECT max(part) FROM parts)"""
RECORD = """INSERT INTO dispatched (seq, id, user, total, items, correlation_id, redelivered, dispatched_at)
  VALUES ({seq}, ?, ?, ?, ?, ?, ?, {now})"""

UNANNOUNCED = """SELECT seq, id, correlation_id, dispatched_at FROM unannounced JOIN orders USING (seq) WHERE seq > ?1
  UNION ALL SELECT seq, id, correlation_id, dispatched_at FROM listed JOIN dispatched USING (seq) WHERE seq > ?1
  ORDER BY seq LIMIT ?2"""
# An earlier release that does not know the table may have forgotten such an order, and given its number to another one.
ORPHANS = "DELETE FROM unannounced WHERE seq NOT IN (SELECT seq FROM orders)"
