"""Retention's statements: each removes a slice of what nobody keeps, found by an index and not by a scan."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from harn.store.retention import RetentionPolicy
from harn.store.sqlite.generations import UNADOPTED
from harn.store.sqlite.schema import DEAD, DONE
from harn.store.sqlite.session import Session

MOST_BYTES = 8 << 20
"""Bodies of one slice: SQLite walks along the pages of each that it removes."""

_EXPIRED_CLAIMS = (
    "DELETE FROM claims WHERE (scope, key) IN"
    " (SELECT scope, key FROM claims WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)
# Numbers rise with time, so that the oldest come first; a WHERE inside would read on to the end for want of any.
_OLD_RECORDS = (
    "DELETE FROM log WHERE number IN"
    " (SELECT number FROM (SELECT number, occurred_at FROM log ORDER BY number LIMIT ?) WHERE occurred_at < ?)"
)
_FINISHED = (
    "SELECT d.id, length(e.envelope) + length(e.body) FROM deliveries d JOIN events e ON e.id = d.id"
    " WHERE d.state >= 2 AND d.state = ? AND d.settled_at < ? ORDER BY d.settled_at LIMIT ?"
)
_REMOVE = (
    "DELETE FROM attempts WHERE delivery_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(?))",
)
_SILENT_SERVERS = "DELETE FROM servers WHERE seen_at < ? AND incarnation <> ?"

_FLOOR = (
    "SELECT min(number) FROM (SELECT number FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT ?)"
)
_FURTHER = "IN (SELECT value FROM json_each(?2))"
# Kept: a trigger's newest version (numbers never go back) and the newest that is known to have served, what an
# unfinished delivery names, and what the policy does (as one list of texts, which SQLite sorts once).
_OLD_VERSIONS = (
    "DELETE FROM binding_versions WHERE rowid IN (SELECT b.rowid FROM binding_versions b WHERE b.generation < ?1"
    " AND b.generation NOT " + _FURTHER + " AND EXISTS"
    " (SELECT 1 FROM binding_versions n WHERE n.trigger_id = b.trigger_id AND n.version > b.version"
    " AND n.generation NOT IN " + UNADOPTED + ")"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_unfinished"
    " WHERE d.state < 2 AND d.trigger_id = b.trigger_id AND d.version = b.version)"
    " AND b.trigger_id || '@v' || b.version NOT IN (SELECT value FROM json_each(?4))"
    " ORDER BY b.generation, b.trigger_id, b.version LIMIT ?3)"
)
_OLD_GENERATIONS = (
    "DELETE FROM generations WHERE number IN (SELECT number FROM generations WHERE number < ?1"
    " AND number NOT " + _FURTHER + " ORDER BY number LIMIT ?3)"
)
_UNNAMED_BUNDLES = (
    "DELETE FROM bundles WHERE bundle_id IN (SELECT bundle_id FROM bundles WHERE bundle_id NOT IN"
    " (SELECT bundle_id FROM generations WHERE number >= ?1 OR number " + _FURTHER + " UNION"
    " SELECT bundle_id FROM binding_versions) ORDER BY bundle_id LIMIT ?3)"
)
_UNNAMED_MANIFESTS = (
    "DELETE FROM manifests WHERE digest IN (SELECT digest FROM manifests WHERE digest NOT IN"
    " (SELECT manifest_digest FROM generations WHERE number >= ?1 OR number " + _FURTHER + ")"
    " ORDER BY digest LIMIT ?3)"
)
_REST = (_OLD_GENERATIONS, _UNNAMED_BUNDLES, _UNNAMED_MANIFESTS)


def trim(session: Session, policy: RetentionPolicy, now: float, limit: int) -> int:
    """See `IStore.trim`: the steps in order, until ``limit`` rows are removed."""
    execute = session.connection.execute
    removed = execute(_EXPIRED_CLAIMS, (now, limit)).rowcount
    session.keep_numbers()
    if removed < limit:
        removed += execute(_OLD_RECORDS, (limit - removed, now - policy.events)).rowcount
    for state, kept in ((DONE, policy.events), (DEAD, policy.dead)):
        if removed < limit:
            removed += _remove_finished(session, state, now - kept, limit - removed, MOST_BYTES)
    if removed < limit:
        removed += execute(_SILENT_SERVERS, (now - policy.events, session.incarnation)).rowcount
    if removed < limit and policy.max_bytes is not None:
        removed += _remove_excess(session, policy.max_bytes, limit - removed)
    if not removed:
        # Once in a sweep, at its end: these look at every binding version.
        removed = _remove_definitions(session.connection, policy, limit)
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
    """Remove the oldest of what is done; the dead letters, which wait for somebody, only if nothing else is left."""
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


def _remove_definitions(connection: sqlite3.Connection, policy: RetentionPolicy, limit: int) -> int:
    # The newest that was adopted is the live one, or the last good one: it stays whatever the policy says.
    (floor,) = connection.execute(_FLOOR, (max(1, policy.generations),)).fetchone()
    if floor is None:
        return 0
    further = json.dumps(policy.kept)
    versions = json.dumps([f"{trigger_id}@v{version}" for trigger_id, version in policy.versions])
    removed = connection.execute(_OLD_VERSIONS, (floor, further, limit, versions)).rowcount
    for statement in _REST:
        if removed < limit:
            removed += connection.execute(statement, (floor, further, limit - removed)).rowcount
    return removed
