"""Statistics of attempts and deliveries. SQLite groups the rows itself, without Python's interpreter lock."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

import msgspec
from zope.interface import implementer

from harn.store.sqlite.executor import Idea, reads
from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, IStatistics, Span

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


class _Spec(msgspec.Struct):
    """The part of a trigger's stored definition that names its handler."""

    handler: str


@implementer(IStatistics)
class SQLiteStatistics(Idea):
    """`IStatistics` on SQLite."""

    @reads
    def attempts_since(self, connection: sqlite3.Connection, since: float) -> Span:
        """See `IStatistics.attempts_since`."""
        return _since(connection, "attempts", "completed_at", since)

    @reads
    def deliveries_since(self, connection: sqlite3.Connection, since: float) -> Span:
        """See `IStatistics.deliveries_since`."""
        return _since(connection, "deliveries", "received_at", since)

    @reads
    def attempts(
        self, connection: sqlite3.Connection, span: Span, since: float
    ) -> tuple[Sequence[AttemptGroup], Sequence[DoneGroup]]:
        """See `IStatistics.attempts`."""
        ended: list[AttemptGroup] = []
        done: list[DoneGroup] = []
        rows = connection.execute(_ATTEMPTS, (span.first, span.last, since))
        for is_whole, trigger_id, version, outcome, seconds, count in rows:
            if is_whole:
                done.append(DoneGroup(trigger_id, version, seconds, count))
            else:
                ended.append(AttemptGroup(trigger_id, version, outcome, seconds, count))
        return ended, done

    @reads
    def accepted(self, connection: sqlite3.Connection, span: Span, since: float) -> Sequence[AcceptedGroup]:
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
        return {key: msgspec.json.decode(row[0], type=_Spec).handler for key, row in rows if row is not None}


def _since(connection: sqlite3.Connection, table: str, column: str, since: float) -> Span:
    """
    Return the ids of the rows from the first whose time is ``since`` or later.

    Ids rise with time but for the order within a moment, and for a clock that was set back: a row is left out only when
    it has a lower id than one of before ``since``.
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
    return Span(low, last)
