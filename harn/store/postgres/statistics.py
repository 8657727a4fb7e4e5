"""Figures of triggers: attempts and deliveries within a window of time, totals over all servers, and backlogs."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from zope.interface import implementer

from harn.store.executor import Idea, reads
from harn.store.generations import encode_checkpoints
from harn.store.halves import TotalsHalf
from harn.store.postgres.connection import PostgresConnection, PostgresSession
from harn.store.postgres.generations import STANDING
from harn.store.rows import COUNTED, HandlerOfSpec, attempt_groups, backlogs_of, total_of
from harn.store.statistics import (
    AcceptedGroup,
    AttemptGroup,
    DoneGroup,
    IdRange,
    IStatistics,
    ITotals,
    RefusedCount,
    TriggerBacklog,
    TriggerTotal,
    TriggerUnfinished,
)

if TYPE_CHECKING:
    from harn.store.retention import RetentionPolicy

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

_ENDS = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM {}"
_PROBE = "SELECT id, {1} FROM {0} WHERE id >= $1::bigint ORDER BY id LIMIT 1"
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
_REFUSED = "SELECT trigger_id, sum(count)::bigint FROM refusals WHERE minute >= $1::bigint GROUP BY trigger_id"
_SPECS = (
    "SELECT b.trigger_id, b.version, b.spec FROM unnest($1::text[], $2::integer[]) AS wanted (trigger_id, version)"
    " JOIN binding_versions b ON b.trigger_id = wanted.trigger_id AND b.version = wanted.version"
)
_TOTALS = "SELECT trigger_id, accepted, refused, last_success, last_failure FROM trigger_totals"
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
_HIGHEST = "SELECT coalesce(max(id), 0) FROM deliveries"
_LATEST_ATTEMPTS = (
    "SELECT d.trigger_id, max(a.completed_at) FILTER (WHERE a.outcome = 'success'),"
    " max(a.completed_at) FILTER (WHERE a.outcome NOT IN ('success', 'skipped') AND a.error_class <> 'retry_after')"
    " FROM (SELECT delivery_id, outcome, error_class, completed_at FROM attempts ORDER BY id DESC LIMIT $1::bigint) a"
    " JOIN deliveries d ON d.id = a.delivery_id GROUP BY d.trigger_id"
)
_DEAD = "SELECT trigger_id, count(*) FROM deliveries WHERE state = 3 GROUP BY trigger_id"
_COUNT_UNFINISHED = (
    "SELECT trigger_id, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
    " FROM deliveries WHERE state < 2 GROUP BY trigger_id"
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
_COUNTED = "SELECT value FROM standing WHERE name = $1::text"
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


@implementer(IStatistics)
class PostgresStatistics(Idea):
    """`IStatistics` on PostgreSQL."""

    @reads
    def attempts_since(self, connection: PostgresConnection, since: float) -> IdRange:
        """See `IStatistics.attempts_since`."""
        return _since(connection, "attempts", "completed_at", since)

    @reads
    def deliveries_since(self, connection: PostgresConnection, since: float) -> IdRange:
        """See `IStatistics.deliveries_since`."""
        return _since(connection, "deliveries", "received_at", since)

    @reads
    def attempts(
        self, connection: PostgresConnection, span: IdRange, since: float
    ) -> tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]:
        """See `IStatistics.attempts`."""
        return attempt_groups(connection.execute(_ATTEMPTS, (span.first, span.last, float(since))))

    @reads
    def accepted(self, connection: PostgresConnection, span: IdRange, since: float) -> Sequence[AcceptedGroup]:
        """See `IStatistics.accepted`."""
        return [AcceptedGroup(*row) for row in connection.execute(_ACCEPTED, (span.first, span.last, float(since)))]

    @reads
    def died(self, connection: PostgresConnection, since: float) -> Mapping[str, int]:
        """See `IStatistics.died`."""
        return dict(connection.execute(_DIED, (float(since),)).fetchall())

    @reads
    def refused(self, connection: PostgresConnection, since: float) -> Mapping[str, int]:
        """See `IStatistics.refused`."""
        return dict(connection.execute(_REFUSED, (int(since // 60.0),)).fetchall())

    @reads
    def handlers(
        self, connection: PostgresConnection, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], str]:
        """See `IStatistics.handlers`."""
        wanted = [trigger_id for trigger_id, _ in versions], [version for _, version in versions]
        return {
            (trigger_id, version): msgspec.json.decode(spec, type=HandlerOfSpec).handler
            for trigger_id, version, spec in connection.execute(_SPECS, wanted)
        }


def _since(connection: PostgresConnection, table: str, column: str, since: float) -> IdRange:
    """
    Return the ids of the rows from the first whose time is ``since`` or later.

    Ids rise with time but for the order within a moment, and for a clock that was set back: a row is left out only when
    it has a lower id than one from before ``since``.
    """
    low, last = connection.execute(_ENDS.format(table)).fetchone()
    probe, high = _PROBE.format(table, column), last + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(probe, (middle,)).fetchone()
        if row is None or row[1] >= since:
            high = middle
        else:
            low = row[0] + 1
    return IdRange(low, last)


@implementer(ITotals)
class PostgresTotals(TotalsHalf):
    """`ITotals` on PostgreSQL."""

    @reads
    def totals(self, connection: PostgresConnection) -> Mapping[str, TriggerTotal]:
        """See `ITotals.totals`."""
        return {row[0]: total_of(row) for row in connection.execute(_TOTALS)}

    @reads
    def highest(self, connection: PostgresConnection) -> int:
        """See `ITotals.highest`."""
        return int(connection.execute(_HIGHEST).fetchone()[0])

    @reads
    def latest_attempts(self, connection: PostgresConnection, limit: int) -> Mapping[str, TriggerTotal]:
        """See `ITotals.latest_attempts`."""
        return {
            trigger_id: TriggerTotal(trigger_id=trigger_id, last_success=success, last_failure=failure)
            for trigger_id, success, failure in connection.execute(_LATEST_ATTEMPTS, (limit,))
        }

    @reads
    def dead(self, connection: PostgresConnection) -> Mapping[str, int]:
        """See `ITotals.dead`."""
        return dict(connection.execute(_DEAD).fetchall())

    @reads
    def unfinished(self, connection: PostgresConnection) -> Sequence[TriggerUnfinished]:
        """See `ITotals.unfinished`."""
        return [
            TriggerUnfinished(trigger_id=trigger_id, ready=ready, waiting=waiting)
            for trigger_id, ready, waiting in connection.execute(_COUNT_UNFINISHED)
        ]

    @reads
    def backlogs(
        self, connection: PostgresConnection, now: float, running: Collection[int]
    ) -> Mapping[str, TriggerBacklog]:
        """See `ITotals.backlogs`."""
        return backlogs_of(connection.execute(_BACKLOGS, (list(running),)), now)

    @reads
    def uncounted(self, connection: PostgresConnection, limit: int) -> Mapping[str, int]:
        """See `ITotals.uncounted`."""
        found = self._accepted_since(connection, self._counted(connection), 2**63 - 1, limit)
        return {trigger_id: count for trigger_id, count, _ in found}

    def _accepted_since(
        self, connection: PostgresConnection, after: int, until: int, limit: int
    ) -> Sequence[tuple[str, int, int]]:
        rows: Sequence[tuple[str, int, int]] = connection.execute(_ACCEPTED_SINCE, (after, until, limit)).fetchall()
        return rows

    def _counted(self, connection: PostgresConnection) -> int:
        row = connection.execute(_COUNTED, (COUNTED,)).fetchone()
        return 0 if row is None else int(msgspec.json.decode(row[0]))

    def _note_counted(self, session: PostgresSession, counted: int) -> None:
        STANDING.put_all(session, encode_checkpoints({COUNTED: counted}))

    def _add(self, session: PostgresSession, totals: Sequence[TriggerTotal]) -> None:
        if totals:
            values = (
                [each.trigger_id for each in totals],
                [each.accepted for each in totals],
                [each.refused for each in totals],
                [None if each.last_success is None else float(each.last_success) for each in totals],
                [None if each.last_failure is None else float(each.last_failure) for each in totals],
            )
            session.connection.execute(_ADD_TOTALS, values)

    def _add_refused(self, session: PostgresSession, refused: Sequence[RefusedCount]) -> None:
        values = (
            [each.minute for each in refused],
            [each.trigger_id for each in refused],
            [each.reason for each in refused],
            [each.count for each in refused],
        )
        session.connection.execute(_ADD_REFUSALS, values)


def trim_refusals(connection: PostgresConnection, before: float, limit: int) -> int:
    """Remove up to ``limit`` rows about minutes that ended before then (seconds, Unix)."""
    return int(connection.execute(_OLD_REFUSALS, (int(before // 60.0), limit)).rowcount)


def trim_totals(connection: PostgresConnection, policy: RetentionPolicy, now: float, limit: int) -> int:
    """Remove the totals of up to ``limit`` triggers that are not served and have no rows any more; return how many."""
    if not policy.triggers:
        return 0
    return int(connection.execute(_GONE, (list(policy.triggers), now - policy.events, limit)).rowcount)
