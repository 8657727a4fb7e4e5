"""
Retention: each step removes a slice of rows that the policy does not keep, found by an index and not by a scan.

PostgreSQL uses the room of removed rows again once it has vacuumed their tables, which it does by itself.
"""

from __future__ import annotations

import msgspec

from harn.store.postgres import claims, event_log, generations, jobs, recovery, statistics
from harn.store.postgres.connection import PostgresSession
from harn.store.postgres.generations import STANDING
from harn.store.retention import RetentionPolicy
from harn.store.rows import DEAD, DONE

MOST_BYTES = 8 << 20
"""Bodies of one slice."""

_FINISHED = (
    "SELECT d.id, octet_length(e.envelope) + octet_length(e.body) FROM deliveries d JOIN events e ON e.id = d.id"
    " WHERE d.state >= 2 AND d.state = $1::smallint AND d.settled_at < $2::float8"
    " ORDER BY d.settled_at, d.id LIMIT $3::bigint"
)
_REMOVE = (
    "WITH attempted AS (DELETE FROM attempts WHERE delivery_id = ANY ($1::bigint[])),"
    " event AS (DELETE FROM events WHERE id = ANY ($1::bigint[])) DELETE FROM deliveries WHERE id = ANY ($1::bigint[])"
)
_MEASURE = (
    "SELECT coalesce(sum(octet_length(envelope) + octet_length(body)), 0)::bigint, count(*), max(id) FROM events"
    " WHERE id > $1::bigint"
)
_MEASURED = "events_measured"
"""What ``standing`` keeps the last measurement of the events under."""
PER_DELIVERY = 1024
"""Bytes that the rows and indices of a delivery take beside its event, about."""


class _Measured(msgspec.Struct):
    """The size of the events up to an id, in bytes."""

    until: int = 0
    size: int = 0


def trim(session: PostgresSession, policy: RetentionPolicy, now: float, limit: int) -> int:
    """See `IRetention.trim`: the steps in order, until ``limit`` rows are removed."""
    removed = claims.trim(session, now, limit)
    if removed < limit:
        removed += event_log.LOG.trim(session, now - policy.events, limit - removed)
    for state, kept in ((DONE, policy.events), (DEAD, policy.dead)):
        if removed < limit:
            removed += _remove_finished(session, state, now - kept, limit - removed, MOST_BYTES)
    if removed < limit:
        removed += jobs.trim(session, now - policy.events, limit - removed)
    if removed < limit:
        removed += recovery.trim_servers(session, now - policy.events)
    if removed < limit:
        removed += statistics.trim_refusals(session.connection, now - policy.events, limit - removed)
    if removed < limit and policy.max_bytes is not None:
        removed += _remove_excess(session, policy.max_bytes, limit - removed)
    if not removed:
        # Once in a sweep, at its end: these look at every binding version and every trigger.
        removed = generations.GENERATIONS.trim(session, policy, limit)
        if removed < limit:
            removed += statistics.trim_totals(session.connection, policy, now, limit - removed)
    return removed


def _measure(session: PostgresSession) -> _Measured:
    """
    Return the size of the data: what was measured before, and the events that came since.

    Tables keep the room of removed rows for later ones, so that their own size does not say what is in use.
    """
    found = _noted(session) or _Measured()
    size, count, last = session.connection.execute(_MEASURE, (found.until,)).fetchone()
    if count:
        found.until, found.size = last, found.size + size + count * PER_DELIVERY
    return found


def _noted(session: PostgresSession) -> _Measured | None:
    row = session.connection.execute(STANDING.get, (_MEASURED,)).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=_Measured)


def _note(session: PostgresSession, measured: _Measured) -> None:
    STANDING.put_all(session, {_MEASURED: msgspec.json.encode(measured)})


def _remove_finished(
    session: PostgresSession, state: int, before: float, limit: int, most_bytes: int, measured: _Measured | None = None
) -> int:
    ids: list[int] = []
    size = removed = 0
    measured = measured or _noted(session)
    for delivery_id, length in session.connection.execute(_FINISHED, (state, float(before), limit)):
        ids.append(delivery_id)
        size += length
        if measured is not None and delivery_id <= measured.until:
            removed += length + PER_DELIVERY
        if size >= most_bytes:
            break
    if ids and measured is not None:
        measured.size -= removed
        _note(session, measured)
    return int(session.connection.execute(_REMOVE, (ids,)).rowcount) if ids else 0


def _remove_excess(session: PostgresSession, max_bytes: int, limit: int) -> int:
    """Remove the oldest deliveries that are done; dead letters, which may be replayed, only if none is left."""
    measured = _measure(session)
    excess = measured.size - max_bytes
    for state in (DONE, DEAD) if excess > 0 else ():
        removed = _remove_finished(session, state, float("inf"), limit, min(excess, MOST_BYTES), measured)
        if removed:
            return removed
    _note(session, measured)
    return 0
