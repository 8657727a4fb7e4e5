"""The new program of an upgrade, as the old one that starts it sees it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from harn.listener import activation
from harn.orchestrator.notify import WATCHDOG_PID
from harn.orchestrator.signals import KEPT
from harn.signals import signals_blocked
from harn.store.lock import StateDirectoryLock
from harn.upgrade.handover import (
    DIRECTORY,
    LISTENING,
    LOCK,
    MAIN,
    PAIR,
    SERVES,
    TAKEN,
    VARIABLE,
    YOURS,
    HandoverFailed,
    Inheritance,
    Pair,
    Program,
)

_OURS_ALONE = frozenset((activation.COUNT, activation.PID, activation.NAMES, WATCHDOG_PID))
"""Variables that are about this very process."""


class Successor(ProcessProtocol):
    """
    The new program's process.

    :ivar serves: fires when it could serve; ``taken`` when it has taken over. Each fails with `HandoverFailed` when it
        ends before.
    :ivar was_told: whether it was told to take over.
    :ivar pid: its number.
    :ivar is_alive: whether it runs; ``end`` says how it ended.
    """

    def __init__(self, reactor: Any) -> None:
        """Start nothing yet. ``reactor`` is an ``IReactorProcess`` and ``IReactorSocket``."""
        self.serves: Deferred[None] = Deferred()
        self.taken: Deferred[None] = Deferred()
        self.was_told = False
        self.pid = 0
        self.is_alive = False
        self.end = ""
        self._gone: list[Deferred[None]] = []
        self._reactor = reactor
        self._pair: Pair | None = None

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

        :param listening: our descriptor of the listening socket; ``lock`` is held.
        :raises HandoverFailed: the system cannot.
        """
        assert lock.descriptor is not None
        given = {LISTENING: listening, LOCK: lock.descriptor}
        if lock.of_directory is not None:
            given[DIRECTORY] = lock.of_directory
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs, signals_blocked(KEPT):
                transport = self._reactor.spawnProcess(
                    self,
                    program.executable,
                    list(program.arguments),
                    env=program_environment(environ, inheritance),
                    path=program.directory,
                    childFDs={0: 0, 1: 1, 2: 2, PAIR: theirs.fileno(), **given},
                )
                self.pid = transport.pid
                self.is_alive = not self.end
                self._pair = Pair.on(self._reactor, ours.detach(), self._heard, self._lost)
        except OSError as error:
            raise HandoverFailed(f"{program.executable} could not be started: {error}") from None

    def hand_over(self) -> None:
        """Let it take over."""
        assert self._pair is not None
        self.was_told = True
        self._pair.say(YOURS)

    def is_main(self) -> None:
        """Tell it that the service manager knows of it."""
        assert self._pair is not None
        self._pair.say(MAIN)

    def send_signal(self, name: str) -> None:
        """Send it a signal, for example ``HUP``; to one that has ended none is sent."""
        if self.is_alive and self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(name)

    def kill(self) -> Deferred[None]:
        """End it at once; fires when it has ended."""
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        if not self.is_alive:
            self._tell_gone()
        self.send_signal("KILL")
        if self._pair is not None:
            self._pair.close()
        return gone

    # How it goes on, and ends

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Say that it has ended."""
        self.is_alive = False
        self.end = f"it ended {_how(reason)} before it took over"
        self._fail(self.serves, self.end)
        self._fail(self.taken, self.end)
        self._tell_gone()

    def processEnded(self, reason: Failure) -> None:
        """Let go of the transport, which holds this object."""
        self.transport = None

    def _heard(self, word: bytes) -> None:
        if word == SERVES and not self.serves.called:
            self.serves.callback(None)
        elif word == TAKEN and self.was_told and not self.taken.called:
            self.taken.callback(None)

    def _lost(self) -> None:
        # Before it was told that is its end, or what kills it, and says more.
        if self.was_told:
            self._fail(self.taken, "it let go of us before it took over")

    @staticmethod
    def _fail(waiting: Deferred[None], why: str) -> None:
        if not waiting.called:
            waiting.errback(Failure(HandoverFailed(why)))
            waiting.addErrback(lambda failure: failure.trap(HandoverFailed) and None)  # if nobody waits

    def _tell_gone(self) -> None:
        told, self._gone = self._gone, []
        for gone in told:
            gone.callback(None)


def program_environment(environ: Mapping[str, str], inheritance: Inheritance) -> dict[str, str]:
    """Give the new program's environment: ours, without what is about this very process."""
    kept = {name: value for name, value in environ.items() if name not in _OURS_ALONE}
    return {**kept, VARIABLE: inheritance.encode()}


def _how(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal:
        return f"by signal {error.signal}"
    return f"with status {0 if isinstance(error, ProcessDone) else getattr(error, 'exitCode', None)}"
