"""Claims: each dedupe key is taken once until it expires, or until the delivery that holds it becomes a dead letter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harn.model.delivery import Acceptance, Claim
from harn.store.sqlite.session import Session

TABLES = """
-- `delivery_id`: which delivery holds it; it goes when that becomes a dead letter. None: it stays until it expires.
CREATE TABLE claims (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    expires_at REAL NOT NULL,
    delivery_id INTEGER,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE INDEX claims_delivery ON claims (delivery_id) WHERE delivery_id IS NOT NULL;
"""

_INSERT = "INSERT INTO claims (scope, key, expires_at, delivery_id) VALUES "
_UNLESS_TAKEN = (
    " ON CONFLICT (scope, key) DO UPDATE SET expires_at = excluded.expires_at, delivery_id = excluded.delivery_id"
    " WHERE claims.expires_at <= ?"
)
_RELEASE = "DELETE FROM claims WHERE delivery_id IN (SELECT value FROM json_each(?))"
_EXPIRED = (
    "DELETE FROM claims WHERE (scope, key) IN"
    " (SELECT scope, key FROM claims WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)


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
            if claim is not None:
                values += (claim.scope, claim.key, claim.expires_at, None if claim.lasting else number)
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
    values = (claim.scope, claim.key, claim.expires_at, None if claim.lasting else delivery_id)
    return session.execute_rows(_INSERT, 4, values, _UNLESS_TAKEN, (now,)) == 1


def release(session: Session, delivery_ids: Sequence[int]) -> None:
    """Delete the claims of these deliveries."""
    if delivery_ids:
        session.connection.execute(_RELEASE, (json.dumps(delivery_ids),))


def trim(session: Session, now: float, limit: int) -> int:
    """Delete up to ``limit`` claims that have expired; return how many."""
    return session.connection.execute(_EXPIRED, (now, limit)).rowcount
