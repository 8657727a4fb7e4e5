"""
Claims: each dedupe key is taken once until it expires, or until the delivery that holds it becomes a dead letter.

A claim that a dead letter releases stays as a row whose time is negated, so that the delivery which takes it next can
name the dead letter. Keys are bytes: a sender's may have any character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from harn.model.delivery import Claim
from harn.store.postgres.session import PostgresSession

TABLES = """
-- `delivery_id`: which delivery holds it, and releases it as a dead letter: `expires_at` is negative from then on.
-- NULL: it stays until it expires. `predecessor`: the dead letter that released it.
CREATE TABLE claims (
    scope text NOT NULL,
    key bytea NOT NULL,
    expires_at double precision NOT NULL,
    delivery_id bigint,
    predecessor bigint,
    PRIMARY KEY (scope, key)
);
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE INDEX claims_delivery ON claims (delivery_id) WHERE delivery_id IS NOT NULL;
"""

_TAKE = (
    "INSERT INTO claims (scope, key, expires_at, delivery_id)"
    " SELECT * FROM unnest($1::text[], $2::bytea[], $3::float8[], $4::bigint[])"
    " ON CONFLICT (scope, key) DO UPDATE SET expires_at = excluded.expires_at, delivery_id = excluded.delivery_id,"
    " predecessor = CASE WHEN claims.expires_at < 0 THEN claims.delivery_id END WHERE claims.expires_at <= $5::float8"
    " RETURNING scope, key, predecessor"
)
RELEASE = "UPDATE claims SET expires_at = -expires_at WHERE expires_at > 0 AND delivery_id IN ({})"
"""Release the claims of the deliveries that a query, which is to be filled in, gives."""
RETAKE = "UPDATE claims SET expires_at = -expires_at WHERE expires_at < 0 AND delivery_id IN ({})"
"""Undo `RELEASE`, for claims that no other delivery has taken since."""
_RELEASE = RELEASE.format("SELECT unnest($1::bigint[])")
_EVENTS = "SELECT id, event_id FROM deliveries WHERE id = ANY($1::bigint[])"
_HAND_ON = (
    "UPDATE claims SET expires_at = abs(expires_at), delivery_id = $1::bigint"
    " WHERE delivery_id = $2::bigint AND expires_at < 0"
)
EXPIRED = (
    "DELETE FROM claims WHERE ctid = ANY (ARRAY(SELECT ctid FROM claims"
    " WHERE expires_at BETWEEN -$1::float8 AND $1::float8 ORDER BY expires_at LIMIT $2::bigint))"
)
"""Delete claims whose time has come, released or not: now (seconds, Unix), limit."""

Wanted: TypeAlias = tuple[Claim, int | None]
"""A claim, and the id of the delivery that is to hold it; None for one that stays until it expires."""


class Granted(Struct, frozen=True):
    """
    Claims that were free.

    :ivar places: of each in what was wanted, the delivery whose claim it was, a dead letter by now, or None.
    """

    places: dict[int, int | None]


def take_all(session: PostgresSession, wanted: Sequence[Wanted], now: float) -> Granted:
    """
    Acquire those claims that are free, in order: the first of two for one key.

    :param now: seconds, Unix: a claim that has expired by then is free.
    """
    granted: dict[int, int | None] = {}
    left = list(enumerate(wanted))
    while left:
        first: dict[tuple[str, bytes], int] = {}
        again = []
        for place, each in left:
            key = each[0].scope, each[0].key.encode()
            if key in first:
                again.append((place, each))  # one statement cannot write a row twice
            else:
                first[key] = place
        granted.update(_take(session, wanted, first, now))
        left = again
    return Granted(granted)


def _take(
    session: PostgresSession, wanted: Sequence[Wanted], first: dict[tuple[str, bytes], int], now: float
) -> dict[int, int | None]:
    chosen = [wanted[place] for place in first.values()]
    values = (
        [scope for scope, _ in first],
        [key for _, key in first],
        [float(claim.expires_at) for claim, _ in chosen],
        [delivery_id for _, delivery_id in chosen],
        float(now),
    )
    rows = session.connection.execute(_TAKE, values).fetchall()
    return {first[scope, key]: predecessor for scope, key, predecessor in rows}


def events_of(session: PostgresSession, delivery_ids: Sequence[int]) -> dict[int, str]:
    """Return the events of those deliveries that are still kept, by id."""
    return dict(session.connection.execute(_EVENTS, (list(delivery_ids),)).fetchall()) if delivery_ids else {}


def release(session: PostgresSession, delivery_ids: Sequence[int]) -> None:
    """Release the claims of these deliveries, which are dead letters now."""
    if delivery_ids:
        session.defer(_RELEASE, (list(delivery_ids),))


def hand_on(session: PostgresSession, dead_id: int, delivery_id: int) -> None:
    """Move the claim that a dead letter released to another delivery, unless a third has taken it meanwhile."""
    session.connection.execute(_HAND_ON, (delivery_id, dead_id))
