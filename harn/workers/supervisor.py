"""
The supervisor of workers: starts them, starts again those that end, restarts them one by one, and ends them.

The first one is started alone: it makes the tables and the first generation where there are none, and what is wrong
with the manifest is said once. If it cannot start, the command fails with it; from then on whatever ends is started
again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

from attrs import define, field
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from harn.systemd import ServiceManager
from harn.workers.assignment import name_of
from harn.workers.directory import SharedDirectory
from harn.workers.link import RETIRE, STOP
from harn.workers.process import IWorkerEvents, WorkerNotStarted
from harn.workers.restarts import Restarts

log = Logger(namespace="harn")

MARGIN = 10.0
"""Seconds beyond a shutdown's own limit after which a worker is killed."""


class IWorker(Protocol):
    """A worker's process; see `harn.workers.process.WorkerProcess`."""

    @property
    def pid(self) -> int:
        """Return its process id."""

    def send(self, message: bytes) -> None:
        """Send it a message."""

    def send_signal(self, number: int) -> None:
        """Send it a signal."""


class ILauncher(Protocol):
    """Starts workers; see `harn.workers.process.Launcher`."""

    def start(self, number: int, events: Any) -> IWorker:
        """Start one."""


class ITerminal(Protocol):
    """The terminal of the process; see `harn.orchestrator.process.ControllingTerminal`."""

    def is_lost(self) -> bool:
        """Return whether it is gone, and this process was in its foreground when it was there last."""


class Limits(Struct, frozen=True):
    """
    The number of workers, and how long one may take to end.

    :ivar grace: seconds.
    :ivar silence: see `Assignment.silence`.
    """

    count: int
    grace: float
    silence: float = 0.0


@define(eq=False)
class Place:
    """
    One of the workers.

    :ivar process: None while it does not run.
    :ivar is_ready: it serves.
    :ivar is_retiring: it was asked to end, to be started again.
    :ivar started_at: reactor's seconds.
    :ivar timer: what is done later: start it, or kill it.
    :ivar deadline: kills it, unless it sends before that its reactor runs.
    """

    number: int
    process: IWorker | None = None
    is_ready: bool = False
    is_retiring: bool = False
    started_at: float = 0.0
    restarts: Restarts = field(factory=Restarts)
    timer: IDelayedCall | None = None
    deadline: IDelayedCall | None = None

    def cancel(self) -> None:
        """Do nothing later."""
        for each in (self.timer, self.deadline):
            if each is not None and each.active():
                each.cancel()
        self.timer = self.deadline = None


@implementer(IWorkerEvents)
class Supervisor:
    """
    Runs the workers of one command; a `harn.cli.serve.RunnableService`, and receives the signals of its process.

    :param reactor: an ``IReactorCore`` and ``IReactorTime``.
    :param terminal: of the process; None if it has none.
    :ivar exit_code: what the process should exit with.
    """

    def __init__(
        self,
        reactor: Any,
        launcher: ILauncher,
        limits: Limits,
        directory: SharedDirectory,
        service_manager: ServiceManager,
        terminal: ITerminal | None,
    ) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._limits = limits
        self._directory = directory
        self._service_manager = service_manager
        self._terminal = terminal
        self._places = [Place(number) for number in range(1, limits.count + 1)]
        self._to_restart: list[int] = []
        self._hung_up = False
        self._has_served = False
        self._stopped: Deferred[None] | None = None
        self.exit_code = 0

    # Its life

    def startService(self) -> None:
        """Start the first worker; the others follow when it serves."""
        self._service_manager.status("starting")
        self._start(self._places[0])

    def stopService(self) -> Deferred[None]:
        """End all workers; fires when they have ended."""
        self._stopped = Deferred()
        self._service_manager.stopping()
        for place in self._places:
            place.cancel()
            if place.process is not None:
                place.process.send(STOP)
                place.timer = self._reactor.callLater(self._limits.grace + MARGIN, self._kill, place)
        self._check_stopped()
        return self._stopped

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not stopped.called and not any(place.process for place in self._places):
            self._service_manager.close()
            stopped.callback(None)

    # Signals

    def hang_up(self) -> None:
        """
        Reload, by one worker for all; what comes before one serves is kept until then.

        Of a command in the foreground of a terminal that is gone, it is the end.
        """
        if self._stopped is not None:
            return
        if self._terminal is not None and self._terminal.is_lost():
            log.info("the terminal was closed, so the workers, which ran in its foreground, shut down")
            self.terminate()
            return
        serving = next(self._serving(), None)
        self._hung_up = serving is None
        if serving is not None and serving.process is not None:
            self._service_manager.reloading()
            serving.process.send_signal(signal.SIGHUP)

    def upgrade(self) -> None:
        """Restart the workers one by one, with the program as it is installed now."""
        if self._stopped is not None or not self._has_served:
            log.warn("SIGUSR2: the workers do not serve yet, or end; this signal is ignored")
        elif self._to_restart:
            log.warn("SIGUSR2: the workers are being restarted already; this signal is ignored")
        else:
            log.info("the workers are restarted one by one", announce=True)
            self._to_restart = [place.number for place in self._places]
            self._restart_next()

    def terminate(self) -> None:
        """Begin to end."""
        log.info("shutting down; a second signal ends all workers at once")
        self._end_reactor()

    def reopen_logs(self) -> None:
        """Make all workers reopen their logs."""
        for place in self._places:
            if place.process is not None:
                place.process.send_signal(signal.SIGUSR1)

    def _end_reactor(self) -> None:
        if self._reactor.running:
            with suppress(ReactorNotRunning):  # it is stopping already
                self._reactor.stop()

    # Workers

    def worker_ready(self, number: int) -> None:
        """See `IWorkerEvents.worker_ready`."""
        if self._stopped is not None:
            return
        place = self._places[number - 1]
        place.is_ready = True
        self._show()
        if not self._has_served:
            self._has_served = True
            for other in self._places[1:]:
                self._start(other)
        if all(each.is_ready for each in self._places):
            self._service_manager.ready(f"{self._limits.count} workers serve")
        if self._hung_up:
            self.hang_up()
        if self._to_restart[:1] == [number]:
            del self._to_restart[0]
            self._restart_next()

    def worker_alive(self, number: int) -> None:
        """See `IWorkerEvents.worker_alive`. From the first time on, its silence means that its reactor hangs."""
        place, silence = self._places[number - 1], self._limits.silence
        if self._stopped is not None or place.is_retiring:  # it has a limit of its own for that
            return
        if place.deadline is not None and place.deadline.active():
            place.deadline.reset(silence)
        elif silence and place.process is not None:
            place.deadline = self._reactor.callLater(silence, self._kill, place, f"was silent for {silence:g} s")

    def worker_reloaded(self, number: int) -> None:
        """See `IWorkerEvents.worker_reloaded`."""
        self._service_manager.reloaded(None)

    def worker_ended(self, number: int, status: int | None, how: str) -> None:
        """See `IWorkerEvents.worker_ended`."""
        place = self._places[number - 1]
        was_retiring, was_ready = place.is_retiring, place.is_ready
        place.cancel()
        place.process, place.is_ready, place.is_retiring = None, False, False
        if self._stopped is not None:
            self.exit_code = self.exit_code or (0 if status == 0 else 1)
            self._check_stopped()
            return
        self._show()
        self._service_manager.reloaded(None)  # a reload that it was asked for has ended
        if not self._has_served:
            log.error("{name} could not start; it ended {how}", name=name_of(number), how=how)
            self.exit_code = 1
            self._reactor.callWhenRunning(self._end_reactor)
        elif was_retiring:
            self._start(place)
        else:
            if self._to_restart[:1] == [number] and not was_ready:
                log.error("the restart one by one ends here: {name} cannot start", name=name_of(number))
                self._to_restart.clear()
            self._start_later(place, how)

    def _start_later(self, place: Place, how: str) -> None:
        """Start a worker again that has ended by itself, after a pause that grows with each short life."""
        place.restarts = place.restarts.after(self._reactor.seconds() - place.started_at)
        pause = place.restarts.pause
        log.error(
            "{name} ended {how}; it is started again in {pause:g} s",
            name=name_of(place.number),
            how=how,
            pause=pause,
            announce=True,
        )
        place.timer = self._reactor.callLater(pause, self._start, place)

    def _start(self, place: Place) -> None:
        place.cancel()
        place.started_at = self._reactor.seconds()
        try:
            place.process = self._launcher.start(place.number, self)
        except WorkerNotStarted as error:
            self.worker_ended(place.number, 1, f"before it began: {error}")
            return
        log.info("{name} is process {pid}", name=name_of(place.number), pid=place.process.pid)

    def _restart_next(self) -> None:
        """Retire the next worker that is to be restarted: it is started when it has ended, and the next follows."""
        if not self._to_restart:
            log.info("all workers were restarted", announce=True)
            return
        place = self._places[self._to_restart[0] - 1]
        if place.process is None:  # it is started anyway, and the rest continues when it serves
            return
        place.cancel()
        place.is_retiring = True
        place.process.send(RETIRE)
        place.timer = self._reactor.callLater(self._limits.grace + MARGIN, self._kill, place)

    def _kill(self, place: Place, why: str = "did not end in time") -> None:
        log.error("{name} {why}, and is killed", name=name_of(place.number), why=why)
        if place.process is not None:
            place.process.send_signal(signal.SIGKILL)

    def _serving(self) -> Iterator[Place]:
        """Yield the workers that serve and continue to."""
        return (place for place in self._places if place.is_ready and not place.is_retiring)

    def _show(self) -> None:
        """Make commands ask a worker that serves."""
        serving = next(self._serving(), None)
        if serving is not None:
            self._directory.show(serving.number)
