"""The parts of a dispatcher, and their limits."""

from __future__ import annotations

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from harn.clocks import WallTime
from harn.dispatch.bodies import RunningBodies
from harn.dispatch.cancellations import Cancellations
from harn.dispatch.closing import Closing
from harn.dispatch.dropping import Dropping
from harn.dispatch.gates import Gates
from harn.dispatch.queue import Room
from harn.dispatch.queues import Queues
from harn.dispatch.refill import Refill
from harn.dispatch.retries import Retries
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.settler import Interruptions, Settler
from harn.dispatch.timers import Wakeups, Writes
from harn.lifecycle import Lifecycle
from harn.model.event_trace import TraceContexts
from harn.store.interfaces import IStore
from harn.triggers.registry import Registry


class DispatchLimits(Struct, frozen=True, kw_only=True):
    """
    The limits of running handlers and of deliveries in memory.

    :ivar max_outstanding: the most handlers that may run.
    :ivar max_deliveries: the most deliveries that may wait in memory, in all queues together.
    :ivar max_bytes: the most bytes of waiting deliveries; the large bodies of running ones may take as many again.
    """

    max_outstanding: int = 64
    max_deliveries: int = 8192
    max_bytes: int = 64 * 1024 * 1024


class DispatchParts:
    """
    The parts of a dispatcher; each one is made from those before it.

    :ivar traces: makes the trace contexts of attempts; None while traces are off.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        store: IStore,
        registry: Registry,
        lifecycle: Lifecycle,
        limits: DispatchLimits,
        traces: TraceContexts | None = None,
    ) -> None:
        self.clock, self.wall = clock, wall
        self.registry, self.lifecycle = registry, lifecycle
        self.traces = traces
        self.deliveries = deliveries = store.deliveries
        self.wakeups = Wakeups(clock, wall, lifecycle)
        self.writes = Writes(clock)
        self.gates = Gates()
        self.room = Room(limits.max_deliveries, limits.max_bytes)
        self.bodies = RunningBodies(deliveries, limits.max_bytes)
        self.queues = queues = Queues(registry, self.room, self.gates, self.wakeups)
        self.scheduler = Scheduler(clock, registry, queues, self.bodies, self.wakeups)
        self.scheduler.max_outstanding = limits.max_outstanding
        self.refill = Refill(clock, deliveries, queues, self.scheduler, self.wakeups)
        self.retries = Retries(clock, wall, deliveries, registry, queues, self.wakeups, self.writes)
        self.settler = Settler(deliveries, registry, lifecycle, queues, self.scheduler, self.retries, self.writes)
        self.interruptions = Interruptions(clock, registry, queues, self.scheduler, self.settler)
        self.cancellations = Cancellations(deliveries, registry, lifecycle, queues, self.scheduler, self.settler)
        self.dropping = Dropping(registry, lifecycle, queues, self.scheduler, self.retries)
        self.closing = Closing(store, registry, lifecycle, queues, self.scheduler, self.settler, self.writes)
