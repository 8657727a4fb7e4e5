"""The writer's connection and what it knows of the database: numbers to give, and how the hot units are written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from attrs import define

from harn.errors import ClaimTaken, StoreError
from harn.model import delivery as model
from harn.model.delivery import Claim, DeadLetter
from harn.store.sqlite.rows import execute_rows
from harn.store.sqlite.schema import DEAD, DONE, READY, WAITING
from harn.store.sqlite.units import Accept, Append, Settle

STATES = {model.READY: READY, model.WAITING: WAITING, model.DONE: DONE, model.DEAD: DEAD}

_INSERT_EVENTS = "INSERT INTO events (id, envelope, body) VALUES "
_INSERT_LARGE_EVENT = "INSERT INTO events (id, envelope, body) SELECT ?, ?, ? WHERE ?"
_INSERT_DELIVERIES = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, replay_of) VALUES "
)
_INSERT_CLAIMS = "INSERT INTO claims (scope, key, expires_at, delivery_id) VALUES "
_UNLESS_TAKEN = (
    " ON CONFLICT (scope, key) DO UPDATE SET expires_at = excluded.expires_at, delivery_id = excluded.delivery_id"
    " WHERE claims.expires_at <= ?"
)
_RELEASE = "DELETE FROM claims WHERE delivery_id IN (SELECT value FROM json_each(?))"
_UPDATE_DELIVERIES = (
    "UPDATE deliveries SET state = new.column2, version = new.column3, attempts = new.column4, passed = new.column5,"
    " due_at = new.column6, settled_at = new.column7, dead_number = new.column8, reason = new.column9,"
    " error_class = new.column10, error = new.column11, result = new.column12 FROM (VALUES "
)
_BY_ID = ") AS new WHERE deliveries.id = new.column1"
_BURY = (
    "UPDATE deliveries SET state = 3, settled_at = ?, dead_number = ?, reason = ?, error_class = ?, error = ?"
    " WHERE id = ?"
)
_INSERT_ATTEMPTS = (
    "INSERT INTO attempts"
    " (id, delivery_id, number, version, started_at, completed_at, outcome, error_class, error) VALUES "
)
_INSERT_RECORDS = "INSERT INTO log (number, topic, kind, occurred_at, headers, payload) VALUES "

LARGE = 16 * 1024
"""
Bytes of a body, or of a result, above which it is written by a statement of its own.

SQLite copies what is bound to a statement, and Python keeps each prepared statement, one for each number of rows, with
what was bound to it last.
"""

_NUMBERS = """
SELECT name, max(highest) FROM (
    SELECT name, highest FROM numbers
    UNION ALL SELECT 'delivery', max(id) FROM deliveries
    UNION ALL SELECT 'attempt', max(id) FROM attempts
    UNION ALL SELECT 'dead', max(dead_number) FROM deliveries WHERE dead_number IS NOT NULL
    UNION ALL SELECT 'record', max(number) FROM log
) GROUP BY name
"""


@define
class Numbers:
    """The numbers given last: of deliveries, attempts, dead letters in the order of dying, records of the log."""

    delivery: int
    attempt: int
    dead: int
    record: int


class Session:
    """
    Writes units through one connection; the transaction around them is the caller's.

    Numbers are counted here rather than asked of SQLite for each row. They are read again after a transaction that
    failed, and when another process wrote: while a server takes over from another, the two share the database.

    :param incarnation: the ``owner`` of what is accepted; 0 until this server is registered.
    """

    def __init__(self, connection: sqlite3.Connection, incarnation: int) -> None:
        self.connection = connection
        self.incarnation = incarnation
        self.numbers = Numbers(delivery=0, attempt=0, dead=0, record=0)
        self._seen: int | None = None
        self.read_numbers()

    def begin(self) -> None:
        """
        Begin a transaction as the only writer, with the right numbers.

        :raises sqlite3.OperationalError: another process held the database for longer than the busy timeout.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        # It changes when another connection has committed, and only then.
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        if version != self._seen:
            self.read_numbers()
            self._seen = version

    def read_numbers(self) -> None:
        """Take the numbers given last from the database."""
        found = dict(self.connection.execute(_NUMBERS).fetchall())
        self.numbers = Numbers(**{name: highest or 0 for name, highest in found.items()})

    def keep_numbers(self) -> None:
        """Write the numbers down, before rows that had them are removed."""
        numbers = self.numbers
        execute_rows(
            self.connection,
            "INSERT OR REPLACE INTO numbers (name, highest) VALUES ",
            2,
            ["delivery", numbers.delivery, "attempt", numbers.attempt, "dead", numbers.dead, "record", numbers.record],
        )

    def accept(self, units: Sequence[Accept], now: float) -> None:
        """Write acceptances, in order; one whose guard is taken gets its error, a duplicate its None."""
        granted = self._claim_all(units, now)
        events: list[Any] = []
        large: list[tuple[Any, ...]] = []
        deliveries: list[Any] = []
        dead: list[tuple[int, DeadLetter, float]] = []
        owner, number = self.incarnation, self.numbers.delivery
        for unit in units:
            ids: list[int | None] = []
            if not granted and not self._claim(unit.acceptance.guard, now):
                unit.error = ClaimTaken("it was accepted before")
                continue
            for new in unit.acceptance.deliveries:
                if not granted and not self._claim(new.claim, now, number + 1):
                    ids.append(None)
                    continue
                number += 1
                ids.append(number)
                if len(new.body) > LARGE:
                    large.append((number, new.envelope, new.body, True))
                else:
                    events += (number, new.envelope, new.body)
                deliveries += (
                    number,
                    new.event_id,
                    new.trigger_id,
                    new.version,
                    new.provider,
                    new.kind,
                    owner,
                    new.received_at,
                    new.replay_of,
                )
                if new.dead is not None:
                    dead.append((number, new.dead, new.received_at))
                    if not granted:
                        self._release([number])  # a later one of this batch may take the same claim
            unit.value = tuple(ids)
        self.numbers.delivery = number
        if events:
            execute_rows(self.connection, _INSERT_EVENTS, 3, events)
        for event in large:
            self.connection.execute(_INSERT_LARGE_EVENT, event)
        if large:
            self.connection.execute(_INSERT_LARGE_EVENT, (None, None, None, False))  # frees the copy of the last one
        if deliveries:
            execute_rows(self.connection, _INSERT_DELIVERIES, 9, deliveries)
        for delivery_id, letter, at in dead:
            self.numbers.dead += 1
            values = (at, self.numbers.dead, letter.reason, letter.error_class, letter.error, delivery_id)
            self.connection.execute(_BURY, values)
        self._release([delivery_id for delivery_id, _, _ in dead])

    def settle(self, units: Sequence[Settle]) -> None:
        """
        Write settlements, in order. A dead letter releases its claim.

        :raises StoreError: a delivery is not there. Which one is told only if there is one unit.
        """
        rows: list[Any] = []
        attempts: list[Any] = []
        seen: set[int] = set()
        dying: list[int] = []
        numbers = self.numbers
        for unit in units:
            settlement = unit.settlement
            attempt, dead = settlement.attempt, settlement.dead
            delivery_id = settlement.delivery_id
            is_large = settlement.result is not None and len(settlement.result) > LARGE
            if delivery_id in seen or is_large:
                # One statement would take two of a delivery in any order; and see `LARGE`.
                self._update(rows, len(seen))
                rows, seen = [], set()
            seen.add(delivery_id)
            state = STATES[settlement.state]
            settled_at = None
            if state >= DONE:
                settled_at = unit.at if attempt is None else attempt.completed_at
            if state == DEAD:
                numbers.dead += 1
                dying.append(delivery_id)
            rows += (
                delivery_id,
                state,
                settlement.version,
                settlement.attempts,
                settlement.passed,
                settlement.due_at,
                settled_at,
                numbers.dead if state == DEAD else None,
            )
            rows += (None, None, None) if dead is None else (dead.reason, dead.error_class, dead.error)
            rows.append(settlement.result)
            if is_large:
                self._update(rows, 1)
                rows, seen = [], set()
            if attempt is not None:
                numbers.attempt += 1
                attempts += (
                    numbers.attempt,
                    delivery_id,
                    attempt.number,
                    attempt.version,
                    attempt.started_at,
                    attempt.completed_at,
                    attempt.outcome,
                    attempt.error_class,
                    attempt.error,
                )
        self._update(rows, len(seen))
        self._release(dying)
        if attempts:
            execute_rows(self.connection, _INSERT_ATTEMPTS, 9, attempts)

    def append(self, units: Sequence[Append]) -> None:
        """Write records of the log, in order."""
        values: list[Any] = []
        numbers = self.numbers
        for unit in units:
            numbers.record += 1
            unit.value = numbers.record
            values += (numbers.record, unit.topic, unit.kind, unit.at, unit.headers, unit.payload)
        execute_rows(self.connection, _INSERT_RECORDS, 6, values)

    def _update(self, rows: list[Any], expected: int) -> None:
        if rows and execute_rows(self.connection, _UPDATE_DELIVERIES, 12, rows, _BY_ID) != expected:
            raise StoreError(f"there is no delivery {rows[0]}" if expected == 1 else "a delivery is not there")

    def _release(self, delivery_ids: Sequence[int]) -> None:
        if delivery_ids:
            self.connection.execute(_RELEASE, (json.dumps(delivery_ids),))

    def _claim_all(self, units: Sequence[Accept], now: float) -> bool:
        """
        Take all claims of a batch at once, as nearly always can be done; False, and nothing taken, if any cannot.
        """
        values: list[Any] = []
        number = self.numbers.delivery
        for unit in units:
            acceptance = unit.acceptance
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
            # What is not granted has taken nothing: no statement is needed to undo it.
            return execute_rows(self.connection, _INSERT_CLAIMS, 4, values, _UNLESS_TAKEN, (now,)) == 1
        execute = self.connection.execute
        execute("SAVEPOINT claims")
        granted = execute_rows(self.connection, _INSERT_CLAIMS, 4, values, _UNLESS_TAKEN, (now,)) == len(values) // 4
        if not granted:
            execute("ROLLBACK TO claims")
        execute("RELEASE claims")
        return granted

    def _claim(self, claim: Claim | None, now: float, delivery_id: int | None = None) -> bool:
        """Take one claim, for that delivery; True if it was free, or none is wanted."""
        if claim is None:
            return True
        values = (claim.scope, claim.key, claim.expires_at, None if claim.lasting else delivery_id)
        return execute_rows(self.connection, _INSERT_CLAIMS, 4, values, _UNLESS_TAKEN, (now,)) == 1
