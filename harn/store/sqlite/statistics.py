"""
Figures of triggers: attempts and deliveries within a window of time, totals over all servers, and backlogs.

SQLite groups the rows of a window itself, without Python's interpreter lock.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from zope.interface import implementer

from harn.store.executor import Idea, reads
from harn.store.generations import encode_checkpoints
from harn.store.halves import TotalsHalf
from harn.store.rows import COUNTED, HandlerOfSpec, attempt_groups, backlogs_of, total_of
from harn.store.sqlite.connection import Session
from harn.store.sqlite.generations import STANDING
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

_LAST = "SELECT coalesce(max(id), 0) FROM {}"
_FIRST = "SELECT coalesce(min(id), 1) FROM {}"
_PROBE = "SELECT id, {1} FROM {0} WHERE id >= ? ORDER BY id LIMIT 1"
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
_REFUSED = "SELECT trigger_id, sum(count) FROM refusals WHERE minute >= ? GROUP BY trigger_id"
_SPEC = "SELECT spec FROM binding_versions WHERE trigger_id = ? AND version = ?"


@implementer(IStatistics)
class SQLiteStatistics(Idea):
    """`IStatistics` on SQLite."""

    @reads
    def attempts_since(self, connection: sqlite3.Connection, since: float) -> IdRange:
        """See `IStatistics.attempts_since`."""
        return _since(connection, "attempts", "completed_at", since)

    @reads
    def deliveries_since(self, connection: sqlite3.Connection, since: float) -> IdRange:
        """See `IStatistics.deliveries_since`."""
        return _since(connection, "deliveries", "received_at", since)

    @reads
    def attempts(
        self, connection: sqlite3.Connection, span: IdRange, since: float
    ) -> tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]:
        """See `IStatistics.attempts`."""
        return attempt_groups(connection.execute(_ATTEMPTS, (span.first, span.last, since)))

    @reads
    def accepted(self, connection: sqlite3.Connection, span: IdRange, since: float) -> Sequence[AcceptedGroup]:
        """See `IStatistics.accepted`."""
        return [AcceptedGroup(*row) for row in connection.execute(_ACCEPTED, (span.first, span.last, since))]

    @reads
    def died(self, connection: sqlite3.Connection, since: float) -> Mapping[str, int]:
        """See `IStatistics.died`."""
        found: dict[str, int] = {}
        for trigger_id, count in connection.execute(_DIED, (since,)):
            found[trigger_id] = found.get(trigger_id, 0) + count
        return found

    @reads
    def refused(self, connection: sqlite3.Connection, since: float) -> Mapping[str, int]:
        """See `IStatistics.refused`."""
        return dict(connection.execute(_REFUSED, (int(since // 60.0),)).fetchall())

    @reads
    def handlers(
        self, connection: sqlite3.Connection, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], str]:
        """See `IStatistics.handlers`."""
        rows = ((version, connection.execute(_SPEC, version).fetchone()) for version in versions)
        return {key: msgspec.json.decode(row[0], type=HandlerOfSpec).handler for key, row in rows if row is not None}


def _since(connection: sqlite3.Connection, table: str, column: str, since: float) -> IdRange:
    """
    Return the ids of the rows from the first whose time is ``since`` or later.

    Ids rise with time but for the order within a moment, and for a clock that was set back: a row is left out only when
    it has a lower id than one from before ``since``.
    """
    ((low,), (last,)) = (connection.execute(text.format(table)).fetchone() for text in (_FIRST, _LAST))
    probe, high = _PROBE.format(table, column), last + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(probe, (middle,)).fetchone()
        if row is None or row[1] >= since:
            high = middle
        else:
            low = row[0] + 1
    return IdRange(low, last)


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

_TOTALS = "SELECT trigger_id, accepted, refused, last_success, last_failure FROM trigger_totals"
_INSERT_TOTALS = "INSERT INTO trigger_totals (trigger_id, accepted, refused, last_success, last_failure) VALUES "
_LATER = "{0} = max(coalesce({0}, excluded.{0}), coalesce(excluded.{0}, {0}))"
_ADD_TOTALS = (
    " ON CONFLICT (trigger_id) DO UPDATE SET accepted = accepted + excluded.accepted,"
    " refused = refused + excluded.refused, " + _LATER.format("last_success") + ", " + _LATER.format("last_failure")
)
_INSERT_REFUSALS = "INSERT INTO refusals (minute, trigger_id, reason, count) VALUES "
_ADD_REFUSALS = " ON CONFLICT (minute, trigger_id, reason) DO UPDATE SET count = count + excluded.count"
_ACCEPTED_SINCE = (
    "SELECT trigger_id, count(*), max(id) FROM"
    " (SELECT id, trigger_id FROM deliveries WHERE id > ? AND id <= ? ORDER BY id LIMIT ?) GROUP BY trigger_id"
)
_HIGHEST = "SELECT coalesce(max(id), 0) FROM deliveries"
_LATEST_ATTEMPTS = (
    "SELECT d.trigger_id, max(a.completed_at) FILTER (WHERE a.outcome = 'success'),"
    " max(a.completed_at) FILTER (WHERE a.outcome NOT IN ('success', 'skipped') AND a.error_class <> 'retry_after')"
    " FROM (SELECT delivery_id, outcome, error_class, completed_at FROM attempts ORDER BY id DESC LIMIT ?) a"
    " CROSS JOIN deliveries d ON d.id = a.delivery_id GROUP BY d.trigger_id"
)
_DEAD = (
    "SELECT trigger_id, count(*) FROM deliveries INDEXED BY deliveries_dead_groups WHERE state = 3 GROUP BY trigger_id"
)
_UNFINISHED = "deliveries INDEXED BY deliveries_unfinished WHERE state < 2"
_COUNT_UNFINISHED = (
    "SELECT trigger_id, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
    " FROM " + _UNFINISHED + " GROUP BY trigger_id"
)
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


@implementer(ITotals)
class SQLiteTotals(TotalsHalf):
    """`ITotals` on SQLite."""

    @reads
    def totals(self, connection: sqlite3.Connection) -> Mapping[str, TriggerTotal]:
        """See `ITotals.totals`."""
        return {row[0]: total_of(row) for row in connection.execute(_TOTALS)}

    @reads
    def highest(self, connection: sqlite3.Connection) -> int:
        """See `ITotals.highest`."""
        (found,) = connection.execute(_HIGHEST).fetchone()
        return int(found)

    @reads
    def latest_attempts(self, connection: sqlite3.Connection, limit: int) -> Mapping[str, TriggerTotal]:
        """See `ITotals.latest_attempts`."""
        return {
            trigger_id: TriggerTotal(trigger_id=trigger_id, last_success=success, last_failure=failure)
            for trigger_id, success, failure in connection.execute(_LATEST_ATTEMPTS, (limit,))
        }

    @reads
    def dead(self, connection: sqlite3.Connection) -> Mapping[str, int]:
        """See `ITotals.dead`."""
        return dict(connection.execute(_DEAD).fetchall())

    @reads
    def unfinished(self, connection: sqlite3.Connection) -> Sequence[TriggerUnfinished]:
        """See `ITotals.unfinished`."""
        return [
            TriggerUnfinished(trigger_id=trigger_id, ready=ready, waiting=waiting)
            for trigger_id, ready, waiting in connection.execute(_COUNT_UNFINISHED)
        ]

    @reads
    def backlogs(
        self, connection: sqlite3.Connection, now: float, running: Collection[int]
    ) -> Mapping[str, TriggerBacklog]:
        """See `ITotals.backlogs`."""
        return backlogs_of(connection.execute(_BACKLOGS, (json.dumps(list(running)),)), now)

    @reads
    def uncounted(self, connection: sqlite3.Connection, limit: int) -> Mapping[str, int]:
        """See `ITotals.uncounted`."""
        found = self._accepted_since(connection, self._counted(connection), 2**63 - 1, limit)
        return {trigger_id: count for trigger_id, count, _ in found}

    def _accepted_since(
        self, connection: sqlite3.Connection, after: int, until: int, limit: int
    ) -> Sequence[tuple[str, int, int]]:
        return connection.execute(_ACCEPTED_SINCE, (after, until, limit)).fetchall()

    def _counted(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT value FROM standing WHERE name = ?", (COUNTED,)).fetchone()
        return 0 if row is None else int(msgspec.json.decode(row[0]))

    def _note_counted(self, session: Session, counted: int) -> None:
        STANDING.put_all(session, encode_checkpoints({COUNTED: counted}))

    def _add(self, session: Session, totals: Sequence[TriggerTotal]) -> None:
        values: list[Any] = []
        for each in totals:
            values += (each.trigger_id, each.accepted, each.refused, each.last_success, each.last_failure)
        if values:
            session.execute_rows(_INSERT_TOTALS, 5, values, _ADD_TOTALS)

    def _add_refused(self, session: Session, refused: Sequence[RefusedCount]) -> None:
        values = [value for each in refused for value in (each.minute, each.trigger_id, each.reason, each.count)]
        session.execute_rows(_INSERT_REFUSALS, 4, values, _ADD_REFUSALS)


def trim_refusals(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Remove up to ``limit`` rows about minutes that ended before then (seconds, Unix)."""
    minutes = "SELECT minute, trigger_id, reason FROM refusals WHERE minute < ? ORDER BY minute LIMIT ?"
    statement = "DELETE FROM refusals WHERE (minute, trigger_id, reason) IN (" + minutes + ")"
    return connection.execute(statement, (int(before // 60.0), limit)).rowcount


def trim_totals(connection: sqlite3.Connection, policy: RetentionPolicy, now: float, limit: int) -> int:
    """Remove the totals of up to ``limit`` triggers that are not served and have no rows any more; return how many."""
    if not policy.triggers:
        return 0
    return connection.execute(_GONE, (json.dumps(policy.triggers), now - policy.events, limit)).rowcount
