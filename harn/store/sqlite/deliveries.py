"""Queries over the deliveries, and the statements that change many of them at once."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harn.model import delivery as model
from harn.model.delivery import StoredDelivery
from harn.store.burial import REMOVED, given_up
from harn.store.model import Backlog, Recovery

if TYPE_CHECKING:
    from harn.store.sqlite.session import Session

_STATES = (model.READY, model.WAITING, model.DONE, model.DEAD)

COLUMNS = (
    "d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, d.state, d.attempts, d.passed, d.recoveries,"
    " d.due_at, d.received_at, d.replay_of, e.envelope, e.body"
)
"""What `stored` reads, in its order."""

FROM = " FROM deliveries d JOIN events e ON e.id = d.id "

_SELECT = "SELECT " + COLUMNS + FROM
_READY = _SELECT + "WHERE d.state = 0 AND d.owner = ? AND d.id > ? ORDER BY d.id LIMIT ?"
_DUE = (
    _SELECT + "WHERE d.state = 1 AND d.owner = ? AND d.due_at <= ?"
    " AND d.id NOT IN (SELECT value FROM json_each(?)) ORDER BY d.due_at, d.id LIMIT ?"
)
_NEXT_DUE = "SELECT min(due_at) FROM deliveries WHERE state = 1 AND owner = ? AND due_at > ?"
_FIND = _SELECT + "WHERE d.event_id = ? ORDER BY d.id"
_BACKLOG = (
    "SELECT trigger_id, version, sum(state = 0), sum(state = 1) FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 GROUP BY trigger_id, version"
)
_STRANDED = (
    _SELECT + "WHERE d.id IN (SELECT id FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 AND owner IS NOT ? AND received_at < ? ORDER BY id LIMIT ?) ORDER BY d.id"
)

_OF_VERSION = "state < 2 AND trigger_id = ? AND version = ? AND id NOT IN (SELECT value FROM json_each(?))"
_MOVE = "UPDATE deliveries INDEXED BY deliveries_unfinished SET version = ? WHERE " + _OF_VERSION
_BURY_SOME = (
    "UPDATE deliveries SET state = 3, due_at = NULL, settled_at = ?, dead_number = ? + place, reason = ?,"
    " error_class = ?, error = ?{} FROM (SELECT id AS dying, row_number() OVER (ORDER BY id) AS place"
    " FROM deliveries INDEXED BY deliveries_unfinished WHERE {}) WHERE id = dying"
)
_BURY_VERSION = _BURY_SOME.format("", _OF_VERSION)
_NOT_OURS = "state < 2 AND owner <> ? AND received_at < ?"
_BURY_INCURABLE = _BURY_SOME.format(", owner = ?, recoveries = recoveries + 1", _NOT_OURS + " AND recoveries + 1 >= ?")
_LEFT_BEHIND = (
    "SELECT trigger_id, version, sum(state = 0), sum(state = 1) FROM deliveries INDEXED BY deliveries_unfinished WHERE "
    + _NOT_OURS
    + " GROUP BY trigger_id, version"
)
_TAKE_OVER = (
    "UPDATE deliveries INDEXED BY deliveries_unfinished SET owner = ?, recoveries = recoveries + 1 WHERE " + _NOT_OURS
)


def stored(row: Sequence[Any]) -> StoredDelivery:
    """Read one row of `COLUMNS`."""
    return StoredDelivery(
        delivery_id=row[0],
        event_id=row[1],
        trigger_id=row[2],
        version=row[3],
        provider=row[4],
        kind=row[5],
        state=_STATES[row[6]],
        attempts=row[7],
        passed=bool(row[8]),
        recoveries=row[9],
        due_at=row[10],
        received_at=row[11],
        replay_of=row[12],
        envelope=row[13],
        body=row[14],
    )


def up_to(rows: Iterable[StoredDelivery], max_bytes: int) -> list[StoredDelivery]:
    """Take rows until their bodies would be more than ``max_bytes``, at least one."""
    taken: list[StoredDelivery] = []
    size = 0
    for row in rows:
        size += len(row.body)
        if taken and size > max_bytes:
            break
        taken.append(row)
    return taken


def ready(
    connection: sqlite3.Connection, owner: int, after: int, limit: int, max_bytes: int
) -> Sequence[StoredDelivery]:
    """See `IDeliveries.ready`."""
    return up_to(map(stored, connection.execute(_READY, (owner, after, limit))), max_bytes)


def due(
    connection: sqlite3.Connection, owner: int, now: float, limit: int, excluding: Collection[int]
) -> Sequence[StoredDelivery]:
    """See `IDeliveries.due`."""
    return list(map(stored, connection.execute(_DUE, (owner, now, json.dumps(list(excluding)), limit))))


def next_due(connection: sqlite3.Connection, owner: int, after: float) -> float | None:
    """See `IDeliveries.next_due`."""
    (at,) = connection.execute(_NEXT_DUE, (owner, after)).fetchone()
    return None if at is None else float(at)


def find(connection: sqlite3.Connection, event_id: str) -> Sequence[StoredDelivery]:
    """See `IDeliveries.find`."""
    return list(map(stored, connection.execute(_FIND, (event_id,))))


def backlog(connection: sqlite3.Connection) -> Sequence[Backlog]:
    """See `IDeliveries.backlog`."""
    return list(map(_count, connection.execute(_BACKLOG)))


def stranded(
    connection: sqlite3.Connection, owner: int | None, older_than: float, limit: int
) -> Sequence[StoredDelivery]:
    """See `IDeliveries.stranded`; with no ``owner``, everybody's."""
    return list(map(stored, connection.execute(_STRANDED, (owner, older_than, limit))))


def move(
    session: Session, trigger_id: str, version: int, to_version: int | None, now: float, excluding: Collection[int]
) -> int:
    """See `IDeliveries.move`."""
    which = (trigger_id, version, json.dumps(list(excluding)))
    if to_version is not None:
        return session.connection.execute(_MOVE, (to_version, *which)).rowcount
    values = (now, session.numbers.dead, REMOVED.reason, REMOVED.error_class, REMOVED.error, *which)
    dead = session.connection.execute(_BURY_VERSION, values).rowcount
    session.numbers.dead += dead
    return dead


def recover(session: Session, now: float, limit: int, received_before: float | None) -> Recovery:
    """See `IDeliveries.recover`."""
    execute, ours, why = session.connection.execute, session.incarnation, given_up(limit)
    which = (ours, float("inf") if received_before is None else received_before)
    values = (now, session.numbers.dead, why.reason, why.error_class, why.error, ours, *which, limit)
    dead = execute(_BURY_INCURABLE, values).rowcount
    session.numbers.dead += dead
    counts = tuple(map(_count, execute(_LEFT_BEHIND, which)))
    recovered = execute(_TAKE_OVER, (ours, *which)).rowcount
    return Recovery(recovered=recovered, dead=dead, backlog=counts)


def _count(row: Sequence[Any]) -> Backlog:
    trigger_id, version, ready, waiting = row
    return Backlog(trigger_id=trigger_id, version=version, ready=ready, waiting=waiting)
