"""Changes of deliveries that have ended: dead letters are discarded, and recorded events accepted again."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harn.model.delivery import CANCELLED, LARGE_BODY, State, StoredDelivery
from harn.store.jobs import ReplayOrder
from harn.store.postgres import claims
from harn.store.postgres.deliveries import STATE
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.settling import mark_replayed
from harn.store.replays import Replaying, ReplayStatements
from harn.store.rows import DISCARDED, NAMES, SKIPPED

# The body is copied within the database, however large it is.
_ACCEPT_AGAIN = (
    "WITH event AS (INSERT INTO events (id, envelope, body)"
    " SELECT $1::bigint, $2::bytea, body FROM events WHERE id = $3::bigint)"
    " INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of)"
    " VALUES ($1::bigint, $4::text, $5::text, $6::integer, $7::text, $8::text, $9::bigint, $10::float8, $11::text)"
)
_CANCEL = (
    "WITH unbegun AS (SELECT id, state FROM deliveries WHERE id = ANY ($1::bigint[]) AND state < 2"
    " AND ($2::boolean OR owner = $3::bigint) FOR UPDATE),"
    f" cancelled AS (UPDATE deliveries d SET state = 2, ended_as = {SKIPPED}, skip_reason = '{CANCELLED}',"
    " due_at = NULL, settled_at = $4::float8 FROM unbegun WHERE d.id = unbegun.id)"
    " SELECT id, state FROM unbegun ORDER BY id"
)


class PostgresReplaying(Replaying):
    """Replays on PostgreSQL."""

    sql = ReplayStatements(
        recorded=(
            "SELECT d.event_id, d.trigger_id, d.provider, d.kind, " + STATE + ", d.replayed_as, e.envelope,"
            f" octet_length(e.body), CASE WHEN octet_length(e.body) > {LARGE_BODY} THEN ''::bytea ELSE e.body END"
            " FROM deliveries d JOIN events e ON e.id = d.id WHERE d.id = $1::bigint"
        ),
        name_replay="UPDATE deliveries SET replayed_as = $1::text WHERE id = $2::bigint",
        stands="SELECT d.event_id, " + STATE + ", d.replayed_as FROM deliveries d WHERE d.id = $1::bigint",
        discard=(
            f"UPDATE deliveries SET state = 2, ended_as = {DISCARDED}, died_at = settled_at,"
            " settled_at = $1::float8 WHERE id = $2::bigint AND state = 3"
        ),
    )

    def copy(self, session: PostgresSession, new: StoredDelivery, order: ReplayOrder, now: float) -> None:
        """See `Replaying.copy`."""
        row = (new.event_id, new.trigger_id, new.version, new.provider, new.kind, session.incarnation, now)
        values = (new.delivery_id, new.envelope, order.delivery_id, *row, new.replay_of)
        session.connection.execute(_ACCEPT_AGAIN, values)

    def hand_over(self, session: PostgresSession, order: ReplayOrder, new: StoredDelivery, now: float) -> None:
        """See `Replaying.hand_over`."""
        mark_replayed(session, order.delivery_id, order.event_id, now)
        claims.hand_on(session, order.delivery_id, new.delivery_id)

    def cancel(
        self, session: PostgresSession, delivery_ids: Sequence[int], now: float, *, of_all: bool
    ) -> Mapping[int, State]:
        """See `Replaying.cancel`."""
        values = (list(delivery_ids), of_all, session.incarnation, float(now))
        return {number: NAMES[state] for number, state in session.connection.execute(_CANCEL, values)}
