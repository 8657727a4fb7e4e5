"""The deliveries: where each accepted event stands, its attempts, and the statements that change many at once."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from harn.model.delivery import LARGE_BODY, RETRY_EXHAUSTED, DeadLetter, State, StoredDelivery
from harn.store.deliveries import (
    Backlog,
    DueDelivery,
    GivenUp,
    IDeliveries,
    RecentEvent,
    Unfinished,
    disposition,
)
from harn.store.executor import reads, writes
from harn.store.halves import DeliveriesHalf
from harn.store.rows import DONE, NAMES, READY, SKIPPED, WAITING, count, light, stored, up_to
from harn.store.sqlite import claims
from harn.store.sqlite.connection import Session
from harn.store.sqlite.settling import Settle

if TYPE_CHECKING:
    pass

TABLES = """
-- An event's bytes, one row for each delivery, under its id. Apart from `deliveries`, because an UPDATE in SQLite
-- writes the whole row again. Never updated.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL
);

-- Where each accepted delivery stands. `state`: 0 ready, 1 waiting, 2 done, 3 dead. `owner`: the server that runs it.
-- `crashes`: of servers while it ran. `recoveries`: what servers of schema 2 counted; nothing reads it.
-- `ended_as`: 4 skipped, 5 discarded, 6 replayed, which servers of schema 3 read as done: `state` is 2; else 0.
-- `skip_reason`: of a skipped one. `died_at`: when a discarded or replayed one became a dead letter; `settled_at` is
-- when it was discarded or replayed, and `replayed_as` the event that a replay made.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    owner INTEGER NOT NULL,
    received_at REAL NOT NULL,
    replay_of TEXT,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    passed INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    due_at REAL,
    settled_at REAL,
    dead_number INTEGER,
    reason TEXT,
    error_class TEXT,
    error TEXT,
    result BLOB,
    crashes INTEGER NOT NULL DEFAULT 0,
    ended_as INTEGER NOT NULL DEFAULT 0,
    skip_reason TEXT,
    died_at REAL,
    replayed_as TEXT
);
CREATE INDEX deliveries_event ON deliveries (event_id);
-- What is not finished is found through these three, which stay as small as it is, however many rows are done.
CREATE INDEX deliveries_ready ON deliveries (owner) WHERE state = 0;
CREATE INDEX deliveries_waiting ON deliveries (owner, due_at) WHERE state = 1;
CREATE INDEX deliveries_unfinished ON deliveries (trigger_id, version, state) WHERE state < 2;
-- What is finished, for retention.
CREATE INDEX deliveries_finished ON deliveries (state, settled_at) WHERE state >= 2;
CREATE UNIQUE INDEX deliveries_dead ON deliveries (dead_number) WHERE dead_number IS NOT NULL;
-- For lists, newest first. What is done without an error is written to the first two of them alone, once each. These
-- are in order of trigger, or kind, only among 1024 deliveries: however many there are, a commit writes few pages.
CREATE INDEX deliveries_by_trigger ON deliveries (id / 1024, trigger_id);
CREATE INDEX deliveries_by_kind ON deliveries (id / 1024, kind);
CREATE INDEX deliveries_exceptions ON deliveries (state, ended_as) WHERE state = 1 OR state = 3 OR ended_as > 0;
CREATE INDEX deliveries_failed ON deliveries (trigger_id, state, ended_as) WHERE state = 3 OR ended_as > 4;
-- When the next one of a trigger is due.
CREATE INDEX deliveries_due ON deliveries (trigger_id, due_at) WHERE state = 1;
-- Dead letters in groups; it holds all that is shown of a group.
CREATE INDEX deliveries_dead_groups ON deliveries (trigger_id, reason, error_class, settled_at) WHERE state = 3;

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    delivery_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    started_at REAL NOT NULL,
    completed_at REAL NOT NULL,
    outcome TEXT NOT NULL,
    error_class TEXT,
    error TEXT,
    traceback TEXT,
    output TEXT
);
CREATE INDEX attempts_delivery ON attempts (delivery_id);
"""

STATE = "max(d.state, d.ended_as)"
"""What `NAMES` has the name of."""

COLUMNS = (
    "d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, " + STATE + ", d.attempts, d.passed, d.crashes,"
    " d.due_at, d.received_at, d.replay_of, e.envelope, e.body"
)
"""What `stored` reads, in its order."""

WITHOUT_EVENT = COLUMNS.replace("e.envelope, e.body", "x'', x''")

FROM = " FROM deliveries d JOIN events e ON e.id = d.id "

_SELECT = "SELECT " + COLUMNS + FROM
# For a large body SQLite reads its length alone.
_LIGHT = COLUMNS.replace("e.body", f"CASE WHEN length(e.body) > {LARGE_BODY} THEN x'' ELSE e.body END, length(e.body)")
_EXCLUDED = "NOT IN (SELECT value FROM json_each(?))"
# In the order of the index: one step to the first of the version, whatever else is ready. `likely` keeps SQLite from
# looking the index up by the term that only allows its use, and from sorting then.
_READY = (
    "SELECT " + _LIGHT + " FROM deliveries d INDEXED BY deliveries_unfinished CROSS JOIN events e ON e.id = d.id"
    " WHERE likely(d.state < 2) AND d.trigger_id = ? AND d.version = ? AND d.state = 0 AND d.owner = ?"
    " AND d.id " + _EXCLUDED + " ORDER BY d.id LIMIT ?"
)
_DUE = (
    "SELECT id, trigger_id, version FROM deliveries WHERE state = 1 AND owner = ? AND due_at <= ?"
    " ORDER BY due_at, id LIMIT ?"
)
_WAKE = "UPDATE deliveries SET state = 0 WHERE id IN (SELECT value FROM json_each(?))"
_NEXT_DUE = "SELECT min(due_at) FROM deliveries WHERE state = 1 AND owner = ? AND due_at > ?"
_FIND = _SELECT + "WHERE d.event_id = ? ORDER BY d.id"
COUNTS = "count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
"""Of a binding version: how many are ready, and how many wait; the end of a row for `count`."""
BACKLOG = (
    "SELECT trigger_id, version, " + COUNTS + " FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 GROUP BY trigger_id, version"
)
"""Counts every unfinished delivery, by binding version; rows for `count`."""
_STATES_OF = (
    "SELECT d.id, " + STATE + " FROM deliveries d"
    " WHERE d.id IN (SELECT value FROM json_each(?)) AND (d.owner = ? OR d.state >= 2)"
)
# Two steps in the index, whose order is that of states, then of ids: the first that is ready (or, if there is none,
# that waits), and the first that waits.
_FIRST_FROM = (
    "SELECT (SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE state < 2"
    " AND trigger_id = ?1 AND version = ?2 AND state >= {} ORDER BY state, id LIMIT 1) AS first"
)
_OLDEST = (
    "SELECT " + WITHOUT_EVENT + " FROM deliveries d WHERE d.id ="
    " (SELECT min(first) FROM (" + _FIRST_FROM.format(0) + " UNION ALL " + _FIRST_FROM.format(1) + "))"
)
# The innermost query ends after so many rows, of any trigger; further columns are read of the chosen ones alone.
_RECENT = (
    "SELECT d.event_id, d.trigger_id, d.version, d.kind, d.received_at, e.envelope, e.body,"
    " " + STATE + ", d.reason, d.passed,"
    " (SELECT outcome FROM attempts a WHERE a.delivery_id = d.id ORDER BY a.id DESC LIMIT 1),"
    " EXISTS (SELECT 1 FROM attempts a WHERE a.delivery_id = d.id AND a.outcome = 'success')"
    " FROM (SELECT id, row_number() OVER (PARTITION BY trigger_id ORDER BY id DESC) AS place"
    " FROM (SELECT id, trigger_id FROM deliveries ORDER BY id DESC LIMIT ?)"
    " WHERE trigger_id IN (SELECT value FROM json_each(?))) AS chosen"
    " CROSS JOIN deliveries d ON d.id = chosen.id CROSS JOIN events e ON e.id = d.id"
    " WHERE place <= ? ORDER BY d.id DESC"
)

_UNFINISHED = "state < 2 AND trigger_id = ? AND version {} ? AND state <= ? AND attempts <= ? AND id " + _EXCLUDED
_OF_VERSION, _OF_TRIGGER = _UNFINISHED.format("="), _UNFINISHED.format(">=")
DEAD_LETTER_SOME = (
    "UPDATE deliveries SET state = 3, due_at = NULL, settled_at = ?, dead_number = ? + place, reason = ?,"
    " error_class = ?, error = ?{} FROM (SELECT id AS dying, row_number() OVER (ORDER BY id) AS place"
    " FROM deliveries INDEXED BY deliveries_unfinished WHERE {}) WHERE id = dying"
)
RELEASE_SOME = claims.RELEASE.format("SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE {}")
_COUNT_SOME = (
    "SELECT provider, " + COUNTS + " FROM deliveries INDEXED BY deliveries_unfinished WHERE {} GROUP BY provider"
)
_BURY = {
    which: (_COUNT_SOME.format(which), RELEASE_SOME.format(which), DEAD_LETTER_SOME.format("", which))
    for which in (_OF_VERSION, _OF_TRIGGER)
}
_ANY = 1 << 62
"""More attempts than a delivery can have."""
_REDRIVEN = "state >= 2 AND state = 3 AND settled_at >= ? AND trigger_id = ? AND version = ? AND reason = ?"
_REDRIVE = (
    "UPDATE deliveries INDEXED BY deliveries_finished SET state = 0, version = ?, owner = ?, attempts = 0, passed = 0,"
    " due_at = NULL, settled_at = NULL, dead_number = NULL, reason = NULL, error_class = NULL, error = NULL"
    " WHERE " + _REDRIVEN
)
_RETAKE_REDRIVEN = claims.RETAKE.format("SELECT id FROM deliveries INDEXED BY deliveries_finished WHERE " + _REDRIVEN)

_UNFINISHED_ONE = "SELECT state, version FROM deliveries WHERE id = ? AND state < 2 AND owner = ?"
_SKIP = (
    f"UPDATE deliveries SET state = {DONE}, ended_as = {SKIPPED}, due_at = NULL, settled_at = ?, skip_reason = ?"
    " WHERE id = ?"
)

_ADVANCE_DUE = "UPDATE deliveries SET due_at = due_at - ? WHERE state = 1 AND owner = ?"


@implementer(IDeliveries)
class SQLiteDeliveries(DeliveriesHalf):
    """`IDeliveries` on SQLite."""

    unit = Settle

    @reads
    def ready(
        self,
        connection: sqlite3.Connection,
        trigger_id: str,
        version: int,
        excluding: Collection[int],
        limit: int,
        max_bytes: int,
    ) -> Sequence[StoredDelivery]:
        """See `IDeliveries.ready`."""
        values = (trigger_id, version, self._executor.incarnation, json.dumps(list(excluding)), limit)
        return up_to(map(light, connection.execute(_READY, values)), max_bytes)

    @writes
    def due(self, session: Session, now: float, limit: int) -> Sequence[DueDelivery]:
        """See `IDeliveries.due`."""
        rows = session.connection.execute(_DUE, (session.incarnation, now, limit)).fetchall()
        if rows:
            session.connection.execute(_WAKE, (json.dumps([row[0] for row in rows]),))
        return [DueDelivery(*row) for row in rows]

    @reads
    def next_due(self, connection: sqlite3.Connection, after: float = 0.0) -> float | None:
        """See `IDeliveries.next_due`."""
        (at,) = connection.execute(_NEXT_DUE, (self._executor.incarnation, after)).fetchone()
        return None if at is None else float(at)

    @reads
    def find(self, connection: sqlite3.Connection, event_id: str) -> Sequence[StoredDelivery]:
        """See `IDeliveries.find`."""
        return list(map(stored, connection.execute(_FIND, (event_id,))))

    @reads
    def backlog(self, connection: sqlite3.Connection) -> Sequence[Backlog]:
        """See `IDeliveries.backlog`."""
        return list(map(count, connection.execute(BACKLOG)))

    @reads
    def oldest(
        self, connection: sqlite3.Connection, versions: Collection[tuple[str, int]]
    ) -> Mapping[tuple[str, int], StoredDelivery]:
        """See `IDeliveries.oldest`."""
        rows = ((version, connection.execute(_OLDEST, version).fetchone()) for version in versions)
        return {version: stored(row) for version, row in rows if row is not None}

    @reads
    def recent(
        self, connection: sqlite3.Connection, trigger_ids: Collection[str], limit: int, depth: int
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
                disposition=disposition(NAMES[row[7]], row[8], bool(row[9]), row[10], bool(row[11])),
                envelope=row[5],
                body=row[6],
            )
            for row in connection.execute(_RECENT, values)
        ]

    @reads
    def states(self, connection: sqlite3.Connection, delivery_ids: Collection[int]) -> Mapping[int, State]:
        """See `IDeliveries.states`."""
        rows = connection.execute(_STATES_OF, (json.dumps(list(delivery_ids)), self._executor.incarnation))
        return {delivery_id: NAMES[state] for delivery_id, state in rows}

    @writes
    def dead_letter(
        self,
        session: Session,
        trigger_id: str,
        version: int | None,
        dead: DeadLetter,
        excluding: Collection[int],
        *,
        waiting: bool = True,
        tried: bool = True,
    ) -> Sequence[GivenUp]:
        """See `IDeliveries.dead_letter`."""
        count, release, bury = _BURY[_OF_TRIGGER if version is None else _OF_VERSION]
        most = (WAITING if waiting else READY, _ANY if tried else 0)
        which = (trigger_id, version or 0, *most, json.dumps(list(excluding)))
        found = [GivenUp(*row) for row in session.connection.execute(count, which)]
        claims.release_all(session, release, which)
        why = (dead.reason, dead.error_class, dead.error)
        values = (self._executor.wall.seconds(), session.numbers.dead, *why, *which)
        session.numbers.dead += session.connection.execute(bury, values).rowcount
        # An attempt that ran on may settle one of them again; then no row has its number any more.
        session.keep_numbers()
        return found

    @writes
    def skip(self, session: Session, delivery_id: int, reason: str) -> Unfinished | None:
        """See `IDeliveries.skip`."""
        found = session.connection.execute(_UNFINISHED_ONE, (delivery_id, session.incarnation)).fetchone()
        if found is None:
            return None
        session.connection.execute(_SKIP, (self._executor.wall.seconds(), reason, delivery_id))
        return Unfinished(NAMES[found[0]], found[1])

    @writes
    def redrive(self, session: Session, trigger_id: str, version: int, to_version: int, since: float) -> int:
        """See `IDeliveries.redrive`."""
        # No row has the numbers of these dead letters any more, and they are not given again.
        session.keep_numbers()
        which = (since, trigger_id, version, RETRY_EXHAUSTED)
        session.connection.execute(_RETAKE_REDRIVEN, which)
        return session.connection.execute(_REDRIVE, (to_version, session.incarnation, *which)).rowcount

    @writes
    def advance_due(self, session: Session, seconds: float) -> None:
        """See `IDeliveries.advance_due`."""
        session.connection.execute(_ADVANCE_DUE, (seconds, session.incarnation))
