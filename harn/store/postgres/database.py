"""A PostgreSQL database as a store needs it; and who may use it: servers, or a command that changes it alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import StateDirectoryUnusable
from harn.store.database import Arrays, Numbers
from harn.store.postgres import recovery
from harn.store.postgres.connection import PostgresConnection, PostgresEndpoint, driver
from harn.store.postgres.generations import STANDING
from harn.store.postgres.schema import check_schema, find_schema, migrate
from harn.store.postgres.session import ARRAYS, PostgresSession
from harn.store.running import RunningNote, RunningNotes
from harn.store.worker import Worker

log = Logger(namespace="harn.store")

COPYING = "copy_of"
"""What ``standing`` keeps, while a copy into the store is not complete, the source under."""


LONGEST_READ = 10.0
"""Seconds after which PostgreSQL ends a statement that reads; where PostgreSQL gives no answer, the server does."""
PATIENCE = 3.0
"""Seconds of one batch after which requests are refused until it has ended: senders wait for ten, and try again."""


class PostgresDatabase:
    """
    One schema of a PostgreSQL database; see `harn.store.database.Database`.

    :param directory: of the notes of what runs; it exists.
    :param home: names the state directory of this server, by which others on the same store are told apart.
    :param evidence: paths of files that exist once a server has run on the state directory.
    :param alone: it is refused while a server of another state directory uses it.
    """

    arrays: Arrays = ARRAYS
    is_exclusive = True
    longest_read: float | None = LONGEST_READ
    patience: float | None = PATIENCE

    def __init__(
        self,
        endpoint: PostgresEndpoint,
        directory: str,
        wall: WallTime,
        home: str,
        evidence: Sequence[str] = (),
        *,
        alone: bool = False,
    ) -> None:
        self.location: str | None = endpoint.address.location
        self.name = endpoint.address.location
        self._endpoint = endpoint
        self._directory = directory
        self.home = home
        self._alone = alone
        self._evidence = tuple(evidence)
        self._wall = wall
        self._session: PostgresSession | None = None
        self._numbers: Numbers | None = None
        self._is_closing = False

    @property
    def error(self) -> type[Exception]:
        """See `harn.store.database.Database.error`."""
        error: type[Exception] = driver().Error
        return error

    def open(self) -> PostgresSession:
        """See `harn.store.database.Database.open`."""
        self._is_closing = False
        connection = self._endpoint.connect()
        try:
            found = find_schema(connection)
            if not found.version:
                migrate(connection)
            else:
                check_schema(found, self.name)
            self._refuse_copy(connection)
            if self._alone:
                recovery.refuse_second(connection, self.home, self._wall.seconds(), self.name)
            self._refuse_other_start(connection)
            return self._opened(connection, 0)
        except BaseException:
            connection.close()
            raise

    def _refuse_copy(self, connection: PostgresConnection) -> None:
        """
        Refuse a store that is not complete.

        :raises StateDirectoryUnusable: a copy into it was cut off.
        """
        if connection.execute(STANDING.get, (COPYING,)).fetchone() is not None:
            raise StateDirectoryUnusable(
                f"a copy into the store {self.name} is not complete; continue it with the same harn store copy"
            )

    def _refuse_other_start(self, connection: PostgresConnection) -> None:
        """
        Refuse a store that no server has used yet, where one has run on this state directory.

        :raises StateDirectoryUnusable: what is unfinished elsewhere would be left there.
        """
        found = [path for path in self._evidence if os.path.exists(path)]
        if found and not recovery.was_used(connection):
            raise StateDirectoryUnusable(
                f"no server has used the store {self.name}, though one has run on this state directory"
                f" ({', '.join(found)}); copy its store first (harn store copy), put the right database back, or, to"
                " begin with an empty store, name another state directory"
            )

    def _opened(self, connection: PostgresConnection, incarnation: int) -> PostgresSession:
        session = PostgresSession(connection, incarnation, self._endpoint)
        session.is_closing = self._is_closing
        self._session = session
        return session

    def opened(self, session: PostgresSession) -> None:
        """See `harn.store.database.Database.opened`."""

    def reopen(self, incarnation: int) -> PostgresSession:
        """See `harn.store.database.Database.reopen`."""
        connection = self._endpoint.connect()
        try:
            session = self._opened(connection, incarnation)
            if self._numbers is not None:
                session.check_numbers(self._numbers)
        except BaseException:
            connection.close()
            raise
        log.info("the store {name} is connected again", name=self.name)
        return session

    def committed(self, session: PostgresSession, *, thorough: bool) -> None:
        """See `harn.store.database.Database.committed`."""
        self._numbers = session.numbers

    def disconnected(self) -> None:
        """See `harn.store.database.Database.disconnected`."""

    def give_up_waiting(self) -> None:
        """Wait no longer for the answer to a commit. Called in the reactor's thread, when the server ends."""
        self._is_closing = True
        if self._session is not None:
            self._session.is_closing = True

    def close(self, session: PostgresSession | None) -> None:
        """See `harn.store.database.Database.close`."""
        if session is not None:
            with suppress(self.error):
                recovery.note_end(session)
            with suppress(self.error):
                session.close()

    def connect_reader(self) -> PostgresConnection:
        """See `harn.store.database.Database.connect_reader`."""
        connection = self._endpoint.connect()
        try:
            connection.run(f"SET statement_timeout = {LONGEST_READ * 1000:.0f}")
        except BaseException:
            connection.close()
            raise
        return connection

    def snapshot(self, connection: Any) -> AbstractContextManager[Any]:
        """See `harn.store.database.Database.snapshot`."""
        found: AbstractContextManager[Any] = connection.snapshot()
        return found

    def notes(self, worker: Worker) -> RunningNotes:
        """See `harn.store.database.Database.notes`."""
        return RunningNote(self._directory, worker)
