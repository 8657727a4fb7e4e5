"""Changes of deliveries that have ended: dead letters are discarded, and recorded events accepted again."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from harn.model.delivery import CANCELLED, DEAD, LARGE_BODY, State, StoredDelivery
from harn.store.jobs import GONE, ItemOutcome, ReplayOrder
from harn.store.replays import Recorded, Replaying, replayed_delivery, stands
from harn.store.rows import DISCARDED, NAMES, SKIPPED
from harn.store.sqlite import claims
from harn.store.sqlite.connection import Session
from harn.store.sqlite.deliveries import STATE
from harn.store.sqlite.settling import mark_replayed

_RECORDED = (
    "SELECT d.event_id, d.trigger_id, d.provider, d.kind, " + STATE + ", d.replayed_as, e.envelope, length(e.body),"
    f" CASE WHEN length(e.body) > {LARGE_BODY} THEN x'' ELSE e.body END"
    " FROM deliveries d JOIN events e ON e.id = d.id WHERE d.id = ?"
)
# The body is copied within the database, however large it is.
_COPY_EVENT = "INSERT INTO events (id, envelope, body) SELECT ?, ?, body FROM events WHERE id = ?"
_INSERT = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_NAME_REPLAY = "UPDATE deliveries SET replayed_as = ? WHERE id = ?"
_DISCARD = (
    f"UPDATE deliveries SET state = 2, ended_as = {DISCARDED}, died_at = settled_at, settled_at = ?"
    " WHERE id = ? AND state = 3"
)
_STANDS = "SELECT d.event_id, " + STATE + ", d.replayed_as FROM deliveries d WHERE d.id = ?"

_UNBEGUN = (
    "SELECT id, state FROM deliveries WHERE id IN (SELECT value FROM json_each(?)) AND state < 2 AND (? OR owner = ?)"
)
_CANCEL = (
    f"UPDATE deliveries SET state = 2, ended_as = {SKIPPED}, skip_reason = '{CANCELLED}', due_at = NULL,"
    " settled_at = ? WHERE id IN (SELECT value FROM json_each(?))"
)


class SQLiteReplaying(Replaying):
    """Replays on SQLite."""

    def read(self, session: Session, delivery_id: int) -> Sequence[Any] | None:
        """See `Replaying.read`."""
        row: Sequence[Any] | None = session.connection.execute(_RECORDED, (delivery_id,)).fetchone()
        return row

    def accept_again(self, session: Session, order: ReplayOrder, recorded: Recorded, now: float) -> StoredDelivery:
        """See `Replaying.accept_again`."""
        session.numbers.delivery += 1
        new = replayed_delivery(session.numbers.delivery, order, recorded, now)
        row = (new.delivery_id, new.event_id, new.trigger_id, new.version, new.provider, new.kind)
        session.connection.execute(_COPY_EVENT, (new.delivery_id, new.envelope, order.delivery_id))
        session.connection.execute(_INSERT, (*row, session.incarnation, now, new.replay_of))
        if recorded.state is DEAD:
            mark_replayed(session, order.delivery_id, order.event_id, now)
            claims.hand_on(session, order.delivery_id, new.delivery_id)
        else:
            session.connection.execute(_NAME_REPLAY, (order.event_id, order.delivery_id))
        return new


def discard(session: Session, delivery_ids: Sequence[int], now: float) -> list[ItemOutcome]:
    """See `harn.store.jobs.IJobs.discard`."""
    return [_discard(session.connection, delivery_id, now) for delivery_id in delivery_ids]


def _discard(connection: sqlite3.Connection, delivery_id: int, now: float) -> ItemOutcome:
    row = connection.execute(_STANDS, (delivery_id,)).fetchone()
    if row is None:
        return ItemOutcome(delivery_id=delivery_id, event_id="", reason=GONE)
    event_id, state, replayed_as = row
    reason = None
    if connection.execute(_DISCARD, (now, delivery_id)).rowcount == 0:
        reason = stands(NAMES[state], replayed_as)
    return ItemOutcome(delivery_id=delivery_id, event_id=event_id, reason=reason)


def cancel(session: Session, delivery_ids: Sequence[int], now: float, *, of_all: bool) -> dict[int, State]:
    """See `harn.store.jobs.IJobs.cancel`."""
    which = json.dumps(list(delivery_ids)), of_all, session.incarnation
    before = {number: NAMES[state] for number, state in session.connection.execute(_UNBEGUN, which)}
    session.connection.execute(_CANCEL, (now, json.dumps(list(before))))
    return before
