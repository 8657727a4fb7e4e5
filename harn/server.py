"""
The server, as a feature sees it: what a feature can add itself to.

A feature is a package with a module ``feature``, and in it ``install(server)``: that makes the feature's objects from
those of the features before it, and adds them here. `harn.orchestrator.features` is the list of features, in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Protocol, TypeVar

from msgspec import Struct, field
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallClock, WallTime
from harn.errors import EventLogUnavailable
from harn.lifecycle import Event, Lifecycle
from harn.manifest.settings import OrchestratorSettings
from harn.model.event_trace import TraceContexts
from harn.observability.metrics import Metrics
from harn.operations.registry import Audit, Operations
from harn.options import ServeOptions
from harn.store.event_log import IEventLog, Payload
from harn.store.interfaces import IStore
from harn.vm.interfaces import IInterpreters
from harn.waiting import ReactorThreads

log = Logger(namespace="harn")

STARTING = "starting"
DRAINING = "draining"
LONGEST_END = 10.0
"""Seconds that one service may take to end: a thread that hangs, on a dead file server for example, delays nothing."""

LONGEST_NOTE = 5.0
"""Seconds that a record may take to be written."""

T = TypeVar("T")

Install = Callable[["Server"], None]
"""Adds a feature to a server."""
Check = Callable[[], bool]
"""Returns False while the server should get no requests."""


class SettingsChanged(Event, frozen=True, gc=False):
    """The settings of a new generation are in force from now on."""

    settings: OrchestratorSettings


class Runtime(Struct, frozen=True):
    """
    The reactor, time and chance of a server; tests pass their own.

    :ivar reactor: drives everything.
    :ivar wall: the time of day, for stamps.
    :ivar random: draws numbers for jitter.
    """

    reactor: Any
    wall: WallTime = field(default_factory=WallClock)
    random: Random = field(default_factory=Random)


class Server:
    """
    One server: what all features share, and what each adds for those after it.

    :ivar options: the options of ``serve``.
    :ivar environ: the environment of the process.
    :ivar metrics: counts of what happens, for scrapes.
    :ivar store: where everything durable is.
    :ivar interpreters: where handlers run.
    :ivar reactor: of the `Runtime`.
    :ivar wall: of the `Runtime`.
    :ivar random: of the `Runtime`.
    :ivar threads: for calls that take long.
    :ivar lifecycle: the events that features emit and subscribe to.
    :ivar records: writes records of the server's own topics.
    :ivar operations: what operators can ask of this server.
    :ivar readiness: whether it should get requests.
    :ivar settings: ``[orchestrator]`` of the live generation; the defaults before there is one.
    :ivar services: run from before the first generation until everything else has ended.
    :ivar background: run while the server serves.
    :ivar traces: makes the trace contexts of events and attempts; None while traces are off.
    :ivar started_at: seconds, Unix; 0 before it starts.
    :ivar stopped_at: seconds, Unix; None while it runs.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: ServeOptions,
        environ: Mapping[str, str],
        lifecycle: Lifecycle,
        store: IStore,
        interpreters: IInterpreters,
    ) -> None:
        reactor = self.reactor = runtime.reactor
        self.options = options
        self.environ = environ
        self.metrics = Metrics()
        self.store = store
        self.interpreters = interpreters
        self.wall = runtime.wall
        self.random = runtime.random
        self.threads = ReactorThreads(reactor)
        self.lifecycle = lifecycle
        self.records = RecordWriter(reactor, store.event_log)
        self.operations = Operations(Audit(wall=self.wall, records=self))
        self.readiness = Readiness()
        self.settings = OrchestratorSettings()
        self.services = Services(reactor)
        self.background = Services(reactor)
        self.traces: TraceContexts | None = None
        self.started_at = 0.0
        self.stopped_at: float | None = None
        self._parts: dict[type[Any], Any] = {}

    def add(self, part: T, *kinds: type[Any]) -> T:
        """
        Register ``part`` for later features; return it.

        :param kinds: the classes or interfaces by which it is found; its own class if there are none.
        :raises ValueError: there is one of the same kind.
        """
        for kind in kinds or (type(part),):
            if kind in self._parts:
                raise ValueError(f"there must be one {kind.__name__} in a server, got a second")
            self._parts[kind] = part
        return part

    def __getitem__(self, kind: type[T]) -> T:
        """
        Return the part of this class or interface.

        :raises KeyError: no feature has added one yet.
        """
        part: T = self._parts[kind]
        return part

    def apply(self, settings: OrchestratorSettings) -> None:
        """Put the settings of a new generation in force."""
        self.settings = settings
        self.lifecycle.emit(SettingsChanged(settings))

    async def note(self, topic: str, kind: str, payload: Payload) -> str | None:
        """See `RecordWriter.note`."""
        return await self.records.note(topic, kind, payload)


class RecordWriter:
    """Appends records to the event log; one that cannot be written costs nothing else."""

    def __init__(self, clock: IReactorTime, event_log: IEventLog) -> None:
        self._clock = clock
        self._event_log = event_log

    async def note(self, topic: str, kind: str, payload: Payload) -> str | None:
        """Append one record; return what went wrong, which is logged, or None."""
        try:
            await self._event_log.append(topic, kind, payload).addTimeout(LONGEST_NOTE, self._clock)
        except (EventLogUnavailable, TimeoutError) as error:
            why = f"it took longer than {LONGEST_NOTE:g} s" if isinstance(error, TimeoutError) else str(error)
            log.warn("cannot write a record of {topic}: {why}", topic=topic, why=why)
            return f"the record on {topic} could not be written: {why}"
        return None


class Readiness:
    """
    Whether the server should get requests now, and if not, why.

    :ivar phase: `STARTING`, `DRAINING`, or None while it serves.
    """

    def __init__(self) -> None:
        self.phase: str | None = STARTING
        self._checks: dict[str, Check] = {}

    def add(self, reason: str, check: Check) -> None:
        """Count the server as not ready, for ``reason``, while ``check`` returns False."""
        self._checks[reason] = check

    def reasons(self) -> list[str]:
        """Return why it is not ready; empty when it is."""
        if self.phase is not None:
            return [self.phase]
        return [reason for reason, check in self._checks.items() if not check()]


class IClosing(Protocol):
    """A part of the server that needs no start, and has an end."""

    def close(self) -> Awaitable[Any] | None:
        """End; what is returned is waited for."""


class Services(MultiService):
    """
    Services that start in the order in which they were added, and end in the reverse order, one after the other.

    One that does not end in time, or fails, does not keep the others.
    """

    def __init__(self, clock: IReactorTime) -> None:
        MultiService.__init__(self)
        self._clock = clock

    def add(self, service: Any) -> None:
        """Add an ``IService``; it is started with the others."""
        service.setServiceParent(self)

    def add_closing(self, part: IClosing) -> None:
        """Close ``part`` when its turn to end comes."""
        self.add(ClosingService(part))

    def startService(self) -> None:
        """Start them, in order."""
        MultiService.startService(self)

    def stopService(self) -> Deferred[None]:
        """End those that run; fires when all have ended, or had `LONGEST_END`."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            if service.running:
                await ended_in_time(self._clock, service.stopService)


class ClosingService(Service):
    """A service that has only an end."""

    def __init__(self, part: IClosing) -> None:
        self._part = part

    def stopService(self) -> Awaitable[Any] | None:
        """Close."""
        Service.stopService(self)
        return self._part.close()


async def ended_in_time(clock: IReactorTime, end: Callable[[], Awaitable[Any] | None]) -> None:
    """Call ``end`` and wait for it, at most for `LONGEST_END`; what it raises is logged."""

    async def wait() -> None:
        ending = end()
        if ending is not None:
            await ending

    def too_long(result: object, seconds: float) -> Failure:
        return Failure(TimeoutError(seconds))  # whatever cancelling a part makes of it

    try:
        await Deferred.fromCoroutine(wait()).addTimeout(LONGEST_END, clock, too_long)
    except TimeoutError:
        log.error("a part of the server did not end within {seconds:g} s", seconds=LONGEST_END)
    except Exception:
        log.failure("a part of the server failed to end")
