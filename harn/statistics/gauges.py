"""
Gauges of a server: the backlogs of triggers, the size of the store's files, the free space of their disk.

A backlog is the oldest ready and waiting delivery, and the dead letters, at the last look at the store.
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
"""The values of a gauge, by those of its labels."""

INTERVAL = 5.0
"""Seconds between two looks at the store."""
SHARE = 50.0
"""The time between two looks is at least so many times that of a look: with a million dead letters one takes 50 ms."""


class Backlogs(Service):
    """
    Looks at the store every `INTERVAL`, off the reactor thread, and counts dead letters between two looks.

    :ivar dead: dead letters by trigger id.
    :ivar oldest: what is unfinished, by trigger id.
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
        """Look for the first time."""
        Service.startService(self)
        self._look()

    def stopService(self) -> Deferred[None] | None:
        """Stop looking; wait for the look that is under way."""
        Service.stopService(self)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        return self._looking

    def begin(self) -> None:
        """Look once, before the server serves: its first state file says how many dead letters there are."""
        self._looked(Deferred.fromCoroutine(self.refresh()))

    async def refresh(self) -> None:
        """
        Look now.

        :raises EventLogUnavailable: the store cannot be read.
        """
        running = list(self._dispatcher.in_progress)
        self.oldest = await self._store.backlogs(self._wall.seconds(), running)
        self.dead = Counter(await self._store.dead())

    def figures(self, totals: TotalSource) -> Figures:
        """Return the current figures, for `Figures.of` on any thread."""
        return Figures(
            totals=totals, running=self.running_now(), waiting=self.waiting_now(), dead=self.dead, backlogs=self.oldest
        )

    def running_now(self) -> Counter[str]:
        """Count the handlers that run, by trigger id."""
        return Counter(delivery.binding.id for delivery in self._dispatcher.in_progress.values())

    def ready_now(self) -> Counter[str]:
        """Count the deliveries that could run, and do not, by trigger id; cost grows with what memory holds."""
        found: Counter[str] = Counter()
        holds = self._holds()
        for binding, workload in self._dispatcher.workload(list(self._registry)).items():
            if holds.of(binding.id) is None:
                found[binding.id] += workload.queued
        return found

    def waiting_now(self) -> Counter[str]:
        """Count the deliveries that wait for a due time, or while a gate holds their trigger, by trigger id."""
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
            if not failure.check(EventLogUnavailable):  # others say that already
                log.failure("the backlogs of triggers cannot be read", failure)

        return looking.addErrback(failed)

    # Between two looks

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
    """Add the gauges of triggers; each trigger has its series, at 0, from the moment that it is served."""

    def by_trigger(values: Mapping[str, float]) -> Values:
        return {(trigger_id,): float(values.get(trigger_id, 0.0)) for trigger_id in metrics.triggers}

    def dead() -> Values:
        # Those of triggers that are gone can still be replayed or discarded.
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
"""Seconds between two looks."""


class DiskUse(Struct, frozen=True):
    """Bytes that the store's files take, and bytes that are free for this user on their disk."""

    store: int
    free: int


def measure(path: str) -> DiskUse:
    """
    Measure the database at ``path`` with its write-ahead log. Blocks.

    :raises OSError: the directory cannot be looked at.
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

    :ivar use: None before the first look, and for a store without files.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(DISK_INTERVAL, lambda: Deferred.fromCoroutine(self._look()))  # type: ignore[no-untyped-call]
        self.clock = server.reactor
        self.use: DiskUse | None = None
        self._server = server

    async def _look(self) -> None:
        path = self._server.store.location
        if path is None or self._server.store.backend != "sqlite":
            return  # it has no files here
        try:
            self.use = await self._server.threads.call(measure, path)
        except OSError as error:
            log.warn("the store's disk cannot be measured: {error}", error=str(error))


def add_disk_gauges(metrics: Metrics, disk: DiskWatch) -> None:
    """Add the gauges of the store's files and their disk; without a series before they are measured."""

    def store() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.store)}

    def free() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.free)}

    metrics.gauge("harn_store_bytes", "Size of the store's files.", store)
    metrics.gauge("harn_disk_free_bytes", "Free space on the store's disk.", free)
