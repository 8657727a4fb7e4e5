"""Recovery: what each server leaves behind, taken over by another; and the rows that say which servers live."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace
from zope.interface import implementer

from harn.model.delivery import StoredDelivery
from harn.store.deliveries import Backlog
from harn.store.executor import reads, writes
from harn.store.halves import Left, RecoveryHalf, TakenOver
from harn.store.recovery import LAPSE, IRecovery, Recovery, recovery_limit
from harn.store.rows import count, stored
from harn.store.sqlite.connection import Session
from harn.store.sqlite.deliveries import (
    BACKLOG,
    COUNTS,
    DEAD_LETTER_SOME,
    FROM,
    RELEASE_SOME,
    WITHOUT_EVENT,
)

if TYPE_CHECKING:
    from harn.store.store import Beat

TABLES = """
CREATE TABLE servers (
    incarnation INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at REAL NOT NULL,
    seen_at REAL NOT NULL
);
"""

_SEEN = "SELECT incarnation, seen_at FROM servers"
_SEEN_BETWEEN = _SEEN + " WHERE seen_at > ? AND seen_at <= ?"


# Neither this server's, nor those of others that live.
_LEFT_BEHIND = "state < 2 AND owner NOT IN (SELECT value FROM json_each(?)) AND received_at < ?"
_UNFINISHED = (
    "SELECT "
    + WITHOUT_EVENT
    + FROM
    + "WHERE d.id IN (SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE "
    + _LEFT_BEHIND
    + " ORDER BY id LIMIT ?) ORDER BY d.id"
)
_HAS_UNFINISHED = (
    "SELECT EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_ready WHERE state = 0 AND owner = ?1)"
    " OR EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_waiting WHERE state = 1 AND owner = ?1)"
)
_COUNT_UNFINISHED = "SELECT count(*) FROM deliveries INDEXED BY deliveries_unfinished WHERE " + _LEFT_BEHIND
_AMONG = "id IN (SELECT value FROM json_each(?))"
_COUNT_CRASH = (
    "UPDATE deliveries SET crashes = crashes + 1 WHERE state < 2 AND owner = ? AND received_at < ? AND " + _AMONG
)
_INCURABLE = _LEFT_BEHIND + " AND crashes >= ? AND " + _AMONG
_RELEASE_INCURABLE = RELEASE_SOME.format(_INCURABLE)
_DEAD_LETTER_INCURABLE = DEAD_LETTER_SOME.format(*"?????", ", owner = ?", _INCURABLE)
_BACKLOG_LEFT = (
    "SELECT trigger_id, version, "
    + COUNTS
    + " FROM deliveries INDEXED BY deliveries_unfinished WHERE "
    + _LEFT_BEHIND
    + " GROUP BY trigger_id, version"
)
_TAKE_OVER = "UPDATE deliveries INDEXED BY deliveries_unfinished SET owner = ? WHERE " + _LEFT_BEHIND
_IS_INCURABLE = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state < 2 AND crashes >= ? AND " + _AMONG + ")"

_READY_ON = " WHERE trigger_id = ? AND version = ? AND state = 0 AND state < 2 AND owner = ?"
_COUNT_BEGUN = "SELECT count(*) FROM deliveries INDEXED BY deliveries_unfinished" + _READY_ON + " AND crashes > 0"
_GIVE_UNBEGUN = "UPDATE deliveries INDEXED BY deliveries_unfinished SET version = ?" + _READY_ON + " AND crashes = 0"

MOST_MOVED = 5000
"""
Rows of one server that another takes over by writing them, some 50 ms of work. With more it takes over the number.
"""
_OF_OWNER = " FROM deliveries INDEXED BY {} WHERE state = {} AND owner = "
_READY_OF, _WAITING_OF = _OF_OWNER.format("deliveries_ready", 0), _OF_OWNER.format("deliveries_waiting", 1)
_NEXT_OWNER = "SELECT min(owner)" + _OF_OWNER.replace("owner = ", "owner > ?")
_NEXT_OWNERS = (_NEXT_OWNER.format("deliveries_ready", 0), _NEXT_OWNER.format("deliveries_waiting", 1))
_COUNT_SOME = (
    "SELECT (SELECT count(*) FROM (SELECT 1" + _READY_OF + "?1 LIMIT ?2))"
    " + (SELECT count(*) FROM (SELECT 1" + _WAITING_OF + "?1 LIMIT ?2))"
)
_COUNT_ALL = "SELECT (SELECT count(*)" + _READY_OF + "?1) + (SELECT count(*)" + _WAITING_OF + "?1)"
_BACKLOG_OF = (
    "SELECT trigger_id, version, count(*), 0" + _READY_OF + "?1 GROUP BY 1, 2"
    " UNION ALL SELECT trigger_id, version, 0, count(*)" + _WAITING_OF + "?1 GROUP BY 1, 2"
)
_MOVE = (
    "UPDATE deliveries INDEXED BY deliveries_ready SET owner = ?2 WHERE state = 0 AND owner = ?1",
    "UPDATE deliveries INDEXED BY deliveries_waiting SET owner = ?2 WHERE state = 1 AND owner = ?1",
)


@implementer(IRecovery)
class SQLiteRecovery(RecoveryHalf):
    """`IRecovery` on SQLite."""

    @writes
    def _recover(self, session: Session, left: Left, limit: int, received_before: float | None) -> TakenOver:
        others = self._living(session.connection, left)
        notes = self._executor.notes.read()
        found = take_over(session, left.now, limit, received_before, others, notes)
        ended = tuple(
            each
            for each in notes
            if each != session.incarnation and each not in others and not has_unfinished(session.connection, each)
        )
        return TakenOver(found, session.incarnation, ended)

    @writes
    def keep_begun(self, session: Session, trigger_id: str, version: int, to_version: int) -> tuple[int, int]:
        """See `IRecovery.keep_begun`."""
        which = (trigger_id, version, session.incarnation)
        (stay,) = session.connection.execute(_COUNT_BEGUN, which).fetchone()
        if not stay:
            return 0, 0
        return int(stay), session.connection.execute(_GIVE_UNBEGUN, (to_version, *which)).rowcount

    @reads
    def _unfinished(
        self, connection: sqlite3.Connection, left: Left, older_than: float, limit: int
    ) -> Sequence[StoredDelivery]:
        but_of = [self._executor.incarnation, *self._living(connection, left)]
        return list(map(stored, connection.execute(_UNFINISHED, (json.dumps(but_of), older_than, limit))))

    @reads
    def _count_unfinished(self, connection: sqlite3.Connection, left: Left, older_than: float) -> int:
        but_of = [self._executor.incarnation, *self._living(connection, left)]
        (found,) = connection.execute(_COUNT_UNFINISHED, (json.dumps(but_of), older_than)).fetchone()
        return int(found)

    def _living(self, connection: sqlite3.Connection, left: Left) -> Collection[int]:
        seen = connection.execute(_SEEN_BETWEEN, (left.now - LAPSE, left.now + LAPSE)).fetchall()
        return self._others(dict(seen), left)


def take_over(
    session: Session,
    now: float,
    limit: int,
    received_before: float | None,
    living: Collection[int],
    crashed: Mapping[int, Collection[int]],
) -> Recovery:
    """
    Take over what servers that are gone left, as `IRecovery.recover` says.

    :param living: servers whose deliveries stay theirs.
    :param crashed: of each that is gone, ids of what ran last.
    """
    execute, ours, why = session.connection.execute, session.incarnation, recovery_limit(limit)
    before = float("inf") if received_before is None else received_before
    owners = owners_of_unfinished(session.connection)
    left = owners - {ours, *living}
    if not left:
        return Recovery(recovered=0, dead=0)
    which = (json.dumps([ours, *living]), before)
    counted = sum(
        execute(_COUNT_CRASH, (owner, before, json.dumps(list(ids)))).rowcount
        for owner, ids in crashed.items()
        if owner != ours and owner not in living
    )
    dead = 0
    noted = json.dumps([number for ids in crashed.values() for number in ids])
    if counted and execute(_IS_INCURABLE, (limit, noted)).fetchone()[0]:
        incurable = (*which, limit, noted)
        session.release_claims(_RELEASE_INCURABLE, incurable)
        values = (now, session.numbers.dead, why.reason, why.error_class, why.error, ours, *incurable)
        dead = execute(_DEAD_LETTER_INCURABLE, values).rowcount
        session.numbers.dead += dead
    heir = None if received_before is not None else _largest(session.connection, left)
    if heir is not None:
        backlog = _backlog(session.connection, owners - left)
        _take_number(session, heir, left)
        return Recovery(
            recovered=sum(each.ready + each.waiting for each in backlog), dead=dead, crashed=counted, backlog=backlog
        )
    counts = tuple(map(count, execute(_BACKLOG_LEFT, which)))
    recovered = execute(_TAKE_OVER, (ours, *which)).rowcount
    return Recovery(recovered=recovered, dead=dead, crashed=counted, backlog=counts)


def owners_of_unfinished(connection: sqlite3.Connection) -> set[int]:
    """Return the numbers of the servers that have unfinished deliveries: one step in an index for each."""
    found: set[int] = set()
    for statement in _NEXT_OWNERS:
        (owner,) = connection.execute(statement, (-1,)).fetchone()
        while owner is not None:
            found.add(owner)
            (owner,) = connection.execute(statement, (owner,)).fetchone()
    return found


def _largest(connection: sqlite3.Connection, owners: Collection[int]) -> int | None:
    """Return the server that has the most unfinished deliveries; None when none has more than `MOST_MOVED`."""
    large = [
        owner for owner in owners if connection.execute(_COUNT_SOME, (owner, MOST_MOVED + 1)).fetchone()[0] > MOST_MOVED
    ]
    if len(large) < 2:
        return large[0] if large else None
    return max(large, key=lambda owner: int(connection.execute(_COUNT_ALL, (owner,)).fetchone()[0]))


def _backlog(connection: sqlite3.Connection, without: Collection[int]) -> tuple[Backlog, ...]:
    """Count the unfinished deliveries in the index alone, which has no owners, and subtract those of these servers."""
    counts = {(each.trigger_id, each.version): each for each in map(count, connection.execute(BACKLOG))}
    for owner in without:
        for each in map(count, connection.execute(_BACKLOG_OF, (owner,))):
            key = each.trigger_id, each.version
            counts[key] = replace(
                counts[key], ready=counts[key].ready - each.ready, waiting=counts[key].waiting - each.waiting
            )
    return tuple(each for each in counts.values() if each.ready or each.waiting)


def _take_number(session: Session, heir: int, left: Collection[int]) -> None:
    """
    Acquire the number of a server that is gone, so that none of its rows is written; the others' rows are.

    A million rows would keep the writer, and with it the start, for half a minute.
    """
    execute, ours = session.connection.execute, session.incarnation
    for owner in {ours, *left} - {heir}:
        for statement in _MOVE:
            execute(statement, (owner, heir))
    execute("DELETE FROM servers WHERE incarnation = ?", (heir,))
    execute("UPDATE servers SET incarnation = ? WHERE incarnation = ?", (heir, ours))
    session.incarnation = heir


def has_unfinished(connection: sqlite3.Connection, owner: int) -> bool:
    """Return whether anything unfinished is a server's."""
    (found,) = connection.execute(_HAS_UNFINISHED, (owner,)).fetchone()
    return bool(found)


def register(session: Session, beat: Beat) -> int:
    """See `harn.store.store.Statements.register`."""
    inserted = session.connection.execute(
        "INSERT INTO servers (pid, host, started_at, seen_at) VALUES (?, ?, ?, ?)",
        (beat.pid, beat.host, beat.now, beat.now),
    )
    return int(inserted.lastrowid or 0)


def renew(session: Session, beat: Beat) -> None:
    """See `harn.store.store.Statements.renew`."""
    session.connection.execute(
        "INSERT INTO servers (incarnation, pid, host, started_at, seen_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (incarnation) DO UPDATE SET seen_at = excluded.seen_at",
        (session.incarnation, beat.pid, beat.host, beat.now, beat.now),
    )


def last_seen(connection: sqlite3.Connection) -> Mapping[int, float]:
    """See `harn.store.store.Statements.last_seen`."""
    return dict(connection.execute(_SEEN).fetchall())


def trim_servers(session: Session, before: float) -> int:
    """Delete the rows of other servers that were alive last before then (seconds, Unix); return how many."""
    statement = "DELETE FROM servers WHERE seen_at < ? AND incarnation <> ?"
    return session.connection.execute(statement, (before, session.incarnation)).rowcount
