"""The inbox: accepted events with their claims, the first rows of their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from harn.errors import ClaimTaken
from harn.store.halves import AcceptUnit, InboxHalf
from harn.store.inbox import IInbox, Kept
from harn.store.sqlite import claims
from harn.store.sqlite.connection import LARGE, Session, blob
from harn.store.sqlite.generations import STANDING
from harn.store.sqlite.settling import Death, mark_dead, mark_replayed

_INSERT_EVENTS = "INSERT INTO events (id, envelope, body) VALUES "
_INSERT_LARGE_EVENT = "INSERT INTO events (id, envelope, body) SELECT ?, ?, ? WHERE ?"
_INSERT_DELIVERIES = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at) VALUES "
)
_NAME_REPEATED = "UPDATE deliveries SET replay_of = ? WHERE id = ?"


class Accept(AcceptUnit):
    """Writes acceptances with few statements."""

    __slots__ = ()

    @staticmethod
    def write_all(session: Session, units: Sequence[Accept], now: float) -> None:
        """
        Write acceptances, in order; one whose guard is taken gets its error, a duplicate its None. What takes the claim
        of a dead letter is linked with it.
        """
        granted = claims.take_all(session, [unit.acceptance for unit in units], now)
        events, deliveries = list[Any](), list[Any]()
        large, replays = list[tuple[Any, ...]](), list[tuple[str, int]]()
        dead: list[Death] = []
        checkpoints: dict[str, bytes | None] = {}
        owner, number = session.incarnation, session.numbers.delivery
        for unit in units:
            ids: list[int | None] = []
            if not granted and not claims.take(session, unit.acceptance.guard, now):
                unit.error = ClaimTaken("it was accepted before")
                continue
            for new in unit.acceptance.deliveries:
                claim = None if new.dead is not None else new.claim
                if not granted and not claims.take(session, claim, now, number + 1):
                    ids.append(None)
                    continue
                number += 1
                ids.append(number)
                if len(new.body) > LARGE:
                    large.append((number, new.envelope, new.body, True))
                else:
                    events += (number, blob(new.envelope), blob(new.body))
                deliveries += (number, new.event_id, new.trigger_id, new.version)
                deliveries += (new.provider, new.kind, owner, new.received_at)
                if new.replay_of is not None:
                    replays.append((new.replay_of, number))
                if new.dead is not None:
                    dead.append((number, new.dead, new.received_at))
            unit.value = Kept(ids)
            if unit.acceptance.checkpoint is not None:
                checkpoints[unit.acceptance.checkpoint.name] = unit.acceptance.checkpoint.value
        session.numbers.delivery = number
        _insert(session, events, large, deliveries, replays)
        mark_dead(session, dead)
        if checkpoints:
            STANDING.put_all(session, checkpoints)
        _link(session, units, now)


def _insert(
    session: Session,
    events: list[Any],
    large: list[tuple[Any, ...]],
    deliveries: list[Any],
    replays: list[tuple[str, int]],
) -> None:
    if events:
        session.execute_rows(_INSERT_EVENTS, 3, events)
    for event in large:
        session.connection.execute(_INSERT_LARGE_EVENT, event)
    if large:
        session.connection.execute(_INSERT_LARGE_EVENT, (None, None, None, False))  # frees the copy of the last one
    if deliveries:
        session.execute_rows(_INSERT_DELIVERIES, 8, deliveries)
    for replay in replays:
        session.connection.execute(_NAME_REPEATED, replay)


def _link(session: Session, units: Sequence[Accept], now: float) -> None:
    """Link deliveries that took the claim of a dead letter with that, in their rows and in the units' values."""
    found = {each.delivery_id: each for each in claims.successions(session)}
    if not found:
        return
    for unit in units:
        kept = unit.value
        if kept is None:
            continue
        pairs = [
            (found[number], new)
            for number, new in zip(kept, unit.acceptance.deliveries, strict=True)
            if number in found
        ]
        for succession, new in pairs:
            session.connection.execute(_NAME_REPEATED, (succession.dead_event, succession.delivery_id))
            mark_replayed(session, succession.dead_id, new.event_id, now)
        if pairs:
            kept.repeats = {succession.delivery_id: succession.dead_event for succession, _ in pairs}


@implementer(IInbox)
class SQLiteInbox(InboxHalf):
    """`IInbox` on SQLite."""

    unit = Accept
