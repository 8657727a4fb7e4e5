"""The connection of the writer to PostgreSQL: its transactions, and the numbers that it gives."""

# Statements are put together from constants and numbers; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from harn.errors import EventLogGone, ServerFenced, StateDirectoryUnusable
from harn.store.database import Arrays, Numbers
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint, driver

_WRITERS, MIGRATIONS = 0x6861726E, 0x6861726D
"""Classes of advisory locks; the second key is that of the schema."""

_NUMBERS = "delivery_numbers", "attempt_numbers", "dead_numbers", "record_numbers"
"""Sequences with the numbers given last; a step of one is seen immediately, and leaves no old row behind."""
SEQUENCES = "".join(f"CREATE SEQUENCE {name} MINVALUE 0 START 0;\n" for name in _NUMBERS)
_READ_NUMBERS = "SELECT " + ", ".join(f"(SELECT last_value FROM {name})" for name in _NUMBERS)
_NOTIFY = "SELECT pg_notify($1::text, $2::text)"
_LIVES = "EXISTS (SELECT 1 FROM servers WHERE incarnation = {:d} AND ended_at IS NULL)"
"""Whether a server was not fenced: who fences one is the only writer then, so that no transaction is under way."""
_TRIES = 0.2
"""Seconds between two questions whether a transaction was committed."""


def lock_key(schema: str) -> int:
    """Return the second key of advisory locks: a number of 32 bits with a sign."""
    return zlib.crc32(schema.encode()) - 2**31


class ListArrays:
    """See `harn.store.database.Arrays`: PostgreSQL has arrays, which lists become."""

    def of(self, values: Collection[Any]) -> list[Any]:
        """See `Arrays.of`."""
        return list(values)

    def pairs(self, versions: Collection[tuple[str, int]]) -> tuple[Any, ...]:
        """See `Arrays.pairs`: the trigger ids, and the numbers."""
        return [trigger_id for trigger_id, _ in versions], [version for _, version in versions]


ARRAYS = ListArrays()


class PostgresSession:
    """
    The writer's connection; see `harn.store.database.Session`.

    :param endpoint: makes the connection again, to find out whether a commit was made whose answer did not come.
    :ivar is_in_unit: between `begin_unit` and `end_unit`: what is written there fails alone.
    :ivar is_closing: set by another thread: the answer is not waited for any longer.
    """

    def __init__(self, connection: PostgresConnection, incarnation: int, endpoint: PostgresEndpoint) -> None:
        self.arrays: Arrays = ARRAYS
        self.error: type[Exception] = driver().Error
        self.connection = connection
        self.incarnation = incarnation
        self.is_closing = False
        self.numbers = Numbers(delivery=0, attempt=0, dead=0, record=0)
        self._endpoint = endpoint
        self._transaction = ""
        self.is_in_unit = False
        self._noted = self.numbers.copy()
        self._begin = (
            f"BEGIN; SELECT pg_advisory_xact_lock({_WRITERS}, {lock_key(connection.schema)}::integer);"
            f" {_READ_NUMBERS}, pg_current_xact_id()::text, "
        )
        self.read_numbers()

    def begin(self) -> None:
        """
        See `harn.store.database.Session.begin`.

        :raises ServerFenced: others have taken over what this server had.
        """
        self.is_in_unit = False
        lives = _LIVES.format(self.incarnation) if self.incarnation else "true"
        *numbers, self._transaction, is_alive = self.connection.run(self._begin + lives)
        self.numbers = Numbers(*map(int, numbers))
        self._noted = self.numbers.copy()
        if not is_alive:
            raise ServerFenced(
                f"the other servers on the store have taken over what this one (number {self.incarnation}) had, since"
                " it was silent for too long"
            )

    def commit(self) -> None:
        """
        See `harn.store.database.Session.commit`.

        Where the connection fails before the answer, wait until it is known whether the transaction was committed.
        """
        try:
            self.connection.commit(self._given())
        except self.error as error:
            if not self.connection.is_broken or not self._was_committed():
                raise
            from twisted.logger import Logger  # here, since commands read a store and must start fast

            log = Logger(namespace="harn.store")
            log.warn("the event log committed what it did not answer: {error}", error=str(error).strip())

    def _given(self) -> str:
        """Return the statement that notes the numbers which were given; empty for none."""
        now, before = self.numbers, self._noted
        pairs = zip(
            _NUMBERS,
            (now.delivery, now.attempt, now.dead, now.record),
            (before.delivery, before.attempt, before.dead, before.record),
            strict=True,
        )
        steps = [f"setval('{name}', {number})" for name, number, noted in pairs if number != noted]
        return f"SELECT {', '.join(steps)}" if steps else ""

    def _was_committed(self) -> bool:
        """Return whether the transaction was committed; wait until PostgreSQL can say so."""
        while not self.is_closing:
            status = self._status_of_commit()
            if status in ("committed", "aborted"):
                return status == "committed"
            time.sleep(_TRIES)  # in the writer's thread, which has nothing else to do until this is known
        return False

    def _status_of_commit(self) -> str | None:
        """Return PostgreSQL's status of the transaction, over a new connection, which stays; None if it gives none."""
        try:
            connection = self._endpoint.connect()
        except StateDirectoryUnusable:
            return None
        status: str | None = None
        try:
            (found,) = connection.execute("SELECT pg_xact_status($1::text::xid8)", (self._transaction,)).fetchone()
            status = found or "aborted"
        except self.error:
            # One that never had this transaction is a standby that lagged behind and took over.
            status = None if connection.is_broken else "aborted"
        if status in ("committed", "aborted"):
            with suppress(self.error):
                self.connection.close()
            self.connection = connection
        else:
            connection.close()
        return status

    def roll_back(self) -> None:
        """See `harn.store.database.Session.roll_back`."""
        self.connection.drop_deferred()
        if not self.connection.is_idle:
            self.connection.run("ROLLBACK")

    def begin_unit(self) -> None:
        """See `harn.store.database.Session.begin_unit`."""
        self.connection.run("SAVEPOINT unit")
        self.is_in_unit = True

    def undo_unit(self) -> None:
        """See `harn.store.database.Session.undo_unit`."""
        self.connection.run("ROLLBACK TO unit")

    def end_unit(self) -> None:
        """See `harn.store.database.Session.end_unit`."""
        self.is_in_unit = False
        self.connection.run("RELEASE unit")

    def defer(self, statement: str, values: Sequence[Any]) -> None:
        """Run a statement of which no result is needed with the commit; at once in a unit, which fails alone."""
        if self.is_in_unit:
            self.connection.execute(statement, values)
        else:
            self.connection.defer(statement, values)

    def write_rows(self, statement: str, rows: Sequence[Sequence[Any]]) -> int:
        """See `harn.store.database.Session.write_rows`: each column is an array."""
        if not rows:
            return 0
        return int(self.connection.execute(statement, [list(column) for column in zip(*rows, strict=True)]).rowcount)

    def notify(self, topic: str) -> None:
        """See `harn.store.database.Session.notify`; the channel has the name of the schema."""
        self.connection.execute(_NOTIFY, (self.connection.schema, f"{self.incarnation} {topic}"))

    def release_claims(self, statement: str, values: Sequence[Any]) -> None:
        """See `harn.store.database.Session.release_claims`."""
        self.connection.execute(statement, values)

    def keep_numbers(self) -> None:
        """See `harn.store.database.Session.keep_numbers`: sequences have them, which outlast the rows."""

    def read_numbers(self) -> None:
        """See `harn.store.database.Session.read_numbers`."""
        self.numbers = Numbers(*map(int, self.connection.run(_READ_NUMBERS)))

    def check_numbers(self, before: Numbers) -> None:
        """
        Check, after a connection was made again, that it leads to the same database.

        :raises EventLogGone: numbers that it gave are not known there.
        """
        now = self.numbers
        if now.delivery < before.delivery or now.record < before.record or now.attempt < before.attempt:
            raise EventLogGone(
                f"the database has lost what was on disk (deliveries end at {now.delivery} of {before.delivery}): an"
                " older copy was put in its place while the server used it; nothing is accepted until a restart"
            )

    def settle_log(self) -> None:
        """See `harn.store.database.Session.settle_log`: PostgreSQL does it by itself."""

    def is_about_unit(self, error: Exception) -> bool:
        """See `harn.store.database.Session.is_about_unit`."""
        errors = driver().errors
        if isinstance(error, errors.ProgrammingError):
            return error.sqlstate is None  # a value that has no form in SQL
        return isinstance(error, errors.IntegrityError | errors.DataError)

    def is_sound_after(self, error: BaseException) -> bool:
        """See `harn.store.database.Session.is_sound_after`."""
        return self.connection.is_idle

    def close(self) -> None:
        """See `harn.store.database.Session.close`."""
        self.connection.close()
