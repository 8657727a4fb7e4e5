"""The store on SQLite: what is durable, idea by idea, over one writer and one reader; and its life cycle."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from zope.interface import implementer

from harn.clocks import WallTime
from harn.errors import StateDirectoryUnusable
from harn.store.interfaces import IStore
from harn.store.retention import RetentionPolicy
from harn.store.sqlite import recovery, retention
from harn.store.sqlite.batch import Call
from harn.store.sqlite.connection import Session, unreadable
from harn.store.sqlite.database import Database, DatabaseFile
from harn.store.sqlite.deliveries import SQLiteDeliveries
from harn.store.sqlite.event_log import SQLiteEventLog
from harn.store.sqlite.executor import Executor
from harn.store.sqlite.generations import SQLiteCheckpoints, SQLiteGenerations
from harn.store.sqlite.inbox import SQLiteInbox
from harn.store.sqlite.jobs import SQLiteJobs
from harn.store.sqlite.lists import SQLiteDeliveryLists
from harn.store.sqlite.recovery import SQLiteRecovery
from harn.store.sqlite.retention import shrink
from harn.store.sqlite.running import RunningNotes
from harn.store.sqlite.statistics import SQLiteStatistics, SQLiteTotals
from harn.store.sqlite.worker import Reader, ThreadWorkers, Workers
from harn.store.sqlite.writer import Writer

log = Logger(namespace="harn.store")

DATABASE_FILE = "events.sqlite"
"""The database's name in a state directory."""


class Guard(Protocol):
    """Keeps others off the directory of a store: `harn.store.lock.StateDirectoryLock`."""

    def check(self) -> None:
        """
        Called in the writer's thread.

        :raises EventLogGone: the directory is no longer this server's.
        """


@implementer(IStore)
class SQLiteStore:
    """
    A store in one SQLite database; `at` makes one over a file.

    Nothing is opened and no thread started before `open`. What keeps a second server off the file is the state
    directory's lock (`harn.store.lock`), which the caller holds; while one server takes over from another, both may
    write: each waits for the other's commit, and neither gives a number that the other gave.

    :param workers: makes three workers at each `open`.
    :param wall: stamps rows, and decides what has expired.
    :param guard: checks with each heartbeat that the directory is this server's.
    """

    backend = "sqlite"

    def __init__(
        self,
        database: Database,
        workers: Workers,
        wall: WallTime,
        guard: Guard | None = None,
    ) -> None:
        self.location = database.location
        self._database = database
        self._workers = workers
        self._guard = guard
        self._is_open = False
        self._closing: list[Deferred[None]] = []
        self._executor = Executor(*self._new_workers(wall), wall)
        self.inbox = SQLiteInbox(self._executor)
        self.deliveries = SQLiteDeliveries(self._executor)
        self.lists = SQLiteDeliveryLists(self._executor)
        self.recovery = SQLiteRecovery(self._executor)
        self.event_log = SQLiteEventLog(self._executor)
        self.generations = SQLiteGenerations(self._executor)
        self.jobs = SQLiteJobs(self._executor)
        self.checkpoints = SQLiteCheckpoints(self._executor)
        self.totals = SQLiteTotals(self._executor)
        self.statistics = SQLiteStatistics(self._executor)

    def _new_workers(self, wall: WallTime) -> tuple[Writer, Reader, RunningNotes]:
        return (
            Writer(self._database, self._workers.worker("harn-store-writer"), wall),
            Reader(self._database, self._workers.worker("harn-store-reader")),
            self._database.notes(self._workers.worker("harn-store-notes")),
        )

    @classmethod
    def at(
        cls,
        path: str,
        reactor: Any,
        *,
        wall: WallTime | None = None,
        guard: Guard | None = None,
        synchronous: str = "FULL",
        busy_timeout: float = 5.0,
        evidence: Sequence[str] = (),
    ) -> SQLiteStore:
        """
        Make a store over the file at ``path``, with threads of its own.

        :param reactor: an `IReactorTime`, whose turns end the batches; and an `IReactorFromThreads`, which takes the
            answers of the store's threads.
        :param wall: ``reactor`` if None.
        :param synchronous: see `DatabaseFile`; so are ``busy_timeout`` and ``evidence``.
        """
        database = DatabaseFile(path, synchronous=synchronous, busy_timeout=busy_timeout, evidence=evidence)
        return cls(database, ThreadWorkers(reactor), wall or reactor, guard)

    @property
    def incarnation(self) -> int:
        """See `IStore.incarnation`."""
        return self._executor.incarnation

    @property
    def commits(self) -> int:
        """Number of batches written since `open`."""
        return self._executor.writer.commits

    def available(self) -> bool:
        """See `IStore.available`."""
        return self._executor.writer.available

    def open(self) -> Deferred[None]:
        """See `IStore.open`."""
        executor = self._executor
        executor.writer, executor.reader, executor.notes = self._new_workers(executor.wall)
        now = executor.wall.seconds()

        def register(session: Session) -> int:
            if self._database.is_exclusive:
                executor.seen_at_start = recovery.last_seen(session.connection)
            return recovery.register(session, pid=os.getpid(), host=socket.gethostname(), now=now)

        async def opening() -> None:
            try:
                executor.incarnation = await executor.writer.open(register)
            except sqlite3.Error as error:
                raise StateDirectoryUnusable(unreadable(self._database.name, error)) from error
            executor.reader.open()
            executor.notes.open(executor.incarnation)
            self._is_open = True

        return Deferred.fromCoroutine(opening())

    def heartbeat(self, now: float) -> Deferred[None]:
        """See `IHeartbeat.heartbeat`."""
        pid, host, guard = os.getpid(), socket.gethostname(), self._guard

        def beat(session: Session) -> None:
            if guard is not None:
                guard.check()
            recovery.renew(session, pid=pid, host=host, now=now)

        return self._executor.writer.write(Call(beat))

    def abandon(self, reason: str) -> None:
        """See `IStore.abandon`."""
        self._executor.writer.abandon(reason)

    def trim(self, policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        """See `IRetention.trim`."""
        return self._executor.writer.write(Call(lambda session: retention.trim(session, policy, now, limit)))

    def shrink(self, pages: int) -> Deferred[int]:
        """See `IRetention.shrink`."""
        return self._executor.writer.write(Call(lambda session: shrink(session, pages)))

    def settle_log(self) -> Deferred[None]:
        """See `IRetention.settle_log`."""
        return self._executor.writer.settle_log()

    def close(self) -> Deferred[None]:
        """See `IStore.close`."""
        if not self._is_open:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        if len(self._closing) == 1:
            # The writer last: who closes last can move the write-ahead log into the database, and only a writer can.
            executor = self._executor
            closing = gatherResults([executor.reader.close(), executor.notes.close()])
            closing.addBoth(lambda _: executor.writer.close())
            closing.addErrback(lambda failure: log.failure("the store did not close as it should", failure))
            closing.addCallback(self._closed)
        return closed

    def _closed(self, _: object) -> None:
        self._is_open = False
        waiting, self._closing = self._closing, []
        for closed in waiting:
            closed.callback(None)
