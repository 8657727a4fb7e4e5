"""Writing of a delivery's state: after an attempt, and as a dead letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from harn.errors import StoreError
from harn.model import delivery as model
from harn.model.delivery import DeadLetter, Settlement
from harn.store.halves import SettleUnit
from harn.store.rows import REPLAYED, attempt_row, settlement_row
from harn.store.sqlite import claims
from harn.store.sqlite.connection import LARGE, Session, blob

_UPDATE_DELIVERIES = (
    "UPDATE deliveries SET state = new.column2, version = new.column3, attempts = new.column4, passed = new.column5,"
    " due_at = new.column6, settled_at = new.column7, dead_number = new.column8, reason = new.column9,"
    " error_class = new.column10, error = new.column11, result = new.column12, ended_as = new.column13,"
    " skip_reason = new.column14 FROM (VALUES "
)
_BY_ID = ") AS new WHERE deliveries.id = new.column1"
# Of nearly all: a row that is not finished has nothing in the other columns. The sign keeps the index out.
_UPDATE_DONE = (
    "UPDATE deliveries SET state = 2, due_at = NULL, version = new.column2, attempts = new.column3,"
    " passed = new.column4, settled_at = new.column5, result = new.column6 FROM (VALUES "
)
_BY_ID_IF_UNFINISHED = _BY_ID + " AND +deliveries.state < 2"
_DEAD_LETTER = (
    "UPDATE deliveries SET state = 3, settled_at = ?, dead_number = ?, reason = ?, error_class = ?, error = ?"
    " WHERE id = ?"
)
_MARK_REPLAYED = (
    "UPDATE deliveries SET state = 2, ended_as = ?, died_at = settled_at, settled_at = ?, replayed_as = ?"
    " WHERE id = ? AND state = 3"
)
_INSERT_ATTEMPTS = (
    "INSERT INTO attempts"
    " (id, delivery_id, number, version, started_at, completed_at, outcome, error_class, error, traceback, output)"
    " VALUES "
)
# Of nearly all; see `harn.store.sqlite.connection.blob` for why their empty columns are left out.
_INSERT_SUCCESSES = "INSERT INTO attempts (id, delivery_id, number, version, started_at, completed_at, outcome) VALUES "
_NO_ERROR = (None, None, None, None)

Death: TypeAlias = tuple[int, DeadLetter, float]
"""A delivery's id, its dead letter, and when it died (seconds, Unix)."""


class Settle(SettleUnit):
    """Writes settlements with few statements."""

    __slots__ = ()

    @staticmethod
    def write_all(session: Session, units: Sequence[Settle], now: float) -> None:
        """
        Write settlements, in order. A dead letter releases its claim.

        :raises StoreError: a delivery is not there. Which one is named only if there is one settlement.
        """
        rows, attempts, successes = Rows(session), list[Any](), list[Any]()
        dying: list[int] = []
        numbers = session.numbers
        for settlement, at in [(each, unit.at) for unit in units for each in unit.settlements]:
            delivery_id, attempt = settlement.delivery_id, settlement.attempt
            if settlement.state is model.DEAD:
                numbers.dead += 1
                dying.append(delivery_id)
            rows.add(settlement, at if attempt is None else attempt.completed_at)
            if attempt is not None:
                numbers.attempt += 1
                row = attempt_row(numbers.attempt, delivery_id, attempt)
                if row[7:] == _NO_ERROR:
                    successes += row[:7]
                else:
                    attempts += row
        rows.write()
        claims.release(session, dying)
        if successes:
            session.execute_rows(_INSERT_SUCCESSES, 7, successes)
        if attempts:
            session.execute_rows(_INSERT_ATTEMPTS, 11, attempts)


class Rows:
    """Rows of deliveries that wait to be written: those that are done with one statement, all others with another."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._done: list[tuple[Settlement, float]] = []
        self._others: list[Any] = []
        self._seen: set[int] = set()

    def add(self, settlement: Settlement, at: float) -> None:
        """Add a row; ``at`` is since when the delivery stands there (seconds, Unix)."""
        delivery_id = settlement.delivery_id
        is_large = settlement.result is not None and len(settlement.result) > LARGE
        if delivery_id in self._seen or is_large:
            self.write()  # one statement would take two of a delivery in any order; and see `LARGE`
        self._seen.add(delivery_id)
        if settlement.state is model.DONE:
            self._done.append((settlement, at))
        else:
            self._others += settlement_row(settlement, at, self._session.numbers.dead)
        if is_large:
            self.write()

    def write(self) -> None:
        """
        Write the added rows.

        :raises StoreError: a delivery is not there.
        """
        done, others = self._done, self._others
        values: list[Any] = []
        for each, at in done:
            result = None if each.result is None else blob(each.result)
            values += (each.delivery_id, each.version, each.attempts, int(each.passed), at, result)
        execute = self._session.execute_rows
        if values and execute(_UPDATE_DONE, 6, values, _BY_ID_IF_UNFINISHED) != len(done):
            # One was given up meanwhile, while its handler ran on; or is not there.
            for each, at in done:
                others += settlement_row(each, at, 0)
        if others and execute(_UPDATE_DELIVERIES, 14, others, _BY_ID) != len(others) // 14:
            raise StoreError(f"there is no delivery {others[0]}" if len(others) == 14 else "a delivery is not there")
        self._done, self._others, self._seen = [], [], set()


def mark_dead(session: Session, dead: Sequence[Death]) -> None:
    """Make dead letters of deliveries that were inserted in this transaction, without claims."""
    for delivery_id, letter, at in dead:
        session.numbers.dead += 1
        values = (at, session.numbers.dead, letter.reason, letter.error_class, letter.error, delivery_id)
        session.connection.execute(_DEAD_LETTER, values)


def mark_replayed(session: Session, delivery_id: int, event_id: str, now: float) -> bool:
    """Make a dead letter one that was replayed as ``event_id``; return False for any other delivery."""
    values = (REPLAYED, now, event_id, delivery_id)
    return session.connection.execute(_MARK_REPLAYED, values).rowcount == 1
