"""The store on SQLite: each method of the interface, handed to the writer's or the reader's thread."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.clocks import WallTime
from harn.errors import ClaimTaken, StateDirectoryUnusable
from harn.model.delivery import Acceptance, Claim, DeadLetter, Settlement, StoredDelivery
from harn.store.checkpoints import encode_checkpoints
from harn.store.deliveries import Backlog, RecentEvent, Recovery
from harn.store.event_log import Record, check_appendable, encode_record
from harn.store.generations import BindingRecord, GenerationRecord, LiveBinding
from harn.store.interfaces import IStore
from harn.store.retention import RetentionPolicy
from harn.store.sqlite import deliveries, generations, records, servers, trimming
from harn.store.sqlite.database import Database, DatabaseFile
from harn.store.sqlite.offline import unreadable
from harn.store.sqlite.reader import Reader
from harn.store.sqlite.session import Session
from harn.store.sqlite.units import Accept, Append, Call, Settle
from harn.store.sqlite.worker import ThreadWorker, Worker
from harn.store.sqlite.writer import Writer

log = Logger(namespace="harn.store")

DATABASE_FILE = "events.sqlite"
"""The database's name in a state directory."""


@implementer(IStore)
class SQLiteStore:
    """
    A store in one SQLite database; `at` makes one over a file.

    Nothing is opened and no thread started before `open`. What keeps a second server off the file is the state
    directory's lock (`harn.store.lock`), which the caller holds; while one server takes over from another, both may
    write: each waits for the other's commit, and neither gives a number that the other gave.

    :param workers: makes a worker of a name; three at each `open`: for writes, for reads, for notes of what runs.
    :param wall: stamps rows, and decides what has expired.
    :param guard: called in the writer's thread with each heartbeat; raises `EventLogGone` when the directory is no
        longer this server's.
    """

    backend = "sqlite"

    def __init__(
        self,
        database: Database,
        workers: Callable[[str], Worker],
        wall: WallTime,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self.location = database.location
        self.incarnation = 0
        self._database = database
        self._workers = workers
        self._wall = wall
        self._guard = guard
        self._writer = self._new_writer()
        self._reader = Reader(database, workers("harn-store-reader"))
        self._running = database.notes(workers("harn-store-notes"))
        self._is_open = False
        self._closing: list[Deferred[None]] = []
        self._seen_at_start: Mapping[int, float] = {}

    @classmethod
    def at(
        cls,
        path: str,
        reactor: Any,
        *,
        wall: WallTime | None = None,
        guard: Callable[[], None] | None = None,
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
        return cls(database, lambda name: ThreadWorker(name, reactor), wall or reactor, guard)

    @property
    def commits(self) -> int:
        """How many batches were written since `open`."""
        return self._writer.commits

    # Life cycle

    def available(self) -> bool:
        """See `IStore.available`."""
        return self._writer.available

    def open(self) -> Deferred[None]:
        """See `IStore.open`."""
        writer, now = self._new_writer(), self._wall.seconds()
        self._writer = writer

        def register(session: Session) -> int:
            self._seen_at_start = servers.last_seen(session.connection)
            return servers.register(session, pid=os.getpid(), host=socket.gethostname(), now=now)

        async def opening() -> None:
            try:
                self.incarnation = await writer.open(register)
            except sqlite3.Error as error:
                raise StateDirectoryUnusable(unreadable(self._database.name, error)) from error
            self._reader = Reader(self._database, self._workers("harn-store-reader"))
            self._reader.open()
            self._running = self._database.notes(self._workers("harn-store-notes"))
            self._running.open(self.incarnation)
            self._is_open = True

        return Deferred.fromCoroutine(opening())

    def heartbeat(self, now: float) -> Deferred[None]:
        """See `IStore.heartbeat`."""
        pid, host, guard = os.getpid(), socket.gethostname(), self._guard

        def beat(session: Session) -> None:
            if guard is not None:
                guard()
            servers.renew(session, pid=pid, host=host, now=now)

        return self._writer.write(Call(beat))

    def abandon(self, reason: str) -> None:
        """See `IStore.abandon`."""
        self._writer.abandon(reason)

    def trim(self, policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        """See `IStore.trim`."""
        return self._writer.write(Call(lambda session: trimming.trim(session, policy, now, limit)))

    def close(self) -> Deferred[None]:
        """See `IStore.close`."""
        if not self._is_open:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        if len(self._closing) == 1:
            # The writer last: who closes last can move the write-ahead log into the database, and only a writer can.
            closing = gatherResults([self._reader.close(), self._running.close()])
            closing.addBoth(lambda _: self._writer.close())
            closing.addErrback(lambda failure: log.failure("the store did not close as it should", failure))
            closing.addCallback(self._closed)
        return closed

    def _closed(self, _: object) -> None:
        self._is_open = False
        waiting, self._closing = self._closing, []
        for closed in waiting:
            closed.callback(None)

    # Inbox

    def accept(self, acceptance: Acceptance) -> Deferred[tuple[int | None, ...]]:
        """See `IInbox.accept`."""
        return self._writer.write(Accept(acceptance))

    def claim(self, scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """See `IInbox.claim`."""
        guard = Claim(scope=scope, key=key, expires_at=expires_at)
        return self._writer.write(Accept(Acceptance(deliveries=(), guard=guard))).addCallbacks(
            lambda _: True, _false_if_taken
        )

    # Deliveries

    def settle(self, settlement: Settlement) -> Deferred[None]:
        """See `IDeliveries.settle`."""
        return self._writer.write(Settle(settlement, self._wall.seconds()))

    def ready(self, after: int, limit: int, max_bytes: int) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.ready`."""
        return self._reader.read(deliveries.ready, self.incarnation, after, limit, max_bytes)

    def due(self, now: float, limit: int, excluding: Collection[int]) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.due`."""
        return self._reader.read(deliveries.due, self.incarnation, now, limit, tuple(excluding))

    def next_due(self, after: float = 0.0) -> Deferred[float | None]:
        """See `IDeliveries.next_due`."""
        return self._reader.read(deliveries.next_due, self.incarnation, after)

    def advance_due(self, seconds: float) -> Deferred[None]:
        """See `IDeliveries.advance_due`."""
        return self._writer.write(Call(lambda session: deliveries.advance_due(session, seconds)))

    def find(self, event_id: str) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.find`."""
        return self._reader.read(deliveries.find, event_id)

    def backlog(self) -> Deferred[Sequence[Backlog]]:
        """See `IDeliveries.backlog`."""
        return self._reader.read(deliveries.backlog)

    def move(
        self, trigger_id: str, version: int, to_version: int | None, now: float, excluding: Collection[int]
    ) -> Deferred[int]:
        """See `IDeliveries.move`."""
        running = tuple(excluding)
        return self._writer.write(
            Call(lambda session: deliveries.move(session, trigger_id, version, to_version, now, running))
        )

    def bury(
        self, trigger_id: str, version: int, dead: DeadLetter, now: float, excluding: Collection[int], waiting: bool
    ) -> Deferred[int]:
        """See `IDeliveries.bury`."""
        running = tuple(excluding)
        return self._writer.write(
            Call(lambda session: deliveries.bury(session, trigger_id, version, dead, now, running, waiting))
        )

    def take_back(self, trigger_id: str, version: int, to_version: int, since: float) -> Deferred[int]:
        """See `IDeliveries.take_back`."""
        return self._writer.write(
            Call(lambda session: deliveries.take_back(session, trigger_id, version, to_version, since))
        )

    def oldest(self, versions: Collection[tuple[str, int]]) -> Deferred[Mapping[tuple[str, int], StoredDelivery]]:
        """See `IDeliveries.oldest`."""
        return self._reader.read(deliveries.oldest, tuple(versions))

    def recent(self, trigger_ids: Collection[str], limit: int, depth: int) -> Deferred[Sequence[RecentEvent]]:
        """See `IDeliveries.recent`."""
        return self._reader.read(deliveries.recent, tuple(trigger_ids), limit, depth)

    def begins(self, delivery_id: int, waits: bool = True) -> Deferred[None]:
        """See `IDeliveries.begins`."""
        return self._running.begins(delivery_id, waits)

    def ended(self, delivery_id: int) -> None:
        """See `IDeliveries.ended`."""
        self._running.ended(delivery_id)

    def recover(
        self,
        now: float,
        limit: int,
        received_before: float | None = None,
        leaving: int | None = None,
        gone: int | None = None,
    ) -> Deferred[Recovery]:
        """See `IDeliveries.recover`."""
        noted: list[int] = []

        def recover(session: Session) -> Recovery:
            living = self._living(session.connection, now, leaving, gone)
            notes = self._running.read()
            found = deliveries.recover(session, now, limit, received_before, living, notes)
            gone_ones = (each for each in notes if each != self.incarnation and each not in living)
            noted[:] = [each for each in gone_ones if not deliveries.has_unfinished(session.connection, each)]
            return found

        def recovered(found: Recovery) -> Recovery:
            self._running.forget(noted)
            return found

        return self._writer.write(Call(recover)).addCallback(recovered)

    def stranded(
        self, older_than: float, limit: int, leaving: int | None = None, gone: int | None = None
    ) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.stranded`."""
        ours, now = self.incarnation, self._wall.seconds()

        def look(connection: sqlite3.Connection) -> Sequence[StoredDelivery]:
            living = self._living(connection, now, leaving, gone)
            return deliveries.stranded(connection, [ours, *living], older_than, limit)

        return self._reader.read(look)

    def count_stranded(self, older_than: float, leaving: int | None = None, gone: int | None = None) -> Deferred[int]:
        """See `IDeliveries.count_stranded`."""
        ours, now = self.incarnation, self._wall.seconds()

        def count(connection: sqlite3.Connection) -> int:
            living = self._living(connection, now, leaving, gone)
            return deliveries.count_stranded(connection, [ours, *living], older_than)

        return self._reader.read(count)

    def states(self, delivery_ids: Collection[int]) -> Deferred[Mapping[int, str]]:
        """See `IDeliveries.states`."""
        return self._reader.read(deliveries.states, self.incarnation, tuple(delivery_ids))

    # Event log

    def append(
        self, topic: str, kind: str, payload: Mapping[str, Any], headers: Mapping[str, str] = {}
    ) -> Deferred[int]:
        """See `IEventLog.append`."""
        check_appendable(topic)
        encoded = encode_record(payload, headers)
        return self._writer.write(Append(topic, kind, *encoded, self._wall.seconds()))

    def read(self, topic: str, after: int, limit: int) -> Deferred[Sequence[Record]]:
        """See `IEventLog.read`."""
        return self._reader.read(records.read, topic, after, limit)

    def latest(self, topic: str) -> Deferred[int]:
        """See `IEventLog.latest`."""
        return self._reader.read(records.latest, topic)

    def topics(self) -> Deferred[Sequence[str]]:
        """See `IEventLog.topics`."""
        return self._reader.read(records.topics)

    # Generations

    def last(self) -> Deferred[GenerationRecord | None]:
        """See `IGenerations.last`."""
        return self._reader.read(generations.last)

    def latest_bindings(self) -> Deferred[Mapping[str, LiveBinding]]:
        """See `IGenerations.latest_bindings`."""
        return self._reader.read(generations.latest_bindings)

    def bindings(self, keys: Collection[tuple[str, int]]) -> Deferred[Sequence[BindingRecord]]:
        """See `IGenerations.bindings`."""
        return self._reader.read(generations.bindings, tuple(keys))

    def reserve(
        self, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None
    ) -> Deferred[None]:
        """See `IGenerations.reserve`."""
        return self._writer.write(Call(lambda session: generations.reserve(session, generation, bundle, manifest)))

    def adopted(self, number: int, at: float, checkpoints: Mapping[str, Any] = {}) -> Deferred[None]:
        """See `IGenerations.adopted`."""
        encoded = encode_checkpoints(checkpoints)
        return self._writer.write(Call(lambda session: generations.adopted(session, number, at, encoded)))

    def put(self, name: str, value: Any) -> Deferred[None]:
        """See `ICheckpoints.put`."""
        encoded = encode_checkpoints({name: value})
        return self._writer.write(Call(lambda session: generations.keep(session, encoded)))

    def get(self, name: str) -> Deferred[Any]:
        """See `ICheckpoints.get`."""
        return self._reader.read(generations.kept, name)

    def generation(self, number: int) -> Deferred[GenerationRecord | None]:
        """See `IGenerations.generation`."""
        return self._reader.read(generations.generation, number)

    def manifest(self, digest: str) -> Deferred[bytes | None]:
        """See `IGenerations.manifest`."""
        return self._reader.read(generations.manifest, digest)

    def history(self, limit: int) -> Deferred[Sequence[GenerationRecord]]:
        """See `IGenerations.history`."""
        return self._reader.read(generations.history, limit)

    def bundle(self, bundle_id: str) -> Deferred[bytes | None]:
        """See `IGenerations.bundle`."""
        return self._reader.read(generations.bundle, bundle_id)

    def _living(
        self, connection: sqlite3.Connection, now: float, leaving: int | None, gone: int | None
    ) -> Collection[int]:
        """Return the other servers that run, as their heartbeats tell, or who asks."""
        found = servers.living(connection, self.incarnation, self._seen_at_start, now)
        return [each for each in {*found, leaving} - {None, gone} if each is not None]

    def _new_writer(self) -> Writer:
        return Writer(self._database, self._workers("harn-store-writer"), self._wall)


def _false_if_taken(failure: Failure) -> bool:
    failure.trap(ClaimTaken)
    return False
