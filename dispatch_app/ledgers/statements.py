# ruff: noqa: S608 - what is put together here is ours, and values are bound
"""What is asked of the ledger's database."""

from __future__ import annotations

from .port import Filter

# The first of the two numbers of each advisory lock of ours (PostgreSQL documentation, 13.3.5). A process shares its
# lock with itself: the server may take a while to see that an earlier connection of it has ended.
LOCKS = 0x0D15
RETENTION = 0  # the second number of the lock of the one that forgets; those of processes are above
NOBODY = -1  # as the process that recorded an order: it is another one that has to announce it
MOST_COUNTED = 1_000_000  # orders to be announced, of which more are not counted

FRESH = """WITH fresh AS (
    INSERT INTO dispatch.orders (id, "user", total, items, correlation_id, redelivered, host, process)
    SELECT r.*, %(host)s, %(process)s FROM json_to_recordset(%(rows)s::json) AS r(id text, "user" text,
      total double precision, items integer, correlation_id text, redelivered boolean)
    ON CONFLICT (id) DO NOTHING RETURNING seq, id)"""
LISTED = ", listed AS (INSERT INTO dispatch.unannounced (seq, owner) SELECT seq, %(process)s FROM fresh)"
# Which ones are fresh is worth telling only where some are not. The others may be of a commit that no replica has
# confirmed, because the primary was killed over it; and a transaction that writes nothing waits for no replica. So it
# writes a message, which nobody reads: where commits wait for a replica, so does this one, and for all earlier ones.
COUNT = """ SELECT now()::text, count(*), CASE WHEN count(*) < %(count)s THEN json_agg(id) END,
  CASE WHEN count(*) < %(count)s THEN pg_logical_emit_message(true, 'dispatch', '') END FROM fresh"""
RECORD, RECORD_AND_LIST = FRESH + COUNT, FRESH + LISTED + COUNT
# An order comes onto the list of those to be announced only where it is fresh: an earlier take-over saw to the rest.
TAKE_OVER = """WITH given AS (
    SELECT * FROM json_to_recordset(%(rows)s::json) AS r(id text, "user" text, total double precision, items integer,
      correlation_id text, redelivered boolean, dispatched_at bigint, listed boolean)),
  fresh AS (
    INSERT INTO dispatch.orders (id, "user", total, items, correlation_id, redelivered, host, process, dispatched_at)
    SELECT id, "user", total, items, correlation_id, redelivered, %(host)s, %(process)s,
      to_timestamp(dispatched_at / 1000.0)
    FROM given ON CONFLICT (id) DO NOTHING RETURNING seq, id),
  listed AS (
    INSERT INTO dispatch.unannounced (seq, owner)
    SELECT seq, %(process)s FROM fresh JOIN given USING (id) WHERE listed)
  SELECT count(*) FROM fresh"""
KNOWN = "SELECT id FROM dispatch.orders WHERE id IN (SELECT json_array_elements_text(%s::json))"
OURS = "SELECT id FROM dispatch.orders WHERE id = ANY(%s) AND process = %s AND dispatched_at > %s::timestamptz"

MILLISECONDS = "(extract(epoch FROM dispatched_at) * 1000)::bigint"
ADOPT = f"""UPDATE dispatch.unannounced SET owner = %(process)s WHERE seq IN (
    SELECT seq FROM dispatch.unannounced WHERE owner NOT IN (
      SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = {LOCKS} AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
  RETURNING seq"""
UNANNOUNCED = f"""SELECT seq, id, correlation_id, {MILLISECONDS}, host
  FROM dispatch.unannounced JOIN dispatch.orders USING (seq)
  WHERE owner = %(process)s AND (seq > %(after)s OR seq = ANY(%(adopted)s)) ORDER BY seq LIMIT %(limit)s"""
ANNOUNCED = "DELETE FROM dispatch.unannounced WHERE seq = ANY(%s)"
FORGET = """WITH looked_at AS MATERIALIZED (
    SELECT seq, dispatched_at FROM dispatch.orders WHERE seq > %(seen)s ORDER BY seq LIMIT 10 * %(limit)s),
  old AS (SELECT seq FROM looked_at WHERE dispatched_at < now() - make_interval(days => %(days)s)
    AND NOT EXISTS (SELECT FROM dispatch.unannounced u WHERE u.seq = looked_at.seq) LIMIT %(limit)s),
  forgotten AS (DELETE FROM dispatch.orders WHERE seq IN (SELECT seq FROM old) RETURNING 1)
  SELECT (SELECT count(*) FROM forgotten), count(*), max(seq) FROM looked_at"""
BACKLOG = f"""SELECT (SELECT count(*) FROM (SELECT FROM dispatch.unannounced LIMIT {MOST_COUNTED}) AS counted),
  (SELECT extract(epoch FROM now() - dispatched_at)::float8
    FROM dispatch.unannounced JOIN dispatch.orders USING (seq) ORDER BY seq LIMIT 1)"""
SIZE = "SELECT pg_total_relation_size('dispatch.orders') + pg_total_relation_size('dispatch.unannounced')"
NEWEST = "(SELECT extract(epoch FROM dispatched_at)::float8 FROM dispatch.orders ORDER BY seq DESC LIMIT 1)"
EPOCH = "extract(epoch FROM now())::float8"
MAY_FORGET = f"SELECT pg_try_advisory_xact_lock({LOCKS}, {RETENTION}), {EPOCH}"
BEGIN = f"""SELECT version, now()::text, coalesce({NEWEST}, {EPOCH}),
  pg_try_advisory_lock_shared({LOCKS}, %s) FROM dispatch.version"""
TESTS = (
    "dispatched_at >= to_timestamp(%s / 1000.0)", "id = %s", '"user" = %s', "correlation_id = %s",
)  # of a Filter's fields  # fmt: skip


def listing(wanted: Filter) -> tuple[str, list[object]]:
    """Return the query for dispatched orders, the newest first, and its values but for the last one, their number."""
    asked = {test: value for test, value in zip(TESTS, wanted, strict=True) if value is not None}
    where = f"WHERE {' AND '.join(asked)}" if asked else ""
    query = f"""SELECT id, "user", total, items, correlation_id, redelivered, {MILLISECONDS} AS dispatched_at, host
      FROM dispatch.orders {where} ORDER BY seq DESC LIMIT %s"""
    return query, list(asked.values())
