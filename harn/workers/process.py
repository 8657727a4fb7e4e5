"""One worker's process, as the supervisor sees it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from harn.errors import HarnError
from harn.processes import CAUGHT, signals_blocked
from harn.upgrade.interfaces import IChannelUser
from harn.upgrade.program import HandoverChannel, Program
from harn.workers.assignment import CHANNEL, LISTENING, Assignment
from harn.workers.link import ALIVE, READY, RELOADED


class WorkerNotStarted(HarnError):
    """The system cannot start a process; the message says why."""


class IWorkerEvents(Interface):
    """The receiver of what happens to workers."""

    def worker_ready(number: int) -> None:
        """Called when a worker serves."""

    def worker_alive(number: int) -> None:
        """Called when a worker has sent that its reactor runs."""

    def worker_reloaded(number: int) -> None:
        """Called when a reload that a worker took part in has ended."""

    def worker_ended(number: int, status: int | None, how: str) -> None:
        """
        Called when the process of a worker has ended.

        :param status: its exit status; None if a signal ended it. ``how`` says it in words.
        """


@implementer(IChannelUser)
class WorkerProcess(ProcessProtocol):
    """
    The process.

    :ivar pid: 0 before it is started.
    """

    def __init__(self, number: int, events: Any) -> None:
        """:param events: an `IWorkerEvents`."""
        self.pid = 0
        self.number = number
        self._events = events
        self._channel: HandoverChannel | None = None

    def spawn(self, launcher: Launcher) -> None:
        """
        Start it.

        :raises WorkerNotStarted: the system cannot start it.
        """
        reactor, program = launcher.reactor, launcher.program
        assignment = Assignment(number=self.number, silence=launcher.silence)
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs, signals_blocked(CAUGHT):
                transport = reactor.spawnProcess(
                    self,
                    program.executable,
                    list(program.arguments),
                    env=assignment.environment(launcher.environ),
                    path=program.directory,
                    childFDs={0: 0, 1: 1, 2: 2, LISTENING: launcher.listening, CHANNEL: theirs.fileno()},
                )
                self.pid = transport.pid
                self._channel = HandoverChannel.open(reactor, ours.detach(), self)
        except OSError as error:
            raise WorkerNotStarted(f"{program.executable} could not be started: {error}") from None

    def send(self, message: bytes) -> None:
        """Send it a message; nothing is sent once it has ended."""
        if self._channel is not None:
            self._channel.send(message)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(number)

    def message_received(self, message: bytes) -> None:
        """See `IChannelUser.message_received`."""
        if message == READY:
            self._events.worker_ready(self.number)
        elif message == ALIVE:
            self._events.worker_alive(self.number)
        elif message == RELOADED:
            self._events.worker_reloaded(self.number)

    def channel_lost(self) -> None:
        """See `IChannelUser.channel_lost`: the end of the process follows."""

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Called when the process has ended; children of it may have its descriptors for a moment longer."""
        if self._channel is not None:
            self._channel.close()
        self._events.worker_ended(self.number, *how_ended(reason.value))

    def processEnded(self, reason: Failure) -> None:
        """Drop the transport, which refers to this object."""
        self.transport = None


def how_ended(error: BaseException | None) -> tuple[int | None, str]:
    """Return the exit status of a process, None if a signal ended it; and the same in words."""
    if isinstance(error, ProcessTerminated) and error.signal:
        return None, f"by signal {error.signal}"
    status = 0 if isinstance(error, ProcessDone) else getattr(error, "exitCode", None)
    return status, f"with status {status}"


class Launcher(Struct, frozen=True):
    """
    Starts workers.

    :ivar program: the command line of the supervisor, which is a worker's, too.
    :ivar environ: of the supervisor.
    :ivar listening: the descriptor of the listening socket.
    :ivar silence: see `Assignment.silence`.
    """

    reactor: Any
    program: Program
    environ: Mapping[str, str]
    listening: int
    silence: float = 0.0

    def start(self, number: int, events: Any) -> WorkerProcess:
        """
        Start a worker.

        :param events: an `IWorkerEvents`.
        :raises WorkerNotStarted: the system cannot start it.
        """
        worker = WorkerProcess(number, events)
        worker.spawn(self)
        return worker
