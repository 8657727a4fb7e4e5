"""
The warm spare: a process that runs already and has imported no user code, so that a reload need not wait for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.errors import StageFailed
from harn.vm.childprocess import ChildProcess
from harn.vm.frames import FromChild, Pong
from harn.vm.handler_output import Printing

log = Logger(namespace="harn.vm")

REFILL_DELAY = 0.25
"""Seconds between taking a spare and starting the next one: not while a reload is busy."""
LONGEST_BACKOFF = 30.0


class Spare:
    """
    Keeps one process ready, from `start` to `stop`.

    :ivar printing: gets the output of the processes.
    :ivar waits: another process is not started yet when one is taken: the server that starts needs the processor.
    """

    def __init__(self, reactor: Any, printing: Printing) -> None:
        self.printing = printing
        self.waits = False
        self._reactor = reactor
        self._process: ChildProcess | None = None
        self._timer: Any = None
        self._failures = 0
        self._running = False

    @property
    def pid(self) -> int | None:
        """The process's id; None while it has none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the first process, if it was not started already."""
        self._running = True
        self._fill()

    def fill(self) -> None:
        """Keep a process ready from now on."""
        self.waits = False
        if self._running and self._process is None and self._timer is None:
            self._refill()

    def stop(self) -> Deferred[None]:
        """Stop; fires when the process is gone."""
        self._running = False
        self._cancel_timer()
        process, self._process = self._process, None
        if process is None:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        process.ready.addErrback(lambda _: None)  # no caller waits for it any more
        return process.close()

    def take(self) -> Deferred[ChildProcess]:
        """
        Return a ready process, and start another one a little later.

        :raises StageFailed: no process can be started.
        """
        if not self._running:
            return fail(StageFailed("resolve", "no interpreter: the server ends"))
        if self._process is None:
            self._cancel_timer()
            try:
                self._spawn()
            except OSError as error:
                self._refill_later()
                return fail(StageFailed("resolve", f"no interpreter: no process can be started: {error}"))
        process, self._process = self._process, None
        if process is None:
            raise AssertionError("a process was just started")
        self._cancel_timer()
        if not self.waits:
            self._refill()
        process.owner = None
        return self._hand_over(process)

    def beside(self) -> Deferred[ChildProcess]:
        """
        Start a process independent of the spare, and return it when it is ready.

        :raises StageFailed: it cannot be started.
        """
        if not self._running:
            return fail(StageFailed("resolve", "no interpreter: the server ends"))
        process = ChildProcess(self._reactor, self.printing)
        try:
            process.spawn()
        except OSError as error:
            return fail(StageFailed("resolve", f"no interpreter: no process can be started: {error}"))
        return self._hand_over(process)

    @staticmethod
    def _hand_over(process: ChildProcess) -> Deferred[ChildProcess]:
        handed: Deferred[ChildProcess] = Deferred(lambda _: process.kill())

        def hand_over(outcome: ChildProcess | Failure) -> None:
            if not handed.called:  # else no caller waits any more, and the process was killed
                handed.callback(outcome)

        process.ready.addBoth(hand_over)
        return handed

    # The idle spare

    def frames_received(self, frames: Sequence[FromChild]) -> None:
        """Ignore frames of an idle process."""

    def pong_received(self, pong: Pong) -> None:
        """Ignore the frame: an idle process is not pinged."""

    def process_gone(self, why: str) -> None:
        """Replace an idle process that died."""
        self._process = None
        if self._running:
            log.warn("the spare interpreter is gone, starting another: {why}", why=why)
            self._refill_later()

    def _fill(self) -> None:
        self._timer = None
        if self._process is not None or not self._running:
            return
        try:
            self._spawn()
        except OSError as error:
            log.error("no spare interpreter can be started, trying again: {error}", error=str(error))
            self._refill_later()

    def _spawn(self) -> None:
        process = self._process = ChildProcess(self._reactor, self.printing)
        try:
            process.spawn()
        except OSError:
            self._process = None
            raise
        process.ready.addCallbacks(self._ready, self._not_ready, errbackArgs=(process,))

    def _ready(self, process: ChildProcess) -> ChildProcess:
        self._failures = 0
        if self._process is process:
            process.owner = self
        return process

    def _not_ready(self, failure: Failure, process: ChildProcess) -> Failure | None:
        if self._process is not process:
            return failure  # a caller waits for it
        self._process = None
        if self._running:
            log.error("the spare interpreter did not start: {error}", error=failure.getErrorMessage())
            self._refill_later()
        return None

    def _refill(self) -> None:
        self._timer = self._reactor.callLater(REFILL_DELAY, self._fill)

    def _refill_later(self) -> None:
        self._cancel_timer()
        delay = min(LONGEST_BACKOFF, REFILL_DELAY * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._timer = self._reactor.callLater(delay, self._fill)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
