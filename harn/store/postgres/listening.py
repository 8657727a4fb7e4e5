"""Changes that other servers announce: a connection that listens to them, in a thread of its own."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Collection
from contextlib import closing

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.errors import StateDirectoryUnusable
from harn.lifecycle import Lifecycle, StoreChanged
from harn.store.postgres.connection import PostgresConnection, driver
from harn.store.postgres.database import PostgresDatabase
from harn.store.worker import Worker

log = Logger(namespace="harn.store")

PROBE = 5.0
"""Seconds without an announcement after which the connection is tried."""
POLL = 60.0
"""Seconds after which changes count as missed in any case, whatever stands between the server and PostgreSQL."""
RETRY = 2.0
"""Seconds between two attempts to connect."""


class Listening:
    """
    Emits `StoreChanged` for what other servers announce.

    :param worker: its thread.
    :param database: makes connections, in the thread.
    :param incarnation: of this server, whose own announcements are left out.
    """

    def __init__(self, worker: Worker, database: PostgresDatabase, lifecycle: Lifecycle, incarnation: int) -> None:
        self._worker = worker
        self._database = database
        self._lifecycle = lifecycle
        self._ours = str(incarnation)
        self._is_closing = False
        self._is_away = False
        self._connection: PostgresConnection | None = None
        self._woken, self._wakes = os.pipe()

    def open(self) -> None:
        """Start the thread."""
        self._worker.start()
        self._worker.post(self._run)

    def close(self) -> Deferred[None]:
        """End the thread; fire when it has ended. Called once, after `open`."""
        self._is_closing = True
        os.write(self._wakes, b"x")
        if self._connection is not None:
            self._connection.abort()
        return self._worker.stop().addCallback(self._closed)

    def _closed(self, _: object) -> None:
        os.close(self._woken)
        os.close(self._wakes)

    def _emit(self, topics: Collection[str]) -> None:
        if not self._is_closing:
            self._lifecycle.emit(StoreChanged(frozenset(topics)))

    # In the thread:

    def _run(self) -> None:
        while not self._is_closing:
            try:
                with closing(self._database.connect_reader()) as self._connection:
                    self._follow(self._connection)
            except (driver().Error, StateDirectoryUnusable, OSError) as error:
                if not self._is_away and not self._is_closing:
                    log.warn("changes of other servers are not announced for now: {error}", error=str(error).strip())
                self._is_away = True
            self._wait(None, RETRY)

    def _follow(self, connection: PostgresConnection) -> None:
        announced: list[str] = []
        connection.listen(announced)
        polled_at = 0.0
        while not self._is_closing:
            now = time.monotonic()
            if not polled_at or now - polled_at >= POLL:
                polled_at = now
                self._worker.report(self._emit, ())
            if self._is_away:
                log.info("changes of other servers are announced again")
                self._is_away = False
            self._wait(connection, PROBE)
            connection.run("SELECT 1")  # reads what was announced; and finds out that the connection is lost
            topics = {topic for sender, _, topic in (each.partition(" ") for each in announced) if sender != self._ours}
            announced.clear()
            if topics:
                self._worker.report(self._emit, topics)

    def _wait(self, connection: PostgresConnection | None, seconds: float) -> None:
        """Wait for an announcement, or for the end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            selector.select(seconds)
