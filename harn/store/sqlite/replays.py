"""Changes of deliveries that have ended: dead letters are discarded, and recorded events accepted again."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from harn.model import delivery as model
from harn.model.delivery import CANCELLED, DEAD, DONE, LARGE_BODY, READY, State, StoredDelivery
from harn.model.event_trace import replayed_envelope
from harn.store.jobs import GONE, ItemOutcome, ReplayOrder, Replays
from harn.store.rows import DISCARDED, NAMES, SKIPPED
from harn.store.sqlite import claims
from harn.store.sqlite.connection import Session
from harn.store.sqlite.deliveries import STATE
from harn.store.sqlite.settling import mark_replayed

REPLAYABLE = frozenset((DONE, model.SKIPPED, DEAD))
"""States out of which a recorded event is accepted again."""

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


@frozen
class _Recorded:
    """The row of a delivery that is to be replayed, in the order of `_RECORDED`."""

    event_id: str
    trigger_id: str
    provider: str
    kind: str
    state: State
    replayed_as: str | None
    envelope: bytes
    size: int
    body: bytes


def _recorded(row: Sequence[Any]) -> _Recorded:
    event_id, trigger_id, provider, kind, state, replayed_as, envelope, size, body = row
    return _Recorded(event_id, trigger_id, provider, kind, NAMES[state], replayed_as, envelope, size, body)


def stands(state: State, replayed_as: str | None = None) -> str:
    """Return why nothing is done with a delivery in this state."""
    return f"it is {state}" + (f" as {replayed_as}" if replayed_as and state is State.REPLAYED else "")


def replay(session: Session, orders: Sequence[ReplayOrder], now: float, max_bytes: int) -> Replays:
    """See `harn.store.jobs.IJobs.replay`."""
    outcomes: list[ItemOutcome] = []
    deliveries: list[StoredDelivery] = []
    dead: set[int] = set()
    size = 0
    for order in orders:
        row = session.connection.execute(_RECORDED, (order.delivery_id,)).fetchone()
        if row is None:
            outcomes.append(ItemOutcome(delivery_id=order.delivery_id, event_id="", reason=GONE))
            continue
        recorded = _recorded(row)
        if recorded.state not in REPLAYABLE:
            why = stands(recorded.state, recorded.replayed_as)
            outcomes.append(ItemOutcome(delivery_id=order.delivery_id, event_id=recorded.event_id, reason=why))
            continue
        size += recorded.size
        if deliveries and size > max_bytes:
            break
        deliveries.append(_accept_again(session, order, recorded, now))
        if recorded.state is DEAD:
            dead.add(order.delivery_id)
        outcomes.append(
            ItemOutcome(delivery_id=order.delivery_id, event_id=recorded.event_id, replayed_as=order.event_id)
        )
    return Replays(outcomes=tuple(outcomes), deliveries=tuple(deliveries), dead=frozenset(dead))


def _accept_again(session: Session, order: ReplayOrder, recorded: _Recorded, now: float) -> StoredDelivery:
    """Write the new delivery, and name it in the old one."""
    session.numbers.delivery += 1
    envelope = replayed_envelope(recorded.envelope, order.event_id)
    new = _delivery(session.numbers.delivery, order, recorded, envelope, now)
    row = (new.delivery_id, new.event_id, new.trigger_id, new.version, new.provider, new.kind)
    session.connection.execute(_COPY_EVENT, (new.delivery_id, envelope, order.delivery_id))
    session.connection.execute(_INSERT, (*row, session.incarnation, now, new.replay_of))
    if recorded.state is DEAD:
        mark_replayed(session, order.delivery_id, order.event_id, now)
        claims.hand_on(session, order.delivery_id, new.delivery_id)
    else:
        session.connection.execute(_NAME_REPLAY, (order.event_id, order.delivery_id))
    return new


def _delivery(delivery_id: int, order: ReplayOrder, recorded: _Recorded, envelope: bytes, now: float) -> StoredDelivery:
    return StoredDelivery(
        delivery_id=delivery_id,
        event_id=order.event_id,
        trigger_id=recorded.trigger_id,
        version=order.version,
        provider=recorded.provider,
        kind=recorded.kind,
        state=READY,
        attempts=0,
        passed=False,
        crashes=0,
        due_at=None,
        received_at=now,
        replay_of=recorded.event_id,
        envelope=envelope,
        body=recorded.body,
        left_out=0 if recorded.size <= LARGE_BODY else recorded.size,
    )


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
