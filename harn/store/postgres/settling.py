"""Writing of a delivery's state: after an attempt, and as a dead letter."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from harn.errors import StoreError
from harn.model import delivery as model
from harn.model.delivery import DeadLetter
from harn.store.halves import SettleUnit
from harn.store.postgres import claims
from harn.store.postgres.session import PostgresSession
from harn.store.rows import REPLAYED, attempt_row, settlement_row

_UPDATE = (
    "UPDATE deliveries d SET state = new.state, version = new.version, attempts = new.attempts, passed = new.passed,"
    " due_at = new.due_at, settled_at = new.settled_at, dead_number = new.dead_number, reason = new.reason,"
    " error_class = new.error_class, error = new.error, result = new.result, ended_as = new.ended_as,"
    " skip_reason = new.skip_reason"
    " FROM unnest($1::bigint[], $2::smallint[], $3::integer[], $4::integer[], $5::boolean[], $6::float8[],"
    " $7::float8[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::smallint[], $14::text[])"
    " AS new (id, state, version, attempts, passed, due_at, settled_at, dead_number, reason, error_class, error,"
    " result, ended_as, skip_reason) WHERE d.id = new.id AND d.owner = {}"
)
_UPDATE_WIDTH = 14
# With the attempts in one statement: one round trip for a batch.
_ATTEMPTED = (
    "WITH attempted AS (INSERT INTO attempts"
    " (id, delivery_id, number, version, started_at, completed_at, outcome, error_class, error, traceback, output)"
    " SELECT * FROM unnest($15::bigint[], $16::bigint[], $17::integer[], $18::integer[], $19::float8[], $20::float8[],"
    " $21::text[], $22::text[], $23::text[], $24::text[], $25::text[]))"
)
# Fails where not all are there and this server's: then each unit of the batch is written alone.
_CHECKED = " updated AS ({} RETURNING 1) SELECT 1 / (count(*) = {}::bigint)::integer FROM updated"
_SETTLE = _ATTEMPTED + " " + _UPDATE.format("$26::bigint")
_SETTLE_ALL = _ATTEMPTED + "," + _CHECKED.format(_UPDATE.format("$26::bigint"), "$27")
_SETTLE_WITHOUT_ATTEMPTS = _UPDATE.format("$15::bigint")
_SETTLE_ALL_WITHOUT_ATTEMPTS = "WITH" + _CHECKED.format(_UPDATE.format("$15::bigint"), "$16")
_OWNERS_OF = "SELECT id, owner FROM deliveries WHERE id = ANY ($1::bigint[])"
_FORGET_ATTEMPTS = "DELETE FROM attempts WHERE id = ANY ($1::bigint[])"
_ATTEMPT_WIDTH = 11
_FLOATS = (5, 6, 18, 19)
"""Places of columns whose values may be whole numbers in Python."""
_DEAD_LETTER = (
    "UPDATE deliveries SET state = 3, settled_at = $1::float8, dead_number = $2::bigint, reason = $3::text,"
    " error_class = $4::text, error = $5::text WHERE id = $6::bigint"
)
_MARK_REPLAYED = (
    f"UPDATE deliveries SET state = 2, ended_as = {REPLAYED}, died_at = settled_at, settled_at = $1::float8,"
    " replayed_as = $2::text WHERE id = $3::bigint AND state = 3"
)

Death: TypeAlias = tuple[int, DeadLetter, float]
"""A delivery's id, its dead letter, and when it died (seconds, Unix)."""
Columns: TypeAlias = list[list[Any]]


def columns(rows: Sequence[Sequence[Any]], width: int) -> Columns:
    """Return the values of rows column by column."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def floats(values: Sequence[Any]) -> list[float | None]:
    """Return numbers as floats: a list of both kinds has no form in SQL."""
    return [None if value is None else float(value) for value in values]


class PostgresSettle(SettleUnit):
    """Writes settlements with one statement, as far as each delivery is settled once."""

    __slots__ = ()

    @staticmethod
    def write_all(session: PostgresSession, units: Sequence[PostgresSettle], now: float) -> None:
        """
        Write settlements of this server's deliveries, in order. A dead letter releases its claim.

        Each unit's value is the ids of those deliveries that another server has taken over.

        :raises StoreError: a delivery is not there. Which one is named only if there is one settlement.
        """
        numbers = session.numbers
        rows: dict[int, Any] = {}
        attempts: list[Any] = []
        dying: list[int] = []
        taken: set[int] = set()
        for settlement, at in [(each, unit.at) for unit in units for each in unit.settlements]:
            delivery_id, attempt = settlement.delivery_id, settlement.attempt
            if delivery_id in rows:
                taken |= _write(session, rows, attempts)  # one statement would take either of two
                rows, attempts = {}, []
            if settlement.state is model.DEAD:
                numbers.dead += 1
                dying.append(delivery_id)
            rows[delivery_id] = settlement_row(
                settlement, at if attempt is None else attempt.completed_at, numbers.dead
            )
            if attempt is not None:
                numbers.attempt += 1
                attempts.append(attempt_row(numbers.attempt, delivery_id, attempt))
        taken |= _write(session, rows, attempts)
        claims.release(session, [each for each in dying if each not in taken] if taken else dying)
        for unit in units:
            unit.value = taken and taken.intersection([each.delivery_id for each in unit.settlements])


def _write(session: PostgresSession, rows: dict[int, Any], attempts: Sequence[Any]) -> set[int]:
    """
    Write settlements with one statement; return the ids of another server's deliveries, which stay as they are.

    In a batch, the statement goes with the commit, and fails where there are any.
    """
    if not rows:
        return set()
    values = columns(tuple(rows.values()), _UPDATE_WIDTH)
    statement = _SETTLE_WITHOUT_ATTEMPTS
    if attempts:
        values += columns(attempts, _ATTEMPT_WIDTH)
        statement = _SETTLE
    for place in _FLOATS[: 4 if attempts else 2]:
        values[place] = floats(values[place])
    values[4] = list(map(bool, values[4]))
    if not session.is_in_unit:
        statement = _SETTLE_ALL if attempts else _SETTLE_ALL_WITHOUT_ATTEMPTS
        session.defer(statement, (*values, session.incarnation, len(rows)))
        return set()
    if session.connection.execute(statement, (*values, session.incarnation)).rowcount == len(rows):
        return set()
    return _taken(session, rows, attempts)


def _taken(session: PostgresSession, rows: dict[int, Any], attempts: Sequence[Any]) -> set[int]:
    """Return which of these deliveries are another server's, and remove the attempts that were recorded of them."""
    owners = dict(session.connection.execute(_OWNERS_OF, (list(rows),)).fetchall())
    if len(owners) != len(rows):
        raise StoreError(f"there is no delivery {next(iter(rows))}" if len(rows) == 1 else "a delivery is not there")
    taken = {delivery_id for delivery_id, owner in owners.items() if owner != session.incarnation}
    session.connection.execute(_FORGET_ATTEMPTS, ([row[0] for row in attempts if row[1] in taken],))
    return taken


def mark_dead(session: PostgresSession, dead: Sequence[Death]) -> None:
    """Make dead letters of deliveries that were inserted in this transaction, without claims."""
    for delivery_id, letter, at in dead:
        session.numbers.dead += 1
        values = (float(at), session.numbers.dead, letter.reason, letter.error_class, letter.error, delivery_id)
        session.defer(_DEAD_LETTER, values)


def mark_replayed(session: PostgresSession, delivery_id: int, event_id: str, now: float) -> bool:
    """Make a dead letter one that was replayed as ``event_id``; return False for any other delivery."""
    values = (float(now), event_id, delivery_id)
    return bool(session.connection.execute(_MARK_REPLAYED, values).rowcount == 1)
