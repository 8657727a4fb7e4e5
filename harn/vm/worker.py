"""
The worker of one bundle: a process that is replaced when it dies or is killed; each call gets exactly one answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.errors import CallInterrupted, InterpreterDied, StageFailed
from harn.lifecycle import InterpreterRestarted, Lifecycle
from harn.model.exchange import Ending, Endings, Running
from harn.observability.logs import threshold
from harn.vm.bundle import Bundle
from harn.vm.calls import ActiveCall, begin_frame, load_frame, outcome_of, timed_out
from harn.vm.childprocess import ChildProcess
from harn.vm.frames import (
    Cancel,
    Done,
    Failed,
    FromChild,
    HooksRan,
    Importing,
    LogLevel,
    Pong,
    Printed,
    Queued,
    Resolved,
    RunHooks,
    SecretRequested,
    Started,
)
from harn.vm.handler_output import HandlerOutput, Printing
from harn.vm.hooks import StartStop
from harn.vm.interfaces import Call, ISecrets, PendingImport
from harn.vm.resolving import IMPORTS, Resolves, problems_of_death
from harn.vm.sources import BundleProblem
from harn.vm.spare import Spare
from harn.vm.timeouts import CallDeadlines

log = Logger(namespace="harn.vm")

BACKOFFS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the first, second, ... replacement in a row of processes that completed no call."""
RESOLVE_LIMIT = 30.0
"""Seconds that a replacement has to import the modules of its predecessor."""

_ENDS = (Done, Failed)
"""The frames that end a call."""


class WorkerServices(Struct, frozen=True):
    """
    Services shared by all workers of a server.

    :ivar reactor: the reactor.
    :ivar spare: starts processes.
    :ivar uses_spare: take the warm one, which is then replaced.
    :ivar lifecycle: gets an event when a serving process has died or was killed.
    """

    reactor: Any
    spare: Spare
    secrets: ISecrets
    printing: Printing
    lifecycle: Lifecycle
    uses_spare: bool = True

    def take(self) -> Deferred[ChildProcess]:
        """Return a ready process that has imported no user code."""
        return self.spare.take() if self.uses_spare else self.spare.beside()


class Worker:
    """
    Runs calls of one bundle in one process at a time.

    :ivar up: its process accepts calls; false while it is being replaced.
    :ivar calls: the running calls, by number.
    :ivar hooks: the start and stop hooks of its modules.
    """

    def __init__(self, services: WorkerServices, bundle: Bundle) -> None:
        self.up = False
        self.calls: dict[int, ActiveCall] = {}
        self._services = services
        self._bundle = bundle
        self._process: ChildProcess | None = None
        self._starting: Deferred[ChildProcess] | None = None
        self._resolves = Resolves(services.reactor)
        self._references: set[str] = set()
        self._serves = False  # it was resolved or called: from then on a process that dies is replaced
        self._waiting: dict[int, ActiveCall] = {}
        self._number = 0
        self._closed = False
        self._fruitless = 0
        self._timer: Any = None
        self._deadlines = CallDeadlines(services.reactor, self)
        self._level = ""
        self._output = HandlerOutput(services.secrets, services.printing)
        self.hooks = StartStop(services.reactor, self)

    @property
    def running(self) -> int:
        """Number of calls in it, including those that wait for a replacement."""
        return len(self.calls) + len(self._waiting)

    @property
    def pid(self) -> int | None:
        """Its process's id; None while it has no process."""
        return None if self._process is None else self._process.pid

    # For its owner

    def start(self) -> Deferred[None]:
        """
        Acquire a process and send it the bundle.

        :raises StageFailed: no process is available.
        """
        starting = self._starting = self._services.take()
        return starting.addCallbacks(self._started, self._not_started)

    def _started(self, process: ChildProcess) -> None:
        self._starting = None
        if self._closed:
            process.close()
            raise StageFailed("resolve", "the interpreter was closed")
        self._process = process
        process.owner = self
        process.send(load_frame(self._bundle))
        self._level = ""  # a fresh process has not been sent it
        self.up = True

    def _not_started(self, failure: Failure) -> Failure:
        self._starting = None
        return failure

    def serve(self, references: Collection[str]) -> None:
        """
        Acquire a process and import the modules of ``references``, repeatedly until that works; calls wait for it.
        """
        self._references.update(references)
        self._serves = True
        self._restart_later()

    def resolve(self, references: Collection[str]) -> Deferred[list[BundleProblem]]:
        """Import and look up; see `harn.vm.interfaces.IInterpreter`."""
        resolving = self._send_resolve(references)

        def resolved(problems: list[BundleProblem]) -> list[BundleProblem]:
            self._references.update(set(references) - {problem.where for problem in problems})
            self._serves = self._serves or not problems
            return problems

        return resolving.addCallback(resolved)

    def _send_resolve(self, references: Collection[str]) -> Deferred[list[BundleProblem]]:
        if self._process is None:
            return succeed(problems_of_death("the interpreter is not running", "", references))
        self._number += 1
        return self._resolves.begin(self._process, self._number, references)

    def begin(self, call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """Begin a call; see `harn.vm.interfaces.IInterpreter`. Who wants it ``alone`` begins no other."""
        self._number += 1
        running = ActiveCall(self._number, call, attempt, endings, self)
        if self._closed:
            running.end(CallInterrupted("the interpreter is closed", suspect=False))
            return running
        if not self.hooks.wanted and call.handler is not None:
            self.hooks.begin()
        if self.up and not self.hooks.holds:
            self._begin(running)
        else:
            self._waiting[running.number] = running
        return running

    def _begin(self, running: ActiveCall) -> None:
        process = self._process
        if process is not None:
            if self._level != threshold.level:
                self._level = threshold.level
                process.send(LogLevel(self._level))
            self._serves = True
            self.calls[running.number] = running
            process.send(begin_frame(running.number, running.call))
            self._deadlines.began(running)

    def exchange(self) -> None:
        """See `harn.vm.interfaces.IInterpreters.exchange`."""
        if self.calls and self._process is not None:
            self._process.exchange()

    def begin_waiting(self) -> None:
        """Begin the waiting calls, if the process accepts them."""
        if self.up and not self.hooks.holds:
            waiting, self._waiting = self._waiting, {}
            for running in waiting.values():
                self._begin(running)

    def send_hooks(self, frame: RunHooks) -> None:
        """Send a frame to the process, if there is one."""
        if self._process is not None:
            self._process.send(frame)

    def importing(self) -> PendingImport | None:
        """Return the import that has not ended; None if none is under way."""
        return self._resolves.importing()

    def close(self) -> Deferred[None]:
        """Interrupt running calls and end the process; fires when it is gone."""
        self._closed = True
        self.up = False
        self._stop()
        self._interrupt_waiting("the interpreter was closed")
        self._interrupt({}, "the interpreter was closed", suspect=False)
        if self._starting is not None:
            starting, self._starting = self._starting, None
            starting.addErrback(lambda _: None).cancel()
        stopped = self.hooks.stop()
        process, self._process = self._process, None
        self._resolves.end("the interpreter was closed")
        self._deadlines.close()

        def end(_: None) -> Deferred[None] | None:
            self.hooks.close()
            return None if process is None else process.close()

        return stopped.addCallback(end)

    def kill(self, why: str) -> None:
        """End the process; it is replaced as after a death."""
        if self._process is not None:
            self._process.kill(why)

    def abandon(self, number: int) -> None:
        """See `harn.vm.calls.Runner.abandon`."""
        if self._waiting.pop(number, None) is None and (running := self.calls.get(number)) is not None:
            self._deadlines.expire(running)

    # Frames from the process

    def frames_received(self, frames: Sequence[FromChild]) -> None:
        """Handle answers and requests; the calls that these end, end together."""
        ended: dict[Endings, list[Ending]] = {}
        for frame in frames:
            if not isinstance(frame, _ENDS):
                self._frame_received(frame)
                continue
            running = self.calls.pop(frame.number, None)
            if running is not None:  # else it was given up before
                outcome = outcome_of(frame) if isinstance(frame, Done) else self._output.error_of(frame)
                ended.setdefault(running.endings, []).extend(running.ending(outcome))
        if ended:
            self._deadlines.loop_turned()
            self._fruitless = 0
        for endings, together in ended.items():
            endings.ended(together)

    def _frame_received(self, frame: FromChild) -> None:
        if isinstance(frame, Printed):
            self._output.printed(frame, self.calls.get(frame.call))
        elif isinstance(frame, SecretRequested):
            if self._process is not None:
                self._output.answer(frame, self.calls.get(frame.call)).addCallback(self._process.send)
        elif isinstance(frame, Queued | Started):
            running = self.calls.get(frame.number)
            if running is not None:
                self._deadlines.queued(running, waits=isinstance(frame, Queued))
        elif isinstance(frame, HooksRan):
            self.hooks.ran(frame)
        elif isinstance(frame, Importing):
            self._resolves.import_began(frame.module)
        elif isinstance(frame, Resolved):
            self.hooks.resolved(exist=frame.has_hooks)
            self._resolves.resolved(frame)

    def pong_received(self, pong: Pong) -> None:
        """Handle the answer to a ping: whether the loop runs, or, while modules are imported, at which line."""
        if pong.number == IMPORTS:
            self._resolves.located(pong.where)
        else:
            self._deadlines.pong_received(pong)

    # For `CallDeadlines`

    def ping(self, number: int) -> None:
        """Check whether the process's loop runs."""
        if self._process is not None:
            self._process.ping(number)

    def cancel(self, running: ActiveCall) -> None:
        """Request the end of a call."""
        if self._process is not None:
            self._process.send(Cancel(running.number))

    def end(self, culprit: ActiveCall | None, why: str, *, suspect: bool) -> None:
        """End the process: ``culprit`` has timed out; the others are interrupted, as suspects or not."""
        self.up = False  # a caller that is notified now may call again immediately
        culprits: dict[int, Exception] = {} if culprit is None else {culprit.number: timed_out(culprit.call)}
        self._interrupt(culprits, why, suspect=suspect)
        self.kill(why)

    # Its end, and its replacement

    def process_gone(self, why: str) -> None:
        """Answer for the calls in the process that is gone, and replace it."""
        self._process = None
        self.up = False
        self.hooks.gone()
        if len(self.calls) == 1:
            (number,) = self.calls
            self._interrupt({number: InterpreterDied(why)}, why, suspect=False)
        else:
            self._interrupt({}, why, suspect=True)
        self._resolves.end(why)
        self._stop()
        if self._serves and not self._closed:
            log.warn("an interpreter is replaced: {why}", why=why)
            self._services.lifecycle.emit(InterpreterRestarted())
            self._restart_later()
        elif not self._closed:
            self._closed = True
            self._interrupt_waiting(why)

    def _restart_later(self) -> None:
        delay = BACKOFFS[min(self._fruitless, len(BACKOFFS) - 1)]
        self._fruitless += 1
        self._timer = self._services.reactor.callLater(delay, self._restart)

    def _restart(self) -> None:
        self._timer = None
        restarting = Deferred.fromCoroutine(self._begin_again())
        restarting.addErrback(lambda failure: log.failure("replacing an interpreter failed", failure=failure))

    async def _begin_again(self) -> None:
        try:
            await self.start()
        except (StageFailed, CancelledError) as error:
            if not self._closed:
                log.error("no interpreter yet, trying again: {error}", error=str(error))
                self._restart_later()
            return
        self.up = False  # not before every module is imported again
        process = self._process
        resolving = self._send_resolve(self._references)
        self._timer = self._services.reactor.callLater(RESOLVE_LIMIT, self.kill, "it took too long to import")
        problems = await resolving
        if process is None or self._process is not process:
            return  # it died meanwhile, and another one is on its way
        self._stop()
        for problem in problems:
            log.error("after a restart: {problem}", problem=str(problem))
        self.up = True
        self.hooks.restarted()
        self.begin_waiting()

    def _stop(self) -> None:
        self._deadlines.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _interrupt(self, own: dict[int, Exception], why: str, *, suspect: bool) -> None:
        """Fail every running call: some with errors of their own, the others as interrupted."""
        calls, self.calls = self.calls, {}
        for number, running in calls.items():
            running.end(own.get(number) or CallInterrupted(why, suspect=suspect))

    def _interrupt_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for running in waiting.values():
            running.end(CallInterrupted(why, suspect=False))
