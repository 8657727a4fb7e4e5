"""The deliveries: where each accepted event stands, its attempts, and the statements that change many together."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Sequence

from zope.interface import implementer

from harn.model.delivery import LARGE_BODY
from harn.store.deliveries import DueDelivery, IDeliveries
from harn.store.executor import writes
from harn.store.rows import DONE, SKIPPED
from harn.store.sqlite import claims
from harn.store.sqlite.connection import Session
from harn.store.sqlite.settling import Settle
from harn.store.states import DeliveriesHalf, DeliveryStatements, GiveUpStatements

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

# For a large body SQLite reads its length alone.
_LIGHT = COLUMNS.replace("e.body", f"CASE WHEN length(e.body) > {LARGE_BODY} THEN x'' ELSE e.body END, length(e.body)")
_AMONG = "IN (SELECT value FROM json_each(?))"
_DUE = (
    "SELECT id, trigger_id, version FROM deliveries WHERE state = 1 AND owner = ? AND due_at <= ?"
    " ORDER BY due_at, id LIMIT ?"
)
_WAKE = "UPDATE deliveries SET state = 0 WHERE id " + _AMONG
COUNTS = "count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
"""Of a binding version: how many are ready, and how many wait; the end of a row for `count`."""
BACKLOG = (
    "SELECT trigger_id, version, " + COUNTS + " FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 GROUP BY trigger_id, version"
)
"""Counts every unfinished delivery, by binding version; rows for `count`."""
# Two steps in the index, whose order is that of states, then of ids: the first that is ready (or, if there is none,
# that waits), and the first that waits.
_FIRST_FROM = (
    "SELECT (SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE state < 2"
    " AND trigger_id = ?1 AND version = ?2 AND state >= {} ORDER BY state, id LIMIT 1) AS first"
)
_UNFINISHED = (
    "state < 2 AND trigger_id = ?1 AND version {} ?2 AND state <= ?3 AND attempts <= ?4"
    " AND id NOT IN (SELECT value FROM json_each(?5))"
)
DEAD_LETTER_SOME = (
    "UPDATE deliveries SET state = 3, due_at = NULL, settled_at = {0}, dead_number = {1} + place, reason = {2},"
    " error_class = {3}, error = {4}{5} FROM (SELECT id AS dying, row_number() OVER (ORDER BY id) AS place"
    " FROM deliveries INDEXED BY deliveries_unfinished WHERE {6}) WHERE id = dying"
)
"""Make dead letters of what a condition chooses; places of the values come first."""
RELEASE_SOME = claims.RELEASE.format("SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE {}")
_COUNT_SOME = (
    "SELECT provider, " + COUNTS + " FROM deliveries INDEXED BY deliveries_unfinished WHERE {} GROUP BY provider"
)


def _giving_up(which: str) -> GiveUpStatements:
    return GiveUpStatements(
        count=_COUNT_SOME.format(which),
        release=RELEASE_SOME.format(which),
        give_up=DEAD_LETTER_SOME.format("?6", "?7", "?8", "?9", "?10", "", which),
    )


_REDRIVEN = "state >= 2 AND state = 3 AND settled_at >= ?1 AND trigger_id = ?2 AND version = ?3 AND reason = ?4"


@implementer(IDeliveries)
class SQLiteDeliveries(DeliveriesHalf):
    """`IDeliveries` on SQLite."""

    unit = Settle
    sql = DeliveryStatements(
        # In the order of the index: one step to the first of the version, whatever else is ready. `likely` keeps SQLite
        # from looking the index up by the term that only allows its use, and from sorting then.
        ready=(
            "SELECT "
            + _LIGHT
            + " FROM deliveries d INDEXED BY deliveries_unfinished CROSS JOIN events e ON e.id = d.id"
            " WHERE likely(d.state < 2) AND d.trigger_id = ? AND d.version = ? AND d.state = 0 AND d.owner = ?"
            " AND d.id NOT " + _AMONG + " ORDER BY d.id LIMIT ?"
        ),
        next_due="SELECT min(due_at) FROM deliveries WHERE state = 1 AND owner = ? AND due_at > ?",
        find="SELECT " + COLUMNS + FROM + "WHERE d.event_id = ? ORDER BY d.id",
        backlog=BACKLOG,
        states=(
            "SELECT d.id, " + STATE + " FROM deliveries d WHERE d.id " + _AMONG + " AND (d.owner = ? OR d.state >= 2)"
        ),
        owners="SELECT id, owner FROM deliveries WHERE id " + _AMONG + " AND state < 2",
        oldest=(
            "SELECT " + WITHOUT_EVENT + " FROM deliveries d WHERE d.id ="
            " (SELECT min(first) FROM (" + _FIRST_FROM.format(0) + " UNION ALL " + _FIRST_FROM.format(1) + "))"
        ),
        # The innermost query ends after so many rows, of any trigger; further columns are of the chosen ones alone.
        recent=(
            "SELECT d.event_id, d.trigger_id, d.version, d.kind, d.received_at, e.envelope, e.body,"
            " " + STATE + ", d.reason, d.passed,"
            " (SELECT outcome FROM attempts a WHERE a.delivery_id = d.id ORDER BY a.id DESC LIMIT 1),"
            " EXISTS (SELECT 1 FROM attempts a WHERE a.delivery_id = d.id AND a.outcome = 'success')"
            " FROM (SELECT id, row_number() OVER (PARTITION BY trigger_id ORDER BY id DESC) AS place"
            " FROM (SELECT id, trigger_id FROM deliveries ORDER BY id DESC LIMIT ?)"
            " WHERE trigger_id " + _AMONG + ") AS chosen"
            " CROSS JOIN deliveries d ON d.id = chosen.id CROSS JOIN events e ON e.id = d.id"
            " WHERE place <= ? ORDER BY d.id DESC"
        ),
        of_version=_giving_up(_UNFINISHED.format("=")),
        of_trigger=_giving_up(_UNFINISHED.format(">=")),
        unfinished="SELECT state, version FROM deliveries WHERE id = ? AND state < 2 AND owner = ?",
        skip=(
            f"UPDATE deliveries SET state = {DONE}, ended_as = {SKIPPED}, due_at = NULL, settled_at = ?,"
            " skip_reason = ? WHERE id = ?"
        ),
        redriven_claims=claims.RETAKE.format(
            "SELECT id FROM deliveries INDEXED BY deliveries_finished WHERE " + _REDRIVEN
        ),
        redrive=(
            "UPDATE deliveries INDEXED BY deliveries_finished SET state = 0, version = ?5, owner = ?6, attempts = 0,"
            " passed = 0, due_at = NULL, settled_at = NULL, dead_number = NULL, reason = NULL, error_class = NULL,"
            " error = NULL WHERE " + _REDRIVEN
        ),
        advance_due="UPDATE deliveries SET due_at = due_at - ? WHERE state = 1 AND owner = ?",
    )

    @writes
    def due(self, session: Session, now: float, limit: int) -> Sequence[DueDelivery]:
        """See `IDeliveries.due`."""
        rows = session.connection.execute(_DUE, (session.incarnation, now, limit)).fetchall()
        if rows:
            session.connection.execute(_WAKE, (json.dumps([row[0] for row in rows]),))
        return [DueDelivery(*row) for row in rows]
