"""
Figures of triggers: attempts and deliveries within a window of time, totals over all servers, and backlogs.

SQLite groups the rows of a window itself, without Python's interpreter lock.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from zope.interface import implementer

from harn.store.figures import StatisticsHalf, StatisticsStatements, TotalsHalf, TotalsStatements
from harn.store.sqlite.generations import STANDING
from harn.store.statistics import IStatistics, ITotals

TABLES = """
-- What happened to each trigger, over all servers: `accepted` and `refused` are counts, the times seconds, Unix. The
-- highest id of a delivery that they count is in `standing`.
CREATE TABLE trigger_totals (
    trigger_id TEXT PRIMARY KEY,
    accepted INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    last_success REAL,
    last_failure REAL
) WITHOUT ROWID;

-- Requests that were never events. `minute`: Unix.
CREATE TABLE refusals (
    minute INTEGER NOT NULL,
    trigger_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (minute, trigger_id, reason)
) WITHOUT ROWID;
"""

# Two steps, where one statement with both aggregates would read all rows.
_ENDS = "SELECT coalesce((SELECT min(id) FROM {0}), 1), coalesce((SELECT max(id) FROM {0}), 0)"
# Two digits, so that equal durations form groups; printf rounds without SQLite's optional functions.
_ROUNDED = "CAST(printf('%.1e', max(0.0, {})) AS REAL)"
_ATTEMPTS = (
    "WITH taken AS MATERIALIZED (SELECT d.trigger_id AS t, a.version AS v,"
    " CASE WHEN a.outcome IN ('success', 'skipped') THEN a.outcome"
    " WHEN a.error_class = 'retry_after' THEN a.error_class ELSE 'failed' END AS o, "
    + _ROUNDED.format("a.completed_at - a.started_at")
    + " AS took, "
    + _ROUNDED.format("a.completed_at - d.received_at")
    + " AS whole FROM attempts a CROSS JOIN deliveries d ON d.id = a.delivery_id"
    " WHERE a.id BETWEEN ? AND ? AND a.completed_at >= ?)"
    " SELECT 0, t, v, o, took, count(*) FROM taken GROUP BY t, v, o, took UNION ALL"
    " SELECT 1, t, v, o, whole, count(*) FROM taken WHERE o = 'success' GROUP BY t, v, whole"
)
_ACCEPTED = (
    "SELECT trigger_id, count(*), count(*) FILTER (WHERE ended_as = 4) FROM deliveries"
    " WHERE id BETWEEN ? AND ? AND received_at >= ? GROUP BY trigger_id"
)
_DIED = (
    "SELECT trigger_id, count(*) FROM deliveries INDEXED BY deliveries_dead_groups"
    " WHERE state = 3 AND settled_at >= ?1 GROUP BY trigger_id UNION ALL"
    " SELECT trigger_id, count(*) FROM deliveries INDEXED BY deliveries_exceptions"
    " WHERE state = 2 AND ended_as > 0 AND ended_as > 4 AND died_at >= ?1 GROUP BY trigger_id"
)
_LATER = "{0} = max(coalesce({0}, excluded.{0}), coalesce(excluded.{0}, {0}))"
_ACCEPTED_SINCE = (
    "SELECT trigger_id, count(*), max(id) FROM"
    " (SELECT id, trigger_id FROM deliveries WHERE id > ? AND id <= ? ORDER BY id LIMIT ?) GROUP BY trigger_id"
)
_LATEST_ATTEMPTS = (
    "SELECT d.trigger_id, max(a.completed_at) FILTER (WHERE a.outcome = 'success'),"
    " max(a.completed_at) FILTER (WHERE a.outcome NOT IN ('success', 'skipped') AND a.error_class <> 'retry_after')"
    " FROM (SELECT delivery_id, outcome, error_class, completed_at FROM attempts ORDER BY id DESC LIMIT ?) a"
    " CROSS JOIN deliveries d ON d.id = a.delivery_id GROUP BY d.trigger_id"
)
_UNFINISHED = "deliveries INDEXED BY deliveries_unfinished WHERE state < 2"
# `likely` keeps SQLite from looking the index up by the term that only allows its use, and from sorting all it finds.
_OLDEST = (
    "(SELECT {} FROM deliveries WHERE id = (SELECT id FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE likely(state < 2) AND trigger_id = t"
    " AND version = v AND state = {} AND id NOT IN (SELECT value FROM json_each(?1)) ORDER BY id LIMIT 1))"
)
# Each step of the recursions is one step in the index: to the next trigger, and to its next version.
_BACKLOGS = (
    "WITH RECURSIVE triggers(t) AS (SELECT min(trigger_id) FROM " + _UNFINISHED + " UNION ALL"
    " SELECT (SELECT min(trigger_id) FROM " + _UNFINISHED + " AND trigger_id > t) FROM triggers WHERE t IS NOT NULL),"
    " versions(t, v) AS (SELECT t, (SELECT min(version) FROM " + _UNFINISHED + " AND trigger_id = t)"
    " FROM triggers WHERE t IS NOT NULL UNION ALL"
    " SELECT t, (SELECT min(version) FROM " + _UNFINISHED + " AND trigger_id = t AND version > v)"
    " FROM versions WHERE v IS NOT NULL)"
    " SELECT t, " + _OLDEST.format("coalesce(due_at, received_at)", 0) + ", " + _OLDEST.format("received_at", 1) + ","
    " (SELECT due_at FROM deliveries INDEXED BY deliveries_due WHERE state = 1 AND trigger_id = t"
    " AND id NOT IN (SELECT value FROM json_each(?1)) ORDER BY due_at LIMIT 1)"
    " FROM versions WHERE v IS NOT NULL"
)
# The totals of a trigger that is not served (?1), has had no attempt for as long as events are kept (since ?2), and of
# which no delivery and no refused request is left. Deliveries are looked up in blocks of 1024, the blocks of their
# index.
_GONE = (
    "DELETE FROM trigger_totals WHERE trigger_id IN (SELECT t.trigger_id FROM trigger_totals t"
    " WHERE t.trigger_id NOT IN (SELECT value FROM json_each(?1))"
    " AND coalesce(t.last_success, 0) < ?2 AND coalesce(t.last_failure, 0) < ?2"
    " AND NOT EXISTS (SELECT 1 FROM " + _UNFINISHED + " AND trigger_id = t.trigger_id)"
    " AND NOT EXISTS (WITH RECURSIVE chunks(n) AS (SELECT min(id) / 1024 FROM deliveries UNION ALL"
    " SELECT (SELECT min(id) / 1024 FROM deliveries WHERE id >= (n + 1) * 1024) FROM chunks WHERE n IS NOT NULL)"
    " SELECT 1 FROM chunks CROSS JOIN deliveries d INDEXED BY deliveries_by_trigger"
    " ON d.id / 1024 = n AND d.trigger_id = t.trigger_id)"
    " AND t.trigger_id NOT IN (SELECT trigger_id FROM refusals) LIMIT ?3)"
)

TOTALS = TotalsStatements(
    totals="SELECT trigger_id, accepted, refused, last_success, last_failure FROM trigger_totals",
    highest="SELECT coalesce(max(id), 0) FROM deliveries",
    latest_attempts=_LATEST_ATTEMPTS,
    dead=(
        "SELECT trigger_id, count(*) FROM deliveries INDEXED BY deliveries_dead_groups WHERE state = 3"
        " GROUP BY trigger_id"
    ),
    unfinished=(
        "SELECT trigger_id, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
        " FROM " + _UNFINISHED + " GROUP BY trigger_id"
    ),
    backlogs=_BACKLOGS,
    accepted_since=_ACCEPTED_SINCE,
    add=(
        "INSERT INTO trigger_totals (trigger_id, accepted, refused, last_success, last_failure) VALUES {}"
        " ON CONFLICT (trigger_id) DO UPDATE SET accepted = accepted + excluded.accepted,"
        " refused = refused + excluded.refused, " + _LATER.format("last_success") + ","
        " " + _LATER.format("last_failure")
    ),
    add_refused=(
        "INSERT INTO refusals (minute, trigger_id, reason, count) VALUES {}"
        " ON CONFLICT (minute, trigger_id, reason) DO UPDATE SET count = count + excluded.count"
    ),
    old_refused=(
        "DELETE FROM refusals WHERE (minute, trigger_id, reason) IN"
        " (SELECT minute, trigger_id, reason FROM refusals WHERE minute < ? ORDER BY minute LIMIT ?)"
    ),
    gone=_GONE,
)


@implementer(IStatistics)
class SQLiteStatistics(StatisticsHalf):
    """`IStatistics` on SQLite."""

    sql = StatisticsStatements(
        attempt_ends=_ENDS.format("attempts"),
        delivery_ends=_ENDS.format("deliveries"),
        next_attempt="SELECT id, completed_at FROM attempts WHERE id >= ? ORDER BY id LIMIT 1",
        next_delivery="SELECT id, received_at FROM deliveries WHERE id >= ? ORDER BY id LIMIT 1",
        attempts=_ATTEMPTS,
        accepted=_ACCEPTED,
        died=_DIED,
        refused="SELECT trigger_id, sum(count) FROM refusals WHERE minute >= ? GROUP BY trigger_id",
        specs=(
            "SELECT b.trigger_id, b.version, b.spec FROM json_each(?) AS wanted CROSS JOIN binding_versions b"
            " ON b.trigger_id = json_extract(wanted.value, '$[0]') AND b.version = json_extract(wanted.value, '$[1]')"
        ),
    )


@implementer(ITotals)
class SQLiteTotals(TotalsHalf):
    """`ITotals` on SQLite."""

    sql = TOTALS
    standing = STANDING
