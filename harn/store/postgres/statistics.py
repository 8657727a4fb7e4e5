"""Figures of triggers: attempts and deliveries within a window of time, totals over all servers, and backlogs."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from zope.interface import implementer

from harn.store.figures import StatisticsHalf, StatisticsStatements, TotalsHalf, TotalsStatements
from harn.store.postgres.generations import STANDING
from harn.store.statistics import IStatistics, ITotals

TABLES = """
-- What happened to each trigger, over all servers: `accepted` and `refused` are counts, the times seconds, Unix. The
-- highest id of a delivery that they count is in `standing`.
CREATE TABLE trigger_totals (
    trigger_id text PRIMARY KEY,
    accepted bigint NOT NULL,
    refused bigint NOT NULL,
    last_success double precision,
    last_failure double precision
);

-- Requests that were never events. `minute`: Unix.
CREATE TABLE refusals (
    minute bigint NOT NULL,
    trigger_id text NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (minute, trigger_id, reason)
);
"""

_ENDS = "SELECT coalesce((SELECT min(id) FROM {0}), 1), coalesce((SELECT max(id) FROM {0}), 0)"
# Two digits, so that equal durations form groups.
_ROUNDED = "to_char(greatest(0.0, {}), '9.9EEEE')::float8"
_ATTEMPTS = (
    "WITH taken AS MATERIALIZED (SELECT d.trigger_id AS t, a.version AS v,"
    " CASE WHEN a.outcome IN ('success', 'skipped') THEN a.outcome"
    " WHEN a.error_class = 'retry_after' THEN a.error_class ELSE 'failed' END AS o, "
    + _ROUNDED.format("a.completed_at - a.started_at")
    + " AS took, "
    + _ROUNDED.format("a.completed_at - d.received_at")
    + " AS whole FROM attempts a JOIN deliveries d ON d.id = a.delivery_id"
    " WHERE a.id BETWEEN $1::bigint AND $2::bigint AND a.completed_at >= $3::float8)"
    " SELECT 0, t, v, o, took, count(*) FROM taken GROUP BY t, v, o, took UNION ALL"
    " SELECT 1, t, v, 'success', whole, count(*) FROM taken WHERE o = 'success' GROUP BY t, v, whole"
)
_ACCEPTED = (
    "SELECT trigger_id, count(*), count(*) FILTER (WHERE ended_as = 4) FROM deliveries"
    " WHERE id BETWEEN $1::bigint AND $2::bigint AND received_at >= $3::float8 GROUP BY trigger_id"
)
_DIED = (
    "SELECT trigger_id, count(*) FROM deliveries"
    " WHERE (state = 3 AND settled_at >= $1::float8)"
    " OR (state = 2 AND ended_as > 4 AND died_at >= $1::float8) GROUP BY trigger_id"
)
_ADD_TOTALS = (
    "INSERT INTO trigger_totals AS t (trigger_id, accepted, refused, last_success, last_failure)"
    " SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::float8[], $5::float8[])"
    " ON CONFLICT (trigger_id) DO UPDATE SET accepted = t.accepted + excluded.accepted,"
    " refused = t.refused + excluded.refused, last_success = greatest(t.last_success, excluded.last_success),"
    " last_failure = greatest(t.last_failure, excluded.last_failure)"
)
_ADD_REFUSALS = (
    "INSERT INTO refusals AS r (minute, trigger_id, reason, count)"
    " SELECT minute, trigger_id, reason, sum(count) FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[])"
    " AS new (minute, trigger_id, reason, count) GROUP BY minute, trigger_id, reason"
    " ON CONFLICT (minute, trigger_id, reason) DO UPDATE SET count = r.count + excluded.count"
)
_ACCEPTED_SINCE = (
    "SELECT trigger_id, count(*), max(id) FROM (SELECT id, trigger_id FROM deliveries"
    " WHERE id > $1::bigint AND id <= $2::bigint ORDER BY id LIMIT $3::bigint) AS next GROUP BY trigger_id"
)
_LATEST_ATTEMPTS = (
    "SELECT d.trigger_id, max(a.completed_at) FILTER (WHERE a.outcome = 'success'),"
    " max(a.completed_at) FILTER (WHERE a.outcome NOT IN ('success', 'skipped') AND a.error_class <> 'retry_after')"
    " FROM (SELECT delivery_id, outcome, error_class, completed_at FROM attempts ORDER BY id DESC LIMIT $1::bigint) a"
    " JOIN deliveries d ON d.id = a.delivery_id GROUP BY d.trigger_id"
)
_OLDEST = (
    "(SELECT {} FROM deliveries WHERE state < 2 AND trigger_id = t AND version = v AND state = {}"
    " AND id <> ALL ($1::bigint[]) ORDER BY id LIMIT 1)"
)
# Each step of the recursions is one step in the index: to the next trigger, and to its next version.
_BACKLOGS = (
    "WITH RECURSIVE triggers(t) AS (SELECT min(trigger_id) FROM deliveries WHERE state < 2 UNION ALL"
    " SELECT (SELECT min(trigger_id) FROM deliveries WHERE state < 2 AND trigger_id > t) FROM triggers"
    " WHERE t IS NOT NULL), versions(t, v) AS"
    " (SELECT t, (SELECT min(version) FROM deliveries WHERE state < 2 AND trigger_id = t)"
    " FROM triggers WHERE t IS NOT NULL UNION ALL"
    " SELECT t, (SELECT min(version) FROM deliveries WHERE state < 2 AND trigger_id = t AND version > v)"
    " FROM versions WHERE v IS NOT NULL)"
    " SELECT t, " + _OLDEST.format("coalesce(due_at, received_at)", 0) + ", " + _OLDEST.format("received_at", 1) + ","
    " (SELECT due_at FROM deliveries WHERE state = 1 AND trigger_id = t AND id <> ALL ($1::bigint[])"
    " ORDER BY due_at LIMIT 1) FROM versions WHERE v IS NOT NULL"
)
_OLD_REFUSALS = (
    "DELETE FROM refusals WHERE ctid = ANY (ARRAY(SELECT ctid FROM refusals WHERE minute < $1::bigint"
    " ORDER BY minute LIMIT $2::bigint))"
)
# The totals of a trigger that is not served, has had no attempt for as long as events are kept, and of which no
# delivery and no refused request is left.
_GONE = (
    "DELETE FROM trigger_totals WHERE trigger_id IN (SELECT t.trigger_id FROM trigger_totals t"
    " WHERE t.trigger_id <> ALL ($1::text[])"
    " AND coalesce(t.last_success, 0) < $2::float8 AND coalesce(t.last_failure, 0) < $2::float8"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.trigger_id = t.trigger_id)"
    " AND NOT EXISTS (SELECT 1 FROM refusals r WHERE r.trigger_id = t.trigger_id) LIMIT $3::bigint)"
)

TOTALS = TotalsStatements(
    totals="SELECT trigger_id, accepted, refused, last_success, last_failure FROM trigger_totals",
    highest="SELECT coalesce(max(id), 0) FROM deliveries",
    latest_attempts=_LATEST_ATTEMPTS,
    dead="SELECT trigger_id, count(*) FROM deliveries WHERE state = 3 GROUP BY trigger_id",
    unfinished=(
        "SELECT trigger_id, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
        " FROM deliveries WHERE state < 2 GROUP BY trigger_id"
    ),
    backlogs=_BACKLOGS,
    accepted_since=_ACCEPTED_SINCE,
    add=_ADD_TOTALS,
    add_refused=_ADD_REFUSALS,
    old_refused=_OLD_REFUSALS,
    gone=_GONE,
)


@implementer(IStatistics)
class PostgresStatistics(StatisticsHalf):
    """`IStatistics` on PostgreSQL."""

    sql = StatisticsStatements(
        attempt_ends=_ENDS.format("attempts"),
        delivery_ends=_ENDS.format("deliveries"),
        next_attempt="SELECT id, completed_at FROM attempts WHERE id >= $1::bigint ORDER BY id LIMIT 1",
        next_delivery="SELECT id, received_at FROM deliveries WHERE id >= $1::bigint ORDER BY id LIMIT 1",
        attempts=_ATTEMPTS,
        accepted=_ACCEPTED,
        died=_DIED,
        refused="SELECT trigger_id, sum(count)::bigint FROM refusals WHERE minute >= $1::bigint GROUP BY trigger_id",
        specs=(
            "SELECT b.trigger_id, b.version, b.spec"
            " FROM unnest($1::text[], $2::integer[]) AS wanted (trigger_id, version)"
            " JOIN binding_versions b ON b.trigger_id = wanted.trigger_id AND b.version = wanted.version"
        ),
    )


@implementer(ITotals)
class PostgresTotals(TotalsHalf):
    """`ITotals` on PostgreSQL."""

    sql = TOTALS
    standing = STANDING
