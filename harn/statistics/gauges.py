"""
Gauges of a server: the backlogs of triggers, the size of the store's files, the free space of their disk.

The backlog of a trigger is its oldest ready and waiting deliveries, and its dead letters, as last read from the store.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable
from harn.lifecycle import Accepted, DeadLettered, DeadLettersEnded, Lifecycle, Redriven, Settled
from harn.observability.metrics import GaugeValue, Metrics
from harn.server import Server
from harn.statistics.figures import Figures, TotalSource
from harn.store.holds import Holds
from harn.store.statistics import ITotals, TriggerBacklog
from harn.triggers.registry import Registry

log = Logger(namespace="harn.statistics")

TRIGGER = ("trigger_id",)
"""The label of the gauges of triggers."""
Values = dict[tuple[str, ...], float]
"""The values of a gauge, by the values of its labels."""

INTERVAL = 5.0
"""Seconds between two reads of the store."""
SHARE = 50.0
"""The least ratio of the time between two reads to the time of a read, which takes 50 ms for a million dead letters."""


class Backlogs(Service):
    """
    Reads the store every `INTERVAL`, off the reactor thread, and counts dead letters between two reads.

    :ivar dead: the number of dead letters by trigger id.
    :ivar oldest: the oldest unfinished deliveries by trigger id.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        store: ITotals,
        dispatcher: Dispatcher,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self.dead: Counter[str] = Counter()
        self.oldest: Mapping[str, TriggerBacklog] = {}
        self._clock = clock
        self._wall = wall
        self._store = store
        self._dispatcher = dispatcher
        self._registry = registry
        self._next: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(DeadLettered, self._dead_lettered)
        lifecycle.subscribe(Redriven, self._ended)
        lifecycle.subscribe(DeadLettersEnded, self._ended)

    def startService(self) -> None:
        """Start to read the store."""
        Service.startService(self)
        self._look()

    def stopService(self) -> Deferred[None] | None:
        """Stop reading the store; wait for the read that is running."""
        Service.stopService(self)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return self._looking

    def begin(self) -> None:
        """Read the store once, before the server serves, as the first state file has the number of dead letters."""
        self._looked(Deferred.fromCoroutine(self.refresh()))

    async def refresh(self) -> None:
        """
        Read the store now.

        :raises EventLogUnavailable: the store cannot be read.
        """
        running = list(self._dispatcher.in_progress)
        self.oldest = await self._store.backlogs(self._wall.seconds(), running)
        self.dead = Counter(await self._store.dead())

    def figures(self, totals: TotalSource) -> Figures:
        """Return the current figures; `Figures.of` may be called on any thread."""
        return Figures(
            totals=totals, running=self.running_now(), waiting=self.waiting_now(), dead=self.dead, backlogs=self.oldest
        )

    def running_now(self) -> Counter[str]:
        """Return the number of handlers that run, by trigger id."""
        return Counter(delivery.binding.id for delivery in self._dispatcher.in_progress.values())

    def ready_now(self) -> Counter[str]:
        """
        Return the number of queued deliveries by trigger id, without those of held triggers.

        The cost grows with the number of deliveries in memory.
        """
        found: Counter[str] = Counter()
        holds = self._holds()
        for binding, workload in self._dispatcher.workload(list(self._registry)).items():
            if holds.of(binding.id) is None:
                found[binding.id] += workload.queued
        return found

    def waiting_now(self) -> Counter[str]:
        """Return the number of deliveries that wait for a due time, or whose trigger a gate holds, by trigger id."""
        found = Counter(self._registry.waiting)
        holds = self._holds()
        held = holds.by_trigger if holds.of_all is None else {each.id for each in self._registry}
        for trigger_id in held:
            found[trigger_id] += self._dispatcher.waiting(trigger_id)
        return found

    def _holds(self) -> Holds:
        return self._dispatcher.gates.holds(self._wall.seconds())

    def _look(self) -> None:
        self._next = None
        self._looking = self._looked(Deferred.fromCoroutine(self._look_and_wait()))

    async def _look_and_wait(self) -> None:
        began_at = self._clock.seconds()
        try:
            await self.refresh()
        finally:
            if self.running:
                took = self._clock.seconds() - began_at
                self._next = self._clock.callLater(max(INTERVAL, took * SHARE), self._look)

    @staticmethod
    def _looked(looking: Deferred[None]) -> Deferred[None]:
        def failed(failure: Failure) -> None:
            if not failure.check(EventLogUnavailable):  # others log that already
                log.failure("the backlogs of triggers cannot be read", failure)

        return looking.addErrback(failed)

    # Between two reads

    def _accepted(self, event: Accepted) -> None:
        for each in event.dead:
            self.dead[each.delivery.trigger_id] += 1

    def _settled(self, event: Settled) -> None:
        for each in event.others:
            if each.settlement.dead is not None:
                self.dead[each.trigger_id] += 1

    def _dead_lettered(self, event: DeadLettered) -> None:
        self.dead[event.trigger_id] += event.count

    def _ended(self, event: Redriven | DeadLettersEnded) -> None:
        self.dead[event.trigger_id] = max(0, self.dead[event.trigger_id] - event.count)


def add_gauges(metrics: Metrics, wall: WallTime, backlogs: Backlogs) -> None:
    """Add the gauges of triggers. The series of a trigger begin, at 0, when the trigger is served."""

    def by_trigger(values: Mapping[str, float]) -> Values:
        return {(trigger_id,): float(values.get(trigger_id, 0.0)) for trigger_id in metrics.triggers}

    def dead() -> Values:
        # Dead letters of removed triggers can still be replayed or discarded.
        of_all: Values = {(trigger_id,): float(count) for trigger_id, count in backlogs.dead.items() if count}
        return {**by_trigger({}), **of_all}

    def ages(since: Mapping[str, float | None]) -> Values:
        now = wall.seconds()
        return by_trigger({key: max(0.0, now - at) for key, at in since.items() if at is not None})

    metrics.gauge("harn_dead_letters", "Dead letters now.", dead, TRIGGER)
    metrics.gauge(
        "harn_oldest_ready_age_seconds",
        "Time since the oldest delivery that does not run, and is not to wait for a retry, was due; a pause or an open"
        " circuit does not end it; 0 for none.",
        lambda: ages({key: each.oldest_ready for key, each in backlogs.oldest.items()}),
        TRIGGER,
    )
    metrics.gauge(
        "harn_oldest_waiting_age_seconds",
        "Time since the oldest delivery that waits for a retry was received; 0 for none.",
        lambda: ages({key: each.oldest_waiting for key, each in backlogs.oldest.items()}),
        TRIGGER,
    )
    metrics.gauge("harn_trigger_running", "Handlers that run now.", lambda: by_trigger(backlogs.running_now()), TRIGGER)
    metrics.gauge(
        "harn_trigger_waiting",
        "Deliveries that wait for a due time, or for the end of a pause or an open circuit.",
        lambda: by_trigger(backlogs.waiting_now()),
        TRIGGER,
    )


DISK_INTERVAL = 15.0
"""Seconds between two measurements of the disk."""


class DiskUse(Struct, frozen=True):
    """
    The use of the disk with the store's files.

    :ivar store: the size of the store's files (bytes).
    :ivar free: the space on their disk that is free for this user (bytes).
    """

    store: int
    free: int


def measure(path: str) -> DiskUse:
    """
    Return the size of the database at ``path`` with its write-ahead log, and the free space of its disk. Blocks.

    :raises OSError: the directory cannot be read.
    """
    size = 0
    for name in (path, path + "-wal", path + "-shm"):
        try:
            size += os.stat(name).st_size
        except FileNotFoundError:
            continue
    found = os.statvfs(os.path.dirname(os.path.abspath(path)))
    return DiskUse(size, found.f_bavail * found.f_frsize)


class DiskWatch(TimerService):
    """
    Measures the store's files every `DISK_INTERVAL`, in a thread.

    :ivar use: the last measurement; None before the first, and for a store without files.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(DISK_INTERVAL, lambda: Deferred.fromCoroutine(self._look()))  # type: ignore[no-untyped-call]
        self.clock = server.reactor
        self.use: DiskUse | None = None
        self._server = server

    async def _look(self) -> None:
        path = self._server.store.location
        if path is None or self._server.store.backend != "sqlite":
            return  # the store has no files on this machine
        try:
            self.use = await self._server.threads.call(measure, path)
        except OSError as error:
            log.warn("the store's disk cannot be measured: {error}", error=str(error))


def add_disk_gauges(metrics: Metrics, disk: DiskWatch) -> None:
    """Add the gauges of the store's files and their disk; they have no series before the first measurement."""

    def store() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.store)}

    def free() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.free)}

    metrics.gauge("harn_store_bytes", "Size of the store's files.", store)
    metrics.gauge("harn_disk_free_bytes", "Free space on the store's disk.", free)
