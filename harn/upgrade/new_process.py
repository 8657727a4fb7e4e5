"""The new program's process, as the old program that starts it sees it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from harn.signals import CAUGHT, signals_blocked
from harn.store.lock import StateDirectoryLock
from harn.upgrade.channel import MAIN, READY, TAKE_OVER, TAKEN, HandoverChannel
from harn.upgrade.program import (
    CHANNEL,
    DIRECTORY,
    LISTENING,
    LOCK,
    HandoverFailed,
    Inheritance,
    Program,
    program_environment,
)


class NewProcess(ProcessProtocol):
    """
    The new program's process.

    :ivar ready: fires when it could serve; fails with `HandoverFailed` when it ends before.
    :ivar taken: fires when it has taken over; fails with `HandoverFailed` when it ends before.
    :ivar was_handed_over: it was asked to take over.
    :ivar pid: its process id; 0 before it is started.
    :ivar is_alive: it runs.
    :ivar end: how it ended.
    """

    def __init__(self, reactor: Any) -> None:
        """Start nothing yet. ``reactor`` is an ``IReactorProcess`` and ``IReactorSocket``."""
        self.ready: Deferred[None] = Deferred()
        self.taken: Deferred[None] = Deferred()
        self.was_handed_over = False
        self.pid = 0
        self.is_alive = False
        self.end = ""
        self._waiting_for_end: list[Deferred[None]] = []
        self._reactor = reactor
        self._channel: HandoverChannel | None = None

    def spawn(
        self,
        program: Program,
        environ: Mapping[str, str],
        inheritance: Inheritance,
        listening: int,
        lock: StateDirectoryLock,
    ) -> None:
        """
        Start it.

        :param listening: our descriptor of the listening socket.
        :param lock: must be held.
        :raises HandoverFailed: the system cannot start it.
        """
        assert lock.descriptor is not None
        given = {LISTENING: listening, LOCK: lock.descriptor}
        if lock.of_directory is not None:
            given[DIRECTORY] = lock.of_directory
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs, signals_blocked(CAUGHT):
                transport = self._reactor.spawnProcess(
                    self,
                    program.executable,
                    list(program.arguments),
                    env=program_environment(environ, inheritance),
                    path=program.directory,
                    childFDs={0: 0, 1: 1, 2: 2, CHANNEL: theirs.fileno(), **given},
                )
                self.pid = transport.pid
                self.is_alive = not self.end
                self._channel = HandoverChannel.open(self._reactor, ours.detach(), self._received, self._channel_lost)
        except OSError as error:
            raise HandoverFailed(f"{program.executable} could not be started: {error}") from None

    def hand_over(self) -> None:
        """Request it to take over."""
        assert self._channel is not None
        self.was_handed_over = True
        self._channel.send(TAKE_OVER)

    def confirm_main(self) -> None:
        """Send that the service manager was given its process id."""
        assert self._channel is not None
        self._channel.send(MAIN)

    def send_signal(self, name: str) -> None:
        """Send it a signal, for example ``HUP``, unless it has ended."""
        if self.is_alive and self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)

    def kill(self) -> Deferred[None]:
        """Kill it; fires when it has ended."""
        ended: Deferred[None] = Deferred()
        self._waiting_for_end.append(ended)
        if not self.is_alive:
            self._fire_ended()
        self.send_signal("KILL")
        if self._channel is not None:
            self._channel.close()
        return ended

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Called when the process has ended."""
        self.is_alive = False
        self.end = f"it ended {_how_ended(reason)} before it took over"
        self._fail(self.ready, self.end)
        self._fail(self.taken, self.end)
        self._fire_ended()

    def processEnded(self, reason: Failure) -> None:
        """Drop the transport, which refers to this object."""
        self.transport = None

    def _received(self, message: bytes) -> None:
        if message == READY and not self.ready.called:
            self.ready.callback(None)
        elif message == TAKEN and self.was_handed_over and not self.taken.called:
            self.taken.callback(None)

    def _channel_lost(self) -> None:
        # Before the hand-over, the end of the process follows, and says more.
        if self.was_handed_over:
            self._fail(self.taken, "it closed the channel before it took over")

    @staticmethod
    def _fail(waiting: Deferred[None], why: str) -> None:
        if not waiting.called:
            waiting.errback(Failure(HandoverFailed(why)))
            waiting.addErrback(lambda failure: failure.trap(HandoverFailed) and None)  # in case nothing awaits it

    def _fire_ended(self) -> None:
        waiting, self._waiting_for_end = self._waiting_for_end, []
        for ended in waiting:
            ended.callback(None)


def _how_ended(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal:
        return f"by signal {error.signal}"
    return f"with status {0 if isinstance(error, ProcessDone) else getattr(error, 'exitCode', None)}"
