"""Changes of deliveries that have ended: dead letters are discarded, and recorded events accepted again."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harn.model.delivery import CANCELLED, DEAD, LARGE_BODY, State, StoredDelivery
from harn.store.jobs import GONE, ItemOutcome, ReplayOrder
from harn.store.postgres import claims
from harn.store.postgres.connection import PostgresSession
from harn.store.postgres.deliveries import STATE
from harn.store.postgres.settling import mark_replayed
from harn.store.replays import Recorded, Replaying, replayed_delivery, stands
from harn.store.rows import DISCARDED, NAMES, SKIPPED

_RECORDED = (
    "SELECT d.event_id, d.trigger_id, d.provider, d.kind, " + STATE + ", d.replayed_as, e.envelope,"
    f" octet_length(e.body), CASE WHEN octet_length(e.body) > {LARGE_BODY} THEN ''::bytea ELSE e.body END"
    " FROM deliveries d JOIN events e ON e.id = d.id WHERE d.id = $1::bigint"
)
# The body is copied within the database, however large it is.
_ACCEPT_AGAIN = (
    "WITH event AS (INSERT INTO events (id, envelope, body)"
    " SELECT $1::bigint, $2::bytea, body FROM events WHERE id = $3::bigint)"
    " INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of)"
    " VALUES ($1::bigint, $4::text, $5::text, $6::integer, $7::text, $8::text, $9::bigint, $10::float8, $11::text)"
)
_NAME_REPLAY = "UPDATE deliveries SET replayed_as = $1::text WHERE id = $2::bigint"
_DISCARD = (
    f"UPDATE deliveries SET state = 2, ended_as = {DISCARDED}, died_at = settled_at, settled_at = $1::float8"
    " WHERE id = $2::bigint AND state = 3"
)
_STANDS = "SELECT d.event_id, " + STATE + ", d.replayed_as FROM deliveries d WHERE d.id = $1::bigint"
_CANCEL = (
    "WITH unbegun AS (SELECT id, state FROM deliveries WHERE id = ANY ($1::bigint[]) AND state < 2"
    " AND ($2::boolean OR owner = $3::bigint) FOR UPDATE),"
    f" cancelled AS (UPDATE deliveries d SET state = 2, ended_as = {SKIPPED}, skip_reason = '{CANCELLED}',"
    " due_at = NULL, settled_at = $4::float8 FROM unbegun WHERE d.id = unbegun.id)"
    " SELECT id, state FROM unbegun ORDER BY id"
)


class PostgresReplaying(Replaying):
    """Replays on PostgreSQL."""

    def read(self, session: PostgresSession, delivery_id: int) -> Sequence[Any] | None:
        """See `Replaying.read`."""
        row: Sequence[Any] | None = session.connection.execute(_RECORDED, (delivery_id,)).fetchone()
        return row

    def accept_again(
        self, session: PostgresSession, order: ReplayOrder, recorded: Recorded, now: float
    ) -> StoredDelivery:
        """See `Replaying.accept_again`."""
        session.numbers.delivery += 1
        new = replayed_delivery(session.numbers.delivery, order, recorded, now)
        row = (new.event_id, new.trigger_id, new.version, new.provider, new.kind, session.incarnation, float(now))
        values = (new.delivery_id, new.envelope, order.delivery_id, *row, new.replay_of)
        session.connection.execute(_ACCEPT_AGAIN, values)
        if recorded.state is DEAD:
            mark_replayed(session, order.delivery_id, order.event_id, now)
            claims.hand_on(session, order.delivery_id, new.delivery_id)
        else:
            session.connection.execute(_NAME_REPLAY, (order.event_id, order.delivery_id))
        return new


def discard(session: PostgresSession, delivery_ids: Sequence[int], now: float) -> list[ItemOutcome]:
    """See `harn.store.jobs.IJobs.discard`."""
    return [_discard(session, delivery_id, now) for delivery_id in delivery_ids]


def _discard(session: PostgresSession, delivery_id: int, now: float) -> ItemOutcome:
    row = session.connection.execute(_STANDS, (delivery_id,)).fetchone()
    if row is None:
        return ItemOutcome(delivery_id=delivery_id, event_id="", reason=GONE)
    event_id, state, replayed_as = row
    reason = None
    if session.connection.execute(_DISCARD, (float(now), delivery_id)).rowcount == 0:
        reason = stands(NAMES[state], replayed_as)
    return ItemOutcome(delivery_id=delivery_id, event_id=event_id, reason=reason)


def cancel(session: PostgresSession, delivery_ids: Sequence[int], now: float, *, of_all: bool) -> dict[int, State]:
    """See `harn.store.jobs.IJobs.cancel`."""
    values = (list(delivery_ids), of_all, session.incarnation, float(now))
    return {number: NAMES[state] for number, state in session.connection.execute(_CANCEL, values)}
