"""Queries over the deliveries, and the statements that change many of them at once."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from harn.model import delivery as model
from harn.model.delivery import LARGE_BODY, RETRY_EXHAUSTED, DeadLetter, StoredDelivery
from harn.store.deliveries import REMOVED, Backlog, RecentEvent, Recovery, disposition, recovery_limit
from harn.store.sqlite.schema import READY, WAITING

if TYPE_CHECKING:
    from harn.store.sqlite.session import Session

_STATES = (model.READY, model.WAITING, model.DONE, model.DEAD)

COLUMNS = (
    "d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, d.state, d.attempts, d.passed, d.crashes,"
    " d.due_at, d.received_at, d.replay_of, e.envelope, e.body"
)
"""What `stored` reads, in its order."""

_WITHOUT_EVENT = COLUMNS.replace("e.envelope, e.body", "x'', x''")

FROM = " FROM deliveries d JOIN events e ON e.id = d.id "

_SELECT = "SELECT " + COLUMNS + FROM
# For a large body SQLite reads its length alone.
_LIGHT = COLUMNS.replace("e.body", f"CASE WHEN length(e.body) > {LARGE_BODY} THEN x'' ELSE e.body END, length(e.body)")
_READY = "SELECT " + _LIGHT + FROM + "WHERE d.state = 0 AND d.owner = ? AND d.id > ? ORDER BY d.id LIMIT ?"
_DUE = (
    "SELECT " + _LIGHT + FROM + "WHERE d.state = 1 AND d.owner = ? AND d.due_at <= ?"
    " AND d.id NOT IN (SELECT value FROM json_each(?)) ORDER BY d.due_at, d.id LIMIT ?"
)
_NEXT_DUE = "SELECT min(due_at) FROM deliveries WHERE state = 1 AND owner = ? AND due_at > ?"
_FIND = _SELECT + "WHERE d.event_id = ? ORDER BY d.id"
_BACKLOG = (
    "SELECT trigger_id, version, sum(state = 0), sum(state = 1) FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 GROUP BY trigger_id, version"
)
# Neither this server's, nor those of others that live.
_LEFT_BEHIND = "state < 2 AND owner NOT IN (SELECT value FROM json_each(?)) AND received_at < ?"
_STRANDED = (
    "SELECT "
    + _WITHOUT_EVENT
    + FROM
    + "WHERE d.id IN (SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE "
    + _LEFT_BEHIND
    + " ORDER BY id LIMIT ?) ORDER BY d.id"
)
_HAS_UNFINISHED = (
    "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state = 0 AND owner = ?1)"
    " OR EXISTS (SELECT 1 FROM deliveries WHERE state = 1 AND owner = ?1)"
)
_COUNT_STRANDED = "SELECT count(*) FROM deliveries INDEXED BY deliveries_unfinished WHERE " + _LEFT_BEHIND
_STATES_OF = (
    "SELECT id, state FROM deliveries WHERE id IN (SELECT value FROM json_each(?)) AND (owner = ? OR state >= 2)"
)
# Two steps in the index, whose order is that of states, then of ids: the first that is ready (or, for want of any,
# that waits), and the first that waits.
_FIRST_FROM = (
    "SELECT (SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE state < 2"
    " AND trigger_id = ?1 AND version = ?2 AND state >= {} ORDER BY state, id LIMIT 1) AS first"
)
_OLDEST = (
    "SELECT " + _WITHOUT_EVENT + " FROM deliveries d WHERE d.id ="
    " (SELECT min(first) FROM (" + _FIRST_FROM.format(0) + " UNION ALL " + _FIRST_FROM.format(1) + "))"
)
# The innermost query ends after so many rows, whosever they are; only of those that are chosen, more is read.
_RECENT = (
    "SELECT d.event_id, d.trigger_id, d.version, d.kind, d.received_at, e.envelope, e.body,"
    " d.state, d.reason, d.passed,"
    " (SELECT outcome FROM attempts a WHERE a.delivery_id = d.id ORDER BY a.id DESC LIMIT 1),"
    " EXISTS (SELECT 1 FROM attempts a WHERE a.delivery_id = d.id AND a.outcome = 'success')"
    " FROM (SELECT id, row_number() OVER (PARTITION BY trigger_id ORDER BY id DESC) AS place"
    " FROM (SELECT id, trigger_id FROM deliveries ORDER BY id DESC LIMIT ?)"
    " WHERE trigger_id IN (SELECT value FROM json_each(?))) AS chosen"
    " CROSS JOIN deliveries d ON d.id = chosen.id CROSS JOIN events e ON e.id = d.id"
    " WHERE place <= ? ORDER BY d.id DESC"
)

_OF_VERSION = (
    "state < 2 AND trigger_id = ? AND version = ? AND state <= ? AND id NOT IN (SELECT value FROM json_each(?))"
)
_MOVE = "UPDATE deliveries INDEXED BY deliveries_unfinished SET version = ? WHERE " + _OF_VERSION
_BURY_SOME = (
    "UPDATE deliveries SET state = 3, due_at = NULL, settled_at = ?, dead_number = ? + place, reason = ?,"
    " error_class = ?, error = ?{} FROM (SELECT id AS dying, row_number() OVER (ORDER BY id) AS place"
    " FROM deliveries INDEXED BY deliveries_unfinished WHERE {}) WHERE id = dying"
)
_RELEASE_SOME = (
    "DELETE FROM claims WHERE delivery_id IN (SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE {})"
)
_RELEASE_VERSION = _RELEASE_SOME.format(_OF_VERSION)
_BURY_VERSION = _BURY_SOME.format("", _OF_VERSION)
_AMONG = "id IN (SELECT value FROM json_each(?))"
_COUNT_CRASH = (
    "UPDATE deliveries SET crashes = crashes + 1 WHERE state < 2 AND owner = ? AND received_at < ? AND " + _AMONG
)
_INCURABLE = _LEFT_BEHIND + " AND crashes >= ? AND " + _AMONG
_RELEASE_INCURABLE = _RELEASE_SOME.format(_INCURABLE)
_BURY_INCURABLE = _BURY_SOME.format(", owner = ?", _INCURABLE)
_BACKLOG_LEFT = (
    "SELECT trigger_id, version, sum(state = 0), sum(state = 1) FROM deliveries INDEXED BY deliveries_unfinished WHERE "
    + _LEFT_BEHIND
    + " GROUP BY trigger_id, version"
)
_TAKE_OVER = "UPDATE deliveries INDEXED BY deliveries_unfinished SET owner = ? WHERE " + _LEFT_BEHIND
_TAKE_BACK = (
    "UPDATE deliveries INDEXED BY deliveries_finished SET state = 0, version = ?, owner = ?, attempts = 0, passed = 0,"
    " due_at = NULL, settled_at = NULL, dead_number = NULL, reason = NULL, error_class = NULL, error = NULL"
    " WHERE state >= 2 AND state = 3 AND settled_at >= ? AND trigger_id = ? AND version = ? AND reason = ?"
)

_ADVANCE_DUE = "UPDATE deliveries SET due_at = due_at - ? WHERE state = 1 AND owner = ?"


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
        crashes=row[9],
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


def light(row: Sequence[Any]) -> StoredDelivery:
    """Read one row of `_LIGHT`."""
    size, delivery = row[15], stored(row)
    return delivery if size <= LARGE_BODY else evolve(delivery, left_out=size)


def ready(
    connection: sqlite3.Connection, owner: int, after: int, limit: int, max_bytes: int
) -> Sequence[StoredDelivery]:
    """See `IDeliveries.ready`."""
    return up_to(map(light, connection.execute(_READY, (owner, after, limit))), max_bytes)


def due(
    connection: sqlite3.Connection, owner: int, now: float, limit: int, excluding: Collection[int]
) -> Sequence[StoredDelivery]:
    """See `IDeliveries.due`."""
    return list(map(light, connection.execute(_DUE, (owner, now, json.dumps(list(excluding)), limit))))


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


def oldest(
    connection: sqlite3.Connection, versions: Collection[tuple[str, int]]
) -> Mapping[tuple[str, int], StoredDelivery]:
    """See `IDeliveries.oldest`."""
    rows = ((version, connection.execute(_OLDEST, version).fetchone()) for version in versions)
    return {version: stored(row) for version, row in rows if row is not None}


def recent(
    connection: sqlite3.Connection, trigger_ids: Collection[str], limit: int, depth: int
) -> Sequence[RecentEvent]:
    """See `IDeliveries.recent`."""
    values = (depth, json.dumps(list(trigger_ids)), limit)
    return [
        RecentEvent(
            event_id=row[0],
            trigger_id=row[1],
            version=row[2],
            kind=row[3],
            received_at=row[4],
            disposition=disposition(_STATES[row[7]], row[8], bool(row[9]), row[10], bool(row[11])),
            envelope=row[5],
            body=row[6],
        )
        for row in connection.execute(_RECENT, values)
    ]


def stranded(
    connection: sqlite3.Connection, but_of: Collection[int], older_than: float, limit: int
) -> Sequence[StoredDelivery]:
    """See `IDeliveries.stranded`; ``but_of`` are the servers whose deliveries are not."""
    return list(map(stored, connection.execute(_STRANDED, (json.dumps(list(but_of)), older_than, limit))))


def count_stranded(connection: sqlite3.Connection, but_of: Collection[int], older_than: float) -> int:
    """See `IDeliveries.count_stranded`; ``but_of`` as for `stranded`."""
    (count,) = connection.execute(_COUNT_STRANDED, (json.dumps(list(but_of)), older_than)).fetchone()
    return int(count)


def has_unfinished(connection: sqlite3.Connection, owner: int) -> bool:
    """Tell whether anything unfinished is a server's."""
    (found,) = connection.execute(_HAS_UNFINISHED, (owner,)).fetchone()
    return bool(found)


def states(connection: sqlite3.Connection, owner: int, delivery_ids: Collection[int]) -> Mapping[int, str]:
    """See `IDeliveries.states`."""
    rows = connection.execute(_STATES_OF, (json.dumps(list(delivery_ids)), owner))
    return {delivery_id: _STATES[state] for delivery_id, state in rows}


def move(
    session: Session, trigger_id: str, version: int, to_version: int | None, now: float, excluding: Collection[int]
) -> int:
    """See `IDeliveries.move`."""
    if to_version is None:
        return bury(session, trigger_id, version, REMOVED, now, excluding, waiting=True)
    values = (to_version, *_of_version(trigger_id, version, excluding, waiting=True))
    return session.connection.execute(_MOVE, values).rowcount


def bury(
    session: Session,
    trigger_id: str,
    version: int,
    dead: DeadLetter,
    now: float,
    excluding: Collection[int],
    waiting: bool,
) -> int:
    """See `IDeliveries.bury`."""
    why = (dead.reason, dead.error_class, dead.error)
    which = _of_version(trigger_id, version, excluding, waiting)
    session.connection.execute(_RELEASE_VERSION, which)
    count = session.connection.execute(_BURY_VERSION, (now, session.numbers.dead, *why, *which)).rowcount
    session.numbers.dead += count
    # An attempt that ran on may settle one of them anew; then no row has its number any more.
    session.keep_numbers()
    return count


def take_back(session: Session, trigger_id: str, version: int, to_version: int, since: float) -> int:
    """See `IDeliveries.take_back`."""
    # No row has the numbers of these dead letters any more, and they are not given again.
    session.keep_numbers()
    values = (to_version, session.incarnation, since, trigger_id, version, RETRY_EXHAUSTED)
    return session.connection.execute(_TAKE_BACK, values).rowcount


def advance_due(session: Session, seconds: float) -> None:
    """See `IDeliveries.advance_due`."""
    session.connection.execute(_ADVANCE_DUE, (seconds, session.incarnation))


def recover(
    session: Session,
    now: float,
    limit: int,
    received_before: float | None,
    living: Collection[int],
    crashed: Mapping[int, Collection[int]],
) -> Recovery:
    """
    See `IDeliveries.recover`.

    :param living: servers whose deliveries stay theirs; ``crashed``: of each that is gone, ids of what ran last.
    """
    execute, ours, why = session.connection.execute, session.incarnation, recovery_limit(limit)
    before = float("inf") if received_before is None else received_before
    which = (json.dumps([ours, *living]), before)
    counted = sum(
        execute(_COUNT_CRASH, (owner, before, json.dumps(list(ids)))).rowcount
        for owner, ids in crashed.items()
        if owner != ours and owner not in living
    )
    dead = 0
    if counted:
        incurable = (*which, limit, json.dumps([number for ids in crashed.values() for number in ids]))
        execute(_RELEASE_INCURABLE, incurable)
        values = (now, session.numbers.dead, why.reason, why.error_class, why.error, ours, *incurable)
        dead = execute(_BURY_INCURABLE, values).rowcount
        session.numbers.dead += dead
    counts = tuple(map(_count, execute(_BACKLOG_LEFT, which)))
    recovered = execute(_TAKE_OVER, (ours, *which)).rowcount
    return Recovery(recovered=recovered, dead=dead, crashed=counted, backlog=counts)


def _of_version(trigger_id: str, version: int, excluding: Collection[int], waiting: bool) -> tuple[Any, ...]:
    """Give the values of `_OF_VERSION`."""
    return (trigger_id, version, WAITING if waiting else READY, json.dumps(list(excluding)))


def _count(row: Sequence[Any]) -> Backlog:
    trigger_id, version, ready, waiting = row
    return Backlog(trigger_id=trigger_id, version=version, ready=ready, waiting=waiting)
