"""
Retention: each step removes a slice of rows that the policy does not keep, found by an index and not by a scan.

Pages that nothing uses after that are given back to the file system, a few in each transaction. A file that is made
today notes for each page what points to it (``auto_vacuum = INCREMENTAL``), so that the last pages can be moved to free
ones before them. One of an earlier version does not; `harn orchestrator compact` changes that.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from harn.store.retention import RetentionPolicy
from harn.store.rows import DEAD, DONE
from harn.store.sqlite import claims, event_log, generations, jobs, recovery, statistics
from harn.store.sqlite.connection import Session

MOST_BYTES = 8 << 20
"""Bodies of one slice: SQLite walks along the pages of each that it removes."""

_FINISHED = (
    "SELECT d.id, length(e.envelope) + length(e.body) FROM deliveries d JOIN events e ON e.id = d.id"
    " WHERE d.state >= 2 AND d.state = ? AND d.settled_at < ? ORDER BY d.settled_at LIMIT ?"
)
_REMOVE = (
    "DELETE FROM attempts WHERE delivery_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(?))",
)


def trim(session: Session, policy: RetentionPolicy, now: float, limit: int) -> int:
    """See `IRetention.trim`: the steps in order, until ``limit`` rows are removed."""
    removed = claims.trim(session, now, limit)
    session.keep_numbers()
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


def used_bytes(connection: sqlite3.Connection) -> int:
    """Measure the data: the database without the pages that are free for use."""
    (pages,), (free,), (size,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _remove_finished(session: Session, state: int, before: float, limit: int, most_bytes: int) -> int:
    ids: list[int] = []
    size = 0
    for delivery_id, length in session.connection.execute(_FINISHED, (state, before, limit)):
        ids.append(delivery_id)
        size += length
        if size >= most_bytes:
            break
    return _remove(session.connection, ids)


def _remove_excess(session: Session, max_bytes: int, limit: int) -> int:
    """Remove the oldest deliveries that are done; dead letters, which may be replayed, only if none is left."""
    excess = used_bytes(session.connection) - max_bytes
    if excess <= 0:
        return 0
    for state in (DONE, DEAD):
        removed = _remove_finished(session, state, float("inf"), limit, min(excess, MOST_BYTES))
        if removed:
            return removed
    return 0


def _remove(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    if ids:
        for statement in _REMOVE:
            connection.execute(statement, (json.dumps(ids),))
    return len(ids)


KEPT = 1024
"""Free pages (4 MiB) that stay in the file in any case: what comes next needs them."""
SHARE = 8
"""One page of so many that hold data stays, too: to give pages back that are needed within the hour costs twice."""


def shrink(session: Session, pages: int) -> int:
    """
    Return ``pages`` free pages or fewer to the file system, within the caller's transaction; give their number.

    0 once few enough are free.
    """
    execute = session.connection.execute
    (mode,), (total,), (free,) = (
        execute(f"PRAGMA {name}").fetchone() for name in ("auto_vacuum", "page_count", "freelist_count")
    )
    wanted = min(pages, free - max(KEPT, (total - free) // SHARE))
    if mode == 0 or wanted <= 0:
        return 0
    for _ in range(wanted):
        execute("PRAGMA incremental_vacuum(1)")  # of a larger number Python runs the first step alone
    (left,) = execute("PRAGMA page_count").fetchone()
    return int(total - left)
