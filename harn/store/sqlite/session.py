"""The writer's connection, the numbers that it gives, and how it writes many rows in one statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any

from attrs import define

MOST_ROWS = 32
"""Rows of one statement. Each number of rows is a prepared statement of its own, some 30 KB at this size."""

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

_HAS_RELEASED = "SELECT 1 FROM claims WHERE expires_at < 0 LIMIT 1"


@define
class Numbers:
    """The numbers given last: of deliveries, attempts, dead letters in the order of dying, records of the log."""

    delivery: int
    attempt: int
    dead: int
    record: int

    def copy(self) -> Numbers:
        """Return a copy."""
        return Numbers(self.delivery, self.attempt, self.dead, self.record)


class Session:
    """
    One connection that writes; the transaction around a unit is the caller's.

    Numbers are counted here rather than asked of SQLite for each row. They are read again after a transaction that
    failed, and when another process wrote: while a server takes over from another, the two share the database.

    :param incarnation: the ``owner`` of accepted deliveries; 0 until this server is registered.
    :ivar has_released: False while no dead letter has released a claim; to save a statement for each batch.
    """

    def __init__(self, connection: sqlite3.Connection, incarnation: int) -> None:
        self.connection = connection
        self.incarnation = incarnation
        self.numbers = Numbers(delivery=0, attempt=0, dead=0, record=0)
        self.has_released = False
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
        """Read the latest numbers from the database."""
        found = dict(self.connection.execute(_NUMBERS).fetchall())
        self.numbers = Numbers(**{name: highest or 0 for name, highest in found.items()})
        self.has_released = self.connection.execute(_HAS_RELEASED).fetchone() is not None

    def keep_numbers(self) -> None:
        """Write the numbers down, before rows that had them are removed."""
        numbers = self.numbers
        self.execute_rows(
            "INSERT INTO numbers (name, highest) VALUES ",
            2,
            ["delivery", numbers.delivery, "attempt", numbers.attempt, "dead", numbers.dead, "record", numbers.record],
            " ON CONFLICT (name) DO UPDATE SET highest = excluded.highest",
        )

    def execute_rows(
        self, head: str, width: int, values: Sequence[Any], tail: str = "", tail_values: Sequence[Any] = ()
    ) -> int:
        """
        Run ``head``, a ``VALUES`` list, ``tail``.

        Each call of SQLite releases Python's interpreter lock and has to win it back from a busy reactor thread, so a
        batch is written with few calls rather than one for each row.

        :param width: values in a row.
        :param values: those of all rows, one after the other.
        :return: how many rows of the database were changed.
        """
        most = MOST_ROWS * width
        execute = self.connection.execute
        if len(values) <= most:
            statement = _statement(head, width, len(values) // width, tail)
            return execute(statement, [*values, *tail_values] if tail_values else values).rowcount
        changed = 0
        for start in range(0, len(values), most):
            part = values[start : start + most]
            statement = _statement(head, width, len(part) // width, tail)
            changed += execute(statement, [*part, *tail_values]).rowcount
        return changed


@cache
def _statement(head: str, width: int, rows: int, tail: str) -> str:
    row = "(" + ", ".join("?" * width) + ")"
    return head + ", ".join([row] * rows) + tail
