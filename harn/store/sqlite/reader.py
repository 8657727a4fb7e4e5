"""Reads, in a thread of their own, beside the writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.store.sqlite.connection import read_whole
from harn.store.sqlite.database import Database
from harn.store.sqlite.worker import Worker, run_in

P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """
    Runs queries over a connection that cannot write; a write-ahead log lets them see the last commit and wait for none.
    """

    def __init__(self, database: Database, worker: Worker) -> None:
        self._database = database
        self._worker = worker
        self._connection: sqlite3.Connection | None = None
        self._closed = True

    def open(self) -> None:
        """Start the thread; the connection is made at the first read."""
        self._worker.start()
        self._closed = False

    def read(
        self, query: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """
        Run ``query`` with the connection and ``args``, all of it on one state of the database.

        :raises EventLogUnavailable: the database cannot be read.
        """
        if self._closed:
            return fail(EventLogUnavailable(f"the event log {self._database.name} is closed"))
        return run_in(self._worker, lambda: self._read(lambda connection: query(connection, *args, **kwargs)))

    def close(self) -> Deferred[None]:
        """Refuse further reads, finish those that are here, end the thread. Called once, after `open`."""
        self._closed = True
        self._worker.post(self._disconnect)
        return self._worker.stop()

    # In the reader's thread:

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._database.connect_reader()
            return read_whole(self._connection, query)
        except (sqlite3.Error, StateDirectoryUnusable) as error:
            self._disconnect()
            raise EventLogUnavailable(f"the event log {self._database.name} cannot be read: {error}") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
