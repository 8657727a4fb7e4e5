"""The store in memory: each method of the interface, done at once or in the clock's next turn."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from harn.clocks import WallTime
from harn.errors import EventLogGone, EventLogUnavailable, HarnError, StoreError
from harn.model.delivery import Acceptance, Claim, DeadLetter, Settlement, StoredDelivery
from harn.store.heartbeat import LAPSE
from harn.store.interfaces import IStore
from harn.store.memory.definitions import DefinitionTables
from harn.store.memory.records import Records
from harn.store.memory.tables import DeliveryTables
from harn.store.model import (
    Backlog,
    BindingRecord,
    GenerationRecord,
    LiveBinding,
    RecentEvent,
    Record,
    Recovery,
    RetentionPolicy,
    ServerRow,
)
from harn.store.standing import encode_standing
from harn.store.topics import VIEWS, check_appendable, encode_record

log = Logger(namespace="harn.store")

T = TypeVar("T")


@implementer(IStore)
class MemoryStore:
    """
    The same promises as those of a database, except that nothing outlives the process.

    What it holds outlives `close`: a test opens it again as a server would after a restart.

    :param at_once: fire each Deferred before its method returns; else the work is done in ``clock``'s next turn.
    :param wall: stamps rows, and decides what has expired; ``clock`` if None.
    :ivar fail_writes: while it is True, each write fails with `EventLogUnavailable`: a test's full disk.
    :ivar fail_reads: the same for reads.
    """

    backend = "memory"

    def __init__(self, clock: IReactorTime, *, at_once: bool = True, wall: WallTime | None = None) -> None:
        self.location: str | None = None
        self.incarnation = 0
        self.fail_writes = False
        self.fail_reads = False
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._at_once = at_once
        self._available = True
        self._gone: str | None = None
        self._is_open = False
        self._under_way = 0
        self._closing: list[Deferred[None]] = []
        self._deliveries = DeliveryTables()
        self._definitions = DefinitionTables()
        self._records = Records()
        self._servers: dict[int, ServerRow] = {}
        self._seen_at_start: dict[int, float] = {}
        self._running: dict[int, set[int]] = {}

    # Life cycle

    def available(self) -> bool:
        """See `IStore.available`."""
        return self._available

    def open(self) -> Deferred[None]:
        """See `IStore.open`."""
        self._is_open, self._available, self._gone = True, True, None
        self.incarnation += 1
        self._seen_at_start = {row.incarnation: row.seen_at for row in self._servers.values()}
        return self.heartbeat(self._wall.seconds())

    def heartbeat(self, now: float) -> Deferred[None]:
        """See `IStore.heartbeat`."""

        def beat() -> None:
            row = self._servers.get(self.incarnation) or ServerRow(
                incarnation=self.incarnation, pid=os.getpid(), host=socket.gethostname(), started_at=now, seen_at=now
            )
            self._servers[self.incarnation] = evolve(row, seen_at=now)

        return self._write(beat)

    def abandon(self, reason: str) -> None:
        """See `IStore.abandon`."""
        if self._gone is None:
            self._gone, self._available = reason, False
            log.error("event log away: {reason}", reason=reason, announce=True)

    def trim(self, policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        """See `IStore.trim`."""

        def trim() -> int:
            removed = self._deliveries.trim_claims(now, limit)
            removed += self._records.trim(now - policy.events, limit - removed)
            removed += self._deliveries.trim_finished(policy, now, limit - removed)
            if removed < limit:
                removed += self._trim_servers(now - policy.events)
            if removed < limit and policy.max_bytes is not None:
                removed += self._deliveries.trim_excess(policy.max_bytes, limit - removed)
            return removed or self._definitions.trim(policy, limit, self._deliveries.has_unfinished)

        return self._write(trim)

    def close(self) -> Deferred[None]:
        """See `IStore.close`."""
        self._is_open = False
        self._running.pop(self.incarnation, None)
        if not self._under_way:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        return closed

    # Inbox

    def accept(self, acceptance: Acceptance) -> Deferred[tuple[int | None, ...]]:
        """See `IInbox.accept`."""
        return self._write(lambda: self._deliveries.accept(acceptance, self.incarnation, self._wall.seconds()))

    def claim(self, scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """See `IInbox.claim`."""
        claim = Claim(scope=scope, key=key, expires_at=expires_at)
        return self._write(lambda: self._deliveries.claim(claim, self._wall.seconds()))

    # Deliveries

    def settle(self, settlement: Settlement) -> Deferred[None]:
        """See `IDeliveries.settle`."""
        return self._write(lambda: self._deliveries.settle(settlement, self._wall.seconds()))

    def ready(self, after: int, limit: int, max_bytes: int) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.ready`."""
        return self._read(lambda: self._deliveries.ready(self.incarnation, after, limit, max_bytes))

    def due(self, now: float, limit: int, excluding: Collection[int]) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.due`."""
        running = frozenset(excluding)
        return self._read(lambda: self._deliveries.due(self.incarnation, now, limit, running))

    def next_due(self, after: float = 0.0) -> Deferred[float | None]:
        """See `IDeliveries.next_due`."""
        return self._read(lambda: self._deliveries.next_due(self.incarnation, after))

    def advance_due(self, seconds: float) -> Deferred[None]:
        """See `IDeliveries.advance_due`."""
        return self._write(lambda: self._deliveries.advance_due(self.incarnation, seconds))

    def find(self, event_id: str) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.find`."""
        return self._read(lambda: self._deliveries.find(event_id))

    def backlog(self) -> Deferred[Sequence[Backlog]]:
        """See `IDeliveries.backlog`."""
        return self._read(self._deliveries.backlog)

    def move(
        self, trigger_id: str, version: int, to_version: int | None, now: float, excluding: Collection[int]
    ) -> Deferred[int]:
        """See `IDeliveries.move`."""
        running = frozenset(excluding)
        return self._write(lambda: self._deliveries.move(trigger_id, version, to_version, now, running))

    def bury(
        self, trigger_id: str, version: int, dead: DeadLetter, now: float, excluding: Collection[int], waiting: bool
    ) -> Deferred[int]:
        """See `IDeliveries.bury`."""
        running = frozenset(excluding)
        return self._write(lambda: self._deliveries.bury(trigger_id, version, dead, now, running, waiting))

    def take_back(self, trigger_id: str, version: int, to_version: int, since: float) -> Deferred[int]:
        """See `IDeliveries.take_back`."""
        return self._write(lambda: self._deliveries.take_back(self.incarnation, trigger_id, version, to_version, since))

    def oldest(self, versions: Collection[tuple[str, int]]) -> Deferred[Mapping[tuple[str, int], StoredDelivery]]:
        """See `IDeliveries.oldest`."""
        wanted = tuple(versions)
        return self._read(lambda: self._deliveries.oldest(wanted))

    def recent(self, trigger_ids: Collection[str], limit: int, depth: int) -> Deferred[Sequence[RecentEvent]]:
        """See `IDeliveries.recent`."""
        wanted = frozenset(trigger_ids)
        return self._read(lambda: self._deliveries.recent(wanted, limit, depth))

    def begins(self, delivery_id: int) -> Deferred[None]:
        """See `IDeliveries.begins`."""
        self._running.setdefault(self.incarnation, set()).add(delivery_id)
        return succeed(None)

    def ended(self, delivery_id: int) -> None:
        """See `IDeliveries.ended`."""
        self._running.setdefault(self.incarnation, set()).discard(delivery_id)

    def recover(
        self,
        now: float,
        limit: int,
        received_before: float | None = None,
        leaving: int | None = None,
        gone: int | None = None,
    ) -> Deferred[Recovery]:
        """See `IDeliveries.recover`."""
        return self._write(
            lambda: self._deliveries.recover(
                self.incarnation, now, limit, received_before, self._living(now, leaving, gone), self._running
            )
        )

    def stranded(
        self, older_than: float, limit: int, leaving: int | None = None, gone: int | None = None
    ) -> Deferred[Sequence[StoredDelivery]]:
        """See `IDeliveries.stranded`."""

        def look() -> Sequence[StoredDelivery]:
            living = self._living(self._wall.seconds(), leaving, gone)
            return self._deliveries.stranded((self.incarnation, *living), older_than, limit)

        return self._read(look)

    def count_stranded(self, older_than: float, leaving: int | None = None, gone: int | None = None) -> Deferred[int]:
        """See `IDeliveries.count_stranded`."""

        def count() -> int:
            living = self._living(self._wall.seconds(), leaving, gone)
            return self._deliveries.count_stranded((self.incarnation, *living), older_than)

        return self._read(count)

    def states(self, delivery_ids: Collection[int]) -> Deferred[Mapping[int, str]]:
        """See `IDeliveries.states`."""
        wanted = frozenset(delivery_ids)
        return self._read(lambda: self._deliveries.states(self.incarnation, wanted))

    def _living(self, now: float, leaving: int | None, gone: int | None) -> set[int]:
        found = {
            row.incarnation
            for row in self._servers.values()
            if now - LAPSE < row.seen_at <= now + LAPSE and self._seen_at_start.get(row.incarnation) != row.seen_at
        }
        found |= set() if leaving is None else {leaving}
        return found - {self.incarnation, gone}

    # Event log

    def append(
        self, topic: str, kind: str, payload: Mapping[str, Any], headers: Mapping[str, str] = {}
    ) -> Deferred[int]:
        """See `IEventLog.append`."""
        check_appendable(topic)
        encoded, at = encode_record(payload, headers), self._wall.seconds()
        return self._write(lambda: self._records.append(topic, kind, *encoded, at))

    def read(self, topic: str, after: int, limit: int) -> Deferred[Sequence[Record]]:
        """See `IEventLog.read`."""
        return self._read(lambda: [record for record in self._topic(topic) if record.number > after][:limit])

    def latest(self, topic: str) -> Deferred[int]:
        """See `IEventLog.latest`."""
        return self._read(lambda: max((record.number for record in self._topic(topic)), default=0))

    def topics(self) -> Deferred[Sequence[str]]:
        """See `IEventLog.topics`."""

        def topics() -> Sequence[str]:
            return sorted(self._records.topics().union(view for view in VIEWS if self._topic(view)))

        return self._read(topics)

    # Generations

    def last(self) -> Deferred[GenerationRecord | None]:
        """See `IGenerations.last`."""
        return self._read(self._definitions.last)

    def latest_bindings(self) -> Deferred[Mapping[str, LiveBinding]]:
        """See `IGenerations.latest_bindings`."""
        return self._read(self._definitions.latest_bindings)

    def bindings(self, keys: Collection[tuple[str, int]]) -> Deferred[Sequence[BindingRecord]]:
        """See `IGenerations.bindings`."""
        wanted = tuple(keys)
        return self._read(lambda: self._definitions.bindings(wanted))

    def reserve(
        self, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None
    ) -> Deferred[None]:
        """See `IGenerations.reserve`."""
        return self._write(lambda: self._definitions.reserve(generation, bundle, manifest))

    def adopted(self, number: int, at: float, standing: Mapping[str, Any] = {}) -> Deferred[None]:
        """See `IGenerations.adopted`."""
        encoded = encode_standing(standing)
        return self._write(lambda: self._definitions.adopted(number, at, encoded))

    def keep(self, name: str, value: Any) -> Deferred[None]:
        """See `IGenerations.keep`."""
        encoded = encode_standing({name: value})
        return self._write(lambda: self._definitions.keep(encoded))

    def kept(self, name: str) -> Deferred[Any]:
        """See `IGenerations.kept`."""
        return self._read(lambda: self._definitions.kept(name))

    def generation(self, number: int) -> Deferred[GenerationRecord | None]:
        """See `IGenerations.generation`."""
        return self._read(lambda: self._definitions.generation(number))

    def manifest(self, digest: str) -> Deferred[bytes | None]:
        """See `IGenerations.manifest`."""
        return self._read(lambda: self._definitions.manifest(digest))

    def history(self, limit: int) -> Deferred[Sequence[GenerationRecord]]:
        """See `IGenerations.history`."""
        return self._read(lambda: self._definitions.history(limit))

    def bundle(self, bundle_id: str) -> Deferred[bytes | None]:
        """See `IGenerations.bundle`."""
        return self._read(lambda: self._definitions.bundle(bundle_id))

    def _trim_servers(self, before: float) -> int:
        silent = [row.incarnation for row in self._servers.values() if row.seen_at < before]
        silent = [incarnation for incarnation in silent if incarnation != self.incarnation]
        for incarnation in silent:
            del self._servers[incarnation]
        return len(silent)

    def _topic(self, topic: str) -> Sequence[Record]:
        return self._deliveries.records(topic) if topic in VIEWS else self._records.of(topic)

    def _write(self, work: Callable[[], T]) -> Deferred[T]:
        def write() -> T:
            if self._gone is not None:
                raise EventLogGone(self._gone)
            if self.fail_writes:
                self._available = False
                raise EventLogUnavailable("the event log in memory cannot be written: it was told to fail")
            try:
                return work()
            except HarnError:
                raise
            except Exception as error:
                raise StoreError(f"it cannot be stored: {error}") from error
            finally:
                self._available = not self.fail_writes

        return self._do(write)

    def _read(self, work: Callable[[], T]) -> Deferred[T]:
        def read() -> T:
            if self.fail_reads:
                raise EventLogUnavailable("the event log in memory cannot be read: it was told to fail")
            return work()

        return self._do(read)

    def _do(self, work: Callable[[], T]) -> Deferred[T]:
        if not self._is_open:
            return fail(EventLogUnavailable("the event log in memory is closed"))
        if self._at_once:
            return maybeDeferred(work)
        done: Deferred[T] = Deferred()

        def do() -> None:
            maybeDeferred(work).chainDeferred(done)
            self._under_way -= 1
            if not self._under_way:
                waiting, self._closing = self._closing, []
                for closed in waiting:
                    closed.callback(None)

        self._under_way += 1
        self._clock.callLater(0, do)
        return done
