"""Deliveries that have been ready for too long: the oldest of each trigger, found without reading the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence

from harn.store.deliveries import Overdue

MOST_DUE = 10_000
"""Overdue retries that are looked at, the longest due first."""

# The first version after another that has anything unfinished: one step in the index, whatever lies between.
_NEXT_VERSION = (
    "SELECT trigger_id, version FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 AND (trigger_id, version) > (?, ?) ORDER BY trigger_id, version LIMIT 1"
)
_OLDEST_READY = (
    "SELECT trigger_id, event_id, coalesce(due_at, received_at) FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 AND trigger_id = ? AND version = ? AND state = 0"
    " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1"
)
_OLDEST_DUE = (
    "SELECT trigger_id, event_id, min(due_at) FROM (SELECT trigger_id, event_id, due_at FROM deliveries"
    " INDEXED BY deliveries_waiting WHERE state = 1 AND owner = ? AND due_at < ?"
    " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT ?) GROUP BY trigger_id"
)


def overdue(connection: sqlite3.Connection, owner: int, before: float, running: Collection[int]) -> Sequence[Overdue]:
    """See `harn.store.deliveries.IDeliveries.overdue`; ``owner`` is the server that retries belong to."""
    excluded = json.dumps(list(running))
    oldest: dict[str, Overdue] = {}
    found = [each for each in _ready(connection, excluded) if each.since < before]
    found += _rows(connection.execute(_OLDEST_DUE, (owner, before, excluded, MOST_DUE)))
    for each in found:
        known = oldest.get(each.trigger_id)
        if known is None or each.since < known.since:
            oldest[each.trigger_id] = each
    return list(oldest.values())


def _ready(connection: sqlite3.Connection, excluded: str) -> Iterator[Overdue]:
    """Yield the oldest ready delivery of each version that has any."""
    version = connection.execute(_NEXT_VERSION, ("", -1)).fetchone()
    while version is not None:
        yield from _rows(connection.execute(_OLDEST_READY, (*version, excluded)))
        version = connection.execute(_NEXT_VERSION, version).fetchone()


def _rows(rows: sqlite3.Cursor) -> list[Overdue]:
    return [Overdue(trigger_id=row[0], event_id=row[1], since=row[2]) for row in rows]
