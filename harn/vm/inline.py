"""
Interpreters inside the server's process, for debugging: one thread with its own asyncio loop for each, which cannot be
killed.

Everything runs on that thread, plain functions too, so that ``breakpoint()`` finds the terminal and no other code in
the way. A call that is stuck cannot be ended: it is reported with its stack, and its attempt fails.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import traceback
from collections.abc import Collection, Sequence
from functools import cache
from threading import Thread, current_thread
from typing import Any
from weakref import WeakSet

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from harn.errors import CallInterrupted
from harn.model.exchange import Endings, Running
from harn.model.references import FunctionReference
from harn.observability.logs import threshold
from harn.vm.bundle import Bundle
from harn.vm.calls import ActiveCall, begin_frame, load_frame, outcome_of, problem_of_flaw, timed_out
from harn.vm.child.forks import abandon_loop, end_copy, watch_forks
from harn.vm.child.output import capture_records, set_level
from harn.vm.child.session import ChildSession
from harn.vm.frames import (
    Cancel,
    Done,
    Failed,
    FromChild,
    HooksRan,
    Printed,
    Resolve,
    Resolved,
    RunHooks,
    SecretRequested,
    ToChild,
)
from harn.vm.handler_output import HandlerOutput, Printing
from harn.vm.hooks import OpenInterpreters, StartStop
from harn.vm.interfaces import Call, IInterpreter, IInterpreters, ISecrets, PendingImport
from harn.vm.sources import BundleProblem

log = Logger(namespace="harn.vm")

CLOSE_GRACE = 2.0
"""Seconds that a thread has to end before it is reported and abandoned."""

_numbers = itertools.count(1)
_interpreters: WeakSet[InlineInterpreter] = WeakSet()


@cache
def _prepare_process() -> None:
    watch_forks(_interpreters)
    capture_records(None)


@implementer(IInterpreter)
class InlineInterpreter:
    """One bundle's interpreter, on a thread of the server."""

    def __init__(self, reactor: Any, output: HandlerOutput, bundle: Bundle, neighbours: OpenInterpreters) -> None:
        self.bundle_id = bundle.bundle_id
        self._reactor = reactor
        self._output = output
        self._neighbours = neighbours
        self._number = 0
        self._calls: dict[int, tuple[ActiveCall, Any]] = {}
        self._resolving: dict[int, Deferred[Sequence[BundleProblem]]] = {}
        self._closing = False
        self._ended = False
        self._grace: Any = None
        self._waiters: list[Deferred[None]] = []
        self._held: list[ActiveCall] = []
        self._hooks = StartStop(reactor, self)
        self._loop = asyncio.new_event_loop()
        # A package of its own for the modules, so that no other interpreter's meet them in sys.modules.
        prefix = f"_harn_inline_{next(_numbers)}"
        self._session = ChildSession(self._loop, self, threads=None, prefix=prefix)
        self._thread = Thread(target=self._run, name=prefix, daemon=True)
        _prepare_process()
        _interpreters.add(self)
        self._thread.start()
        self._send(load_frame(bundle))

    @property
    def running(self) -> int:
        """Number of calls in it."""
        return len(self._calls) + len(self._held)

    def runs_here(self) -> bool:
        """Return whether this thread runs its calls."""
        # Not by the thread's number, which may be that of an earlier thread that has ended.
        return self._thread is current_thread()

    def abandon_copy(self) -> None:
        """Close the loop's descriptors, in a process that a handler forked."""
        abandon_loop(self._loop)

    # For its owner

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """See `IInterpreter`; cancelling ends the waiting, not the import."""
        self._number += 1
        number = self._number
        answered: Deferred[Sequence[BundleProblem]] = Deferred(lambda _: self._stop_waiting(number))
        self._resolving[number] = answered
        self._send(Resolve(number, sorted(str(reference) for reference in references)))
        return answered

    def _stop_waiting(self, number: int) -> None:
        self._resolving.pop(number, None)

    def begin(self, call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """See `IInterpreter`; ``alone`` has no meaning here, where nothing can die."""
        self._number += 1
        running = ActiveCall(self._number, call, attempt, endings, self)
        if self._closing:
            running.end(CallInterrupted("the interpreter is closed", suspect=False))
            return running
        self._held.append(running)
        if not self._hooks.wanted and call.handler is not None:
            self.serve()
        if not self._hooks.holds:
            self.begin_waiting()
        return running

    def begin_waiting(self) -> None:
        """Begin the calls that waited for the start hooks."""
        held, self._held = self._held, []
        set_level(threshold.level)
        for running in held:
            timer = self._reactor.callLater(running.call.timeout, self._overdue, running.number)
            self._calls[running.number] = running, timer
            self._send(begin_frame(running.number, running.call))

    @property
    def hook_failures(self) -> Sequence[str]:
        """See `IInterpreter`."""
        return self._hooks.failures

    def serve(self) -> Deferred[Sequence[str]]:
        """See `IInterpreter`."""
        return self._hooks.begin(self._neighbours)

    @property
    def is_closing(self) -> bool:
        """Whether it is closing."""
        return self._closing

    def try_hooks_again(self) -> None:
        """Run the start hooks that failed again."""
        self._hooks.again()

    def importing(self) -> PendingImport | None:
        """See `IInterpreter`."""
        return PendingImport(f"modules are still being imported, at:\n{self._stack()}") if self._resolving else None

    def is_up(self) -> bool:
        """See `IInterpreter`."""
        return not self._closing

    def close(self) -> Deferred[None]:
        """See `IInterpreter`; a thread that does not end is reported and abandoned."""
        gone: Deferred[None] = Deferred()
        if self._ended:
            gone.callback(None)
            return gone
        self._waiters.append(gone)
        if self._closing:
            return gone
        self._closing = True
        for number in list(self._calls):
            running = self._pop(number)
            if running is not None:
                running.end(CallInterrupted("the interpreter was closed", suspect=False))
        held, self._held = self._held, []
        for running in held:
            running.end(CallInterrupted("the interpreter was closed", suspect=False))
        self._hooks.stop().addBoth(self._end)
        return gone

    def _end(self, _: object) -> None:
        self._grace = self._reactor.callLater(CLOSE_GRACE, self._left_behind)
        self._loop.call_soon_threadsafe(self._stop)

    def abandon(self, number: int) -> None:
        """See `harn.vm.calls.Runner.abandon`."""
        self._held = [running for running in self._held if running.number != number]
        if self._pop(number) is not None:
            self._send(Cancel(number))

    def _pop(self, number: int) -> ActiveCall | None:
        entry = self._calls.pop(number, None)
        if entry is None:
            return None
        running, timer = entry
        if timer.active():
            timer.cancel()
        return running

    def _active(self, number: int) -> ActiveCall | None:
        entry = self._calls.get(number)
        return None if entry is None else entry[0]

    def _overdue(self, number: int) -> None:
        running = self._pop(number)
        if running is None:
            return
        self._send(Cancel(number))
        error = timed_out(running.call)
        error.traceback = f"its thread is at:\n{self._stack()}"
        running.end(error)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame, limit=20)) if frame is not None else "(no stack)"

    # Between the threads

    def _send(self, frame: ToChild) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._session.handle, frame)

    def send_hooks(self, frame: RunHooks) -> None:
        """Send a frame to the thread."""
        self._send(frame)

    def send(self, frame: FromChild) -> None:
        """Pass a frame of the loop on to the reactor's thread."""
        self._reactor.callFromThread(self._received, frame)

    send_now = send

    def end_programs(self, programs: dict[int, int]) -> None:
        """Kill none: programs of the server's own process are not followed."""

    def _received(self, frame: FromChild) -> None:
        if isinstance(frame, Done):
            running = self._pop(frame.number)
            if running is not None:
                running.end(outcome_of(frame))
        elif isinstance(frame, Failed):
            running = self._pop(frame.number)
            if running is not None:
                running.end(self._output.error_of(frame))
        elif isinstance(frame, Resolved):
            self._hooks.resolved(exist=frame.has_hooks)
            answered = self._resolving.pop(frame.number, None)
            if answered is not None:
                answered.callback([problem_of_flaw(flaw) for flaw in frame.flaws])
        elif isinstance(frame, Printed):
            self._output.printed(frame, self._active(frame.call))
        elif isinstance(frame, SecretRequested):
            self._output.answer(frame, self._active(frame.call)).addCallback(self._send)
        elif isinstance(frame, HooksRan):
            self._hooks.ran(frame)

    # The thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._closing:
                try:
                    self._loop.run_forever()
                    end_copy()
                except (SystemExit, KeyboardInterrupt) as error:
                    end_copy(error)
                    continue  # sys.exit() in a task that a handler started ends only that task
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()
        finally:
            if self._session.scope is not None:
                self._session.scope.remove()
            self._reactor.callFromThread(self._gone)

    def _stop(self) -> None:
        self._loop.stop()

    def _gone(self) -> None:
        if self._ended:
            return
        self._thread.join()
        self._finish_closing()

    def _left_behind(self) -> None:
        log.error("a handler does not end, its thread is abandoned at:\n{stack}", stack=self._stack())
        self._finish_closing()

    def _finish_closing(self) -> None:
        self._ended = True
        self._hooks.close()
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._grace = None
        for answered in self._resolving.values():
            answered.callback([])
        self._resolving.clear()
        self._neighbours.gone(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


@implementer(IInterpreters)
class InlineInterpreters(Service):
    """Makes interpreters in the server's process."""

    def __init__(self, reactor: Any, secrets: ISecrets) -> None:
        """
        Start nothing yet.

        :param reactor: an ``IReactorTime`` and ``IReactorFromThreads``.
        :param secrets: as for `harn.vm.process.ChildInterpreters`.
        """
        self._reactor = reactor
        self._secrets = secrets
        self._printing = Printing(reactor)
        self.open = OpenInterpreters()

    def stopService(self) -> Deferred[None]:
        """Close every interpreter; fires when their threads have ended, or are reported."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._close_all())

    async def _close_all(self) -> None:
        for closing in [interpreter.close() for interpreter in self.open]:
            await closing

    def create(self, bundle: Bundle, *, spare: bool = True) -> Deferred[IInterpreter]:
        """See `IInterpreters`; there is no spare here."""
        output = HandlerOutput(self._secrets, self._printing)
        interpreter = InlineInterpreter(self._reactor, output, bundle, self.open)
        self.open.add(interpreter)
        return succeed(interpreter)

    def exchange(self) -> None:
        """See `IInterpreters`: frames between threads wait for no turn."""

    def try_hooks_again(self) -> None:
        """See `IInterpreters`."""
        self.open.try_hooks_again()
