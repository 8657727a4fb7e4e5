"""A store over a database: what is durable, idea by idea, over one writer and one reader; and its life cycle."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import StateDirectoryUnusable
from harn.lifecycle import Lifecycle
from harn.store.batch import PlainUnit
from harn.store.database import Database, Session
from harn.store.executor import Executor
from harn.store.retention import RetentionPolicy
from harn.store.running import RunningNotes
from harn.store.worker import Reader, Workers
from harn.store.writer import Writer

log = Logger(namespace="harn.store")


class Guard(Protocol):
    """Keeps others off the directory of a store: `harn.store.lock.StateDirectoryLock`."""

    def check(self) -> None:
        """
        Called in the writer's thread.

        :raises EventLogGone: the directory is no longer this server's.
        """


class Beat(Struct, frozen=True):
    """The contents of a server's row: its process and host, and when it was alive last (seconds, Unix)."""

    pid: int
    host: str
    now: float

    @classmethod
    def of_this_process(cls, now: float) -> Beat:
        """Return the beat of this process at ``now``."""
        return cls(os.getpid(), socket.gethostname(), now)


class Statements(Protocol):
    """
    The statements of a dialect that are about the whole store: the rows of servers, and retention.

    Each runs in the writer's thread, within a transaction.
    """

    def register(self, session: Any, beat: Beat) -> int:
        """Write a new row for this server, in a transaction of its own; give its number, never given before."""

    def renew(self, session: Any, beat: Beat) -> None:
        """Record that this server was alive."""

    def last_seen(self, session: Any) -> Mapping[int, float]:
        """Return by incarnation when each server was alive last (seconds, Unix)."""

    def trim(self, session: Any, policy: RetentionPolicy, now: float, limit: int) -> int:
        """See `harn.store.retention.IRetention.trim`."""

    def shrink(self, session: Any, pages: int) -> int:
        """See `harn.store.retention.IRetention.shrink`."""

    def unreadable(self, name: str, error: Exception) -> str:
        """Return why a database cannot be used, and what to do."""


class DatabaseStore:
    """
    The life of a store: what `harn.store.interfaces.IStore` says beside its ideas, which a dialect adds.

    Nothing is opened and no thread started before `open`.

    :param workers: makes three workers at each `open`.
    :param wall: stamps rows, and decides what has expired.
    :param guard: checks with each heartbeat that the directory is this server's.
    """

    def __init__(
        self,
        database: Database,
        statements: Statements,
        workers: Workers,
        wall: WallTime,
        guard: Guard | None = None,
    ) -> None:
        self.location = database.location
        self._database = database
        self._statements = statements
        self._workers = workers
        self._guard = guard
        self._is_open = False
        self._closing: list[Deferred[None]] = []
        self._executor = Executor(*self._new_workers(wall), wall, database.arrays)

    def _new_workers(self, wall: WallTime) -> tuple[Writer, Reader, RunningNotes]:
        return (
            Writer(self._database, self._workers.worker("harn-store-writer"), wall),
            Reader(self._database, self._workers.worker("harn-store-reader")),
            self._database.notes(self._workers.worker("harn-store-notes")),
        )

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
        beat = Beat.of_this_process(executor.wall.seconds())

        def register(session: Session) -> int:
            if self._database.is_exclusive:
                executor.seen_at_start = self._statements.last_seen(session)
            return self._statements.register(session, beat)

        async def opening() -> None:
            try:
                executor.incarnation = await executor.writer.open(register)
            except self._database.error as error:
                raise StateDirectoryUnusable(self._statements.unreadable(self._database.name, error)) from error
            executor.reader.open()
            executor.notes.open(executor.incarnation)
            self._is_open = True

        return Deferred.fromCoroutine(opening())

    def heartbeat(self, now: float) -> Deferred[None]:
        """See `IHeartbeat.heartbeat`."""
        guard, beat = self._guard, Beat.of_this_process(now)

        def renew(session: Session) -> None:
            if guard is not None:
                guard.check()
            self._statements.renew(session, beat)

        return self._executor.writer.write(PlainUnit(renew))

    def follow(self, lifecycle: Lifecycle) -> None:
        """See `IChanges.follow`: one server uses the store."""

    def notify(self, topic: str) -> Deferred[None]:
        """See `IChanges.notify`."""
        return self._executor.writer.write(PlainUnit(lambda session: session.notify(topic)))

    def rejoin(self) -> Deferred[int]:
        """See `IStore.rejoin`."""
        executor = self._executor
        beat = Beat.of_this_process(executor.wall.seconds())

        def rejoined(incarnation: int) -> int:
            executor.incarnation = incarnation
            executor.notes.renumber(incarnation)
            return incarnation

        registering = executor.writer.register(lambda session: self._statements.register(session, beat))
        return registering.addCallback(rejoined)

    def abandon(self, reason: str) -> None:
        """See `IStore.abandon`."""
        self._executor.writer.abandon(reason)

    def trim(self, policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        """See `IRetention.trim`."""
        trim = self._statements.trim
        return self._executor.writer.write(PlainUnit(lambda session: trim(session, policy, now, limit)))

    def shrink(self, pages: int) -> Deferred[int]:
        """See `IRetention.shrink`."""
        return self._executor.writer.write(PlainUnit(lambda session: self._statements.shrink(session, pages)))

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
            closing.addErrback(lambda failure: log.failure("closing the store failed", failure))
            closing.addCallback(self._closed)
        return closed

    def _closed(self, _: object) -> None:
        self._is_open = False
        waiting, self._closing = self._closing, []
        for closed in waiting:
            closed.callback(None)
