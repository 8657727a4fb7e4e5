"""Changes of deliveries that have ended: dead letters are discarded, and recorded events accepted again."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from harn.model.delivery import CANCELLED, LARGE_BODY, State, StoredDelivery
from harn.store.jobs import ReplayOrder
from harn.store.replays import Replaying, ReplayStatements
from harn.store.rows import DISCARDED, NAMES, SKIPPED
from harn.store.sqlite import claims
from harn.store.sqlite.connection import Session
from harn.store.sqlite.deliveries import STATE
from harn.store.sqlite.settling import mark_replayed

# The body is copied within the database, however large it is.
_COPY_EVENT = "INSERT INTO events (id, envelope, body) SELECT ?, ?, body FROM events WHERE id = ?"
_INSERT = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UNBEGUN = (
    "SELECT id, state FROM deliveries WHERE id IN (SELECT value FROM json_each(?)) AND state < 2 AND (? OR owner = ?)"
)
_CANCEL = (
    f"UPDATE deliveries SET state = 2, ended_as = {SKIPPED}, skip_reason = '{CANCELLED}', due_at = NULL,"
    " settled_at = ? WHERE id IN (SELECT value FROM json_each(?))"
)


class SQLiteReplaying(Replaying):
    """Replays on SQLite."""

    sql = ReplayStatements(
        recorded=(
            "SELECT d.event_id, d.trigger_id, d.provider, d.kind, " + STATE + ", d.replayed_as, e.envelope,"
            " length(e.body),"
            f" CASE WHEN length(e.body) > {LARGE_BODY} THEN x'' ELSE e.body END"
            " FROM deliveries d JOIN events e ON e.id = d.id WHERE d.id = ?"
        ),
        name_replay="UPDATE deliveries SET replayed_as = ? WHERE id = ?",
        stands="SELECT d.event_id, " + STATE + ", d.replayed_as FROM deliveries d WHERE d.id = ?",
        discard=(
            f"UPDATE deliveries SET state = 2, ended_as = {DISCARDED}, died_at = settled_at,"
            " settled_at = ? WHERE id = ? AND state = 3"
        ),
    )

    def copy(self, session: Session, new: StoredDelivery, order: ReplayOrder, now: float) -> None:
        """See `Replaying.copy`."""
        row = (new.delivery_id, new.event_id, new.trigger_id, new.version, new.provider, new.kind)
        session.connection.execute(_COPY_EVENT, (new.delivery_id, new.envelope, order.delivery_id))
        session.connection.execute(_INSERT, (*row, session.incarnation, now, new.replay_of))

    def hand_over(self, session: Session, order: ReplayOrder, new: StoredDelivery, now: float) -> None:
        """See `Replaying.hand_over`."""
        mark_replayed(session, order.delivery_id, order.event_id, now)
        claims.hand_on(session, order.delivery_id, new.delivery_id)

    def cancel(self, session: Session, delivery_ids: Sequence[int], now: float, *, of_all: bool) -> Mapping[int, State]:
        """See `Replaying.cancel`."""
        which = json.dumps(list(delivery_ids)), of_all, session.incarnation
        before = {number: NAMES[state] for number, state in session.connection.execute(_UNBEGUN, which)}
        session.connection.execute(_CANCEL, (now, json.dumps(list(before))))
        return before
