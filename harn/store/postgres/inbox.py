"""The inbox: accepted events with their claims, the first rows of their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from harn.errors import ClaimTaken
from harn.store.halves import AcceptUnit, InboxHalf
from harn.store.inbox import IInbox, Kept
from harn.store.postgres import claims
from harn.store.postgres.claims import Wanted
from harn.store.postgres.generations import STANDING
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.settling import Death, columns, floats, mark_dead, mark_replayed

_INSERT = (
    "WITH event AS (INSERT INTO events (id, envelope, body)"
    " SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]))"
    " INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, received_at, replay_of, owner)"
    " SELECT *, $10::bigint FROM unnest($1::bigint[], $4::text[], $5::text[], $6::integer[], $7::text[], $8::text[],"
    " $9::float8[], $11::text[])"
)
_WIDTH = 10
_NAME_REPEATED = "UPDATE deliveries SET replay_of = $1::text WHERE id = $2::bigint"


class PostgresAccept(AcceptUnit):
    """Writes acceptances with few statements."""

    __slots__ = ()

    @staticmethod
    def write_all(session: PostgresSession, units: Sequence[PostgresAccept], now: float) -> None:
        """
        Write acceptances, in order; one whose guard is taken gets its error, a duplicate its None. What takes the claim
        of a dead letter is linked with it.
        """
        kept = _admitted(session, units, now)
        wanted: list[Wanted] = []
        claimed: list[Any] = []
        number = session.numbers.delivery
        for unit in kept:
            for new in unit.acceptance.deliveries:
                number += 1  # a duplicate's is given to nothing
                if new.claim is not None and new.dead is None:
                    wanted.append((new.claim, number))
                    claimed.append(number)
        taken = claims.take_all(session, wanted, now).places
        repeated = {number: taken[place] for place, number in enumerate(claimed) if place in taken}
        refused = {number for number in claimed if number not in repeated}
        _write(session, kept, refused)
        _link(session, kept, repeated, now)


def _admitted(session: PostgresSession, units: Sequence[PostgresAccept], now: float) -> list[PostgresAccept]:
    """Acquire the guards; return the units that continue."""
    guarded = [unit for unit in units if unit.acceptance.guard is not None]
    if not guarded:
        return list(units)
    wanted: list[Wanted] = [(unit.acceptance.guard, None) for unit in guarded if unit.acceptance.guard is not None]
    taken = claims.take_all(session, wanted, now).places
    for place, unit in enumerate(guarded):
        if place not in taken:
            unit.error = ClaimTaken("it was accepted before")
    return [unit for unit in units if unit.error is None]


def _write(session: PostgresSession, units: Sequence[PostgresAccept], refused: set[int]) -> None:
    rows: list[Any] = []
    dead: list[Death] = []
    checkpoints: dict[str, bytes | None] = {}
    number = session.numbers.delivery
    for unit in units:
        ids: list[int | None] = []
        for new in unit.acceptance.deliveries:
            number += 1
            if number in refused:
                ids.append(None)
                continue
            ids.append(number)
            rows.append(
                (
                    *(number, new.envelope, new.body, new.event_id, new.trigger_id, new.version, new.provider),
                    *(new.kind, new.received_at, new.replay_of),
                )
            )
            if new.dead is not None:
                dead.append((number, new.dead, new.received_at))
        unit.value = Kept(ids)
        if unit.acceptance.checkpoint is not None:
            checkpoints[unit.acceptance.checkpoint.name] = unit.acceptance.checkpoint.value
    session.numbers.delivery = number
    if rows:
        *values, received, replays = columns(rows, _WIDTH)
        session.defer(_INSERT, (*values, floats(received), session.incarnation, replays))
    mark_dead(session, dead)
    if checkpoints:
        STANDING.put_all(session, checkpoints)


def _link(
    session: PostgresSession, units: Sequence[PostgresAccept], repeated: dict[int, int | None], now: float
) -> None:
    """Link deliveries that took the claim of a dead letter with that, in their rows and in the units' values."""
    events = claims.events_of(session, [dead_id for dead_id in repeated.values() if dead_id is not None])
    if not events:
        return
    for unit in units:
        repeats: dict[int, str] = {}
        for number, new in zip(unit.value, unit.acceptance.deliveries, strict=True):
            dead_id = None if number is None else repeated.get(number)
            if number is not None and dead_id is not None and dead_id in events:
                session.connection.execute(_NAME_REPEATED, (events[dead_id], number))
                mark_replayed(session, dead_id, new.event_id, now)
                repeats[number] = events[dead_id]
        if repeats:
            unit.value.repeats = repeats


@implementer(IInbox)
class PostgresInbox(InboxHalf):
    """`IInbox` on PostgreSQL."""

    unit = PostgresAccept
