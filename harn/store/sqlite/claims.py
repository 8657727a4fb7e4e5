"""
Claims: each dedupe key is taken once until it expires, or until the delivery that holds it becomes a dead letter.

A claim that a dead letter releases stays as a row whose time is negated, so that the delivery which takes it next can
name the dead letter. To a server of schema 3 such a row is an expired claim, which it takes or trims.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from harn.model.delivery import Acceptance, Claim
from harn.store.sqlite.connection import Session

TABLES = """
-- `delivery_id`: which delivery holds it, and releases it as a dead letter: `expires_at` is negative from then on.
-- None: it stays until it expires. `predecessor`: the dead letter that released it, until who took it is written.
CREATE TABLE claims (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    expires_at REAL NOT NULL,
    delivery_id INTEGER,
    predecessor INTEGER,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE INDEX claims_delivery ON claims (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX claims_predecessor ON claims (predecessor) WHERE predecessor IS NOT NULL;
"""

_INSERT = "INSERT INTO claims (scope, key, expires_at, delivery_id) VALUES "
_UNLESS_TAKEN = (
    " ON CONFLICT (scope, key) DO UPDATE SET expires_at = excluded.expires_at, delivery_id = excluded.delivery_id,"
    " predecessor = CASE WHEN claims.expires_at < 0 THEN claims.delivery_id END WHERE claims.expires_at <= ?"
)
RELEASE = "UPDATE claims SET expires_at = -expires_at WHERE expires_at > 0 AND delivery_id IN ({})"
"""Release the claims of the deliveries that a query, which is to be filled in, gives."""
RETAKE = "UPDATE claims SET expires_at = -expires_at WHERE expires_at < 0 AND delivery_id IN ({})"
"""Undo `RELEASE`, for claims that no other delivery has taken since."""
_RELEASE = RELEASE.format("SELECT value FROM json_each(?)")
_SUCCEEDED = (
    "SELECT c.delivery_id, c.predecessor, d.event_id FROM claims c INDEXED BY claims_predecessor"
    " LEFT JOIN deliveries d ON d.id = c.predecessor WHERE c.predecessor IS NOT NULL"
)
_SETTLE_SUCCESSION = "UPDATE claims SET predecessor = NULL WHERE predecessor IS NOT NULL"
_HAND_ON = "UPDATE claims SET expires_at = abs(expires_at), delivery_id = ? WHERE delivery_id = ? AND expires_at < 0"
EXPIRED = (
    "DELETE FROM claims WHERE (scope, key) IN"
    " (SELECT scope, key FROM claims WHERE expires_at BETWEEN -?1 AND ?1 ORDER BY expires_at LIMIT ?2)"
)
"""Delete claims whose time has come, released or not: now (seconds, Unix), limit."""


class Succession(Struct, frozen=True):
    """A delivery has taken the claim that a dead letter released: ids of both, and the dead letter's event."""

    delivery_id: int
    dead_id: int
    dead_event: str


def take_all(session: Session, acceptances: Sequence[Acceptance], now: float) -> bool:
    """
    Insert all claims of a batch in one statement. Return False, having inserted none, on any conflict.

    :param now: seconds, Unix: a claim that has expired by then is free.
    """
    values: list[Any] = []
    number = session.numbers.delivery
    for acceptance in acceptances:
        guard = acceptance.guard
        if guard is not None:
            values += (guard.scope, guard.key, guard.expires_at, None)
        for new in acceptance.deliveries:
            number += 1  # as it is given if all are granted
            claim = new.claim
            if claim is not None and new.dead is None:
                values += (claim.scope, claim.key, claim.expires_at, number)
    if not values:
        return True
    if len(values) == 4:
        # What is not granted has inserted nothing: no statement is needed to undo it.
        return session.execute_rows(_INSERT, 4, values, _UNLESS_TAKEN, (now,)) == 1
    execute = session.connection.execute
    execute("SAVEPOINT claims")
    granted = session.execute_rows(_INSERT, 4, values, _UNLESS_TAKEN, (now,)) == len(values) // 4
    if not granted:
        execute("ROLLBACK TO claims")
    execute("RELEASE claims")
    return granted


def take(session: Session, claim: Claim | None, now: float, delivery_id: int | None = None) -> bool:
    """Insert one claim, for that delivery. Return True if it was free, or none is wanted."""
    if claim is None:
        return True
    values = (claim.scope, claim.key, claim.expires_at, delivery_id)
    return session.execute_rows(_INSERT, 4, values, _UNLESS_TAKEN, (now,)) == 1


def release(session: Session, delivery_ids: Sequence[int]) -> None:
    """Release the claims of these deliveries, which are dead letters now."""
    if delivery_ids:
        session.release_claims(_RELEASE, (json.dumps(delivery_ids),))


def hand_on(session: Session, dead_id: int, delivery_id: int) -> None:
    """Move the claim that a dead letter released to another delivery, unless a third has taken it meanwhile."""
    session.connection.execute(_HAND_ON, (delivery_id, dead_id))


def successions(session: Session) -> list[Succession]:
    """Return each delivery of this transaction that took the claim of a dead letter which is still kept."""
    if not session.has_released:
        return []
    rows = session.connection.execute(_SUCCEEDED).fetchall()
    if rows:
        session.connection.execute(_SETTLE_SUCCESSION)
    return [Succession(*row) for row in rows if row[2] is not None]
