"""
Interpreters in child processes, the default: the service that makes them, and the interpreter that callers use.

A call that must run alone gets a further process of the same bundle, started when needed, with one call in it at a
time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, fail, gatherResults
from zope.interface import implementer

from harn.errors import CallInterrupted
from harn.lifecycle import Lifecycle
from harn.model.exchange import Endings, Returned, Running
from harn.model.references import FunctionReference
from harn.vm.bundle import Bundle
from harn.vm.calls import pass_on, run_call
from harn.vm.handler_output import Printing
from harn.vm.hooks import OpenInterpreters
from harn.vm.interfaces import Call, IInterpreter, IInterpreters, ISecrets, PendingImport
from harn.vm.sources import BundleProblem
from harn.vm.spare import Spare
from harn.vm.worker import Worker, WorkerServices


@implementer(IInterpreter)
class ChildInterpreter:
    """One bundle's interpreter: a process for all calls, and sometimes another for a call that must run alone."""

    def __init__(self, services: WorkerServices, bundle: Bundle, neighbours: OpenInterpreters) -> None:
        """Start nothing yet."""
        self.bundle_id = bundle.bundle_id
        self._references: set[str] = set()
        self._neighbours = neighbours
        self._worker = Worker(services, bundle)
        self._isolated = IsolatedWorkers(services, bundle, self._references)
        self._closing: Deferred[Any] | None = None
        self._waiters: list[Deferred[None]] = []

    @property
    def running(self) -> int:
        """Number of calls in it."""
        return self._worker.running + self._isolated.running

    @property
    def pid(self) -> int | None:
        """The process's id; None while it has no process."""
        return self._worker.pid

    def start(self) -> Deferred[IInterpreter]:
        """Acquire a process; fires with this object."""
        return self._worker.start().addCallback(lambda _: self)

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """See `IInterpreter`."""
        names = {str(reference) for reference in references}

        def resolved(problems: list[BundleProblem]) -> Sequence[BundleProblem]:
            self._references |= names - {problem.where for problem in problems}
            return problems

        return self._worker.resolve(names).addCallback(resolved)

    def begin(self, call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """See `IInterpreter`."""
        if self._closing is None:
            if alone:
                return pass_on(self._isolated.call(call), attempt, endings)
            if not self._worker.hooks.wanted and call.handler is not None:
                self.serve()
        return self._worker.begin(call, attempt, endings)

    def exchange(self) -> None:
        """See `IInterpreters.exchange`."""
        self._worker.exchange()

    @property
    def hook_failures(self) -> Sequence[str]:
        """See `IInterpreter`."""
        return self._worker.hooks.failures

    @property
    def is_closing(self) -> bool:
        """Whether it is closing."""
        return self._closing is not None

    def serve(self) -> Deferred[Sequence[str]]:
        """See `IInterpreter`."""
        return self._worker.hooks.begin(self._neighbours)

    def try_hooks_again(self) -> None:
        """Run the start hooks that failed again."""
        self._worker.hooks.again()

    def importing(self) -> PendingImport | None:
        """See `IInterpreter`."""
        return self._worker.importing()

    def is_up(self) -> bool:
        """See `IInterpreter`."""
        return self._worker.up

    def close(self) -> Deferred[None]:
        """See `IInterpreter`."""
        done: Deferred[None] = Deferred()
        self._waiters.append(done)
        if self._closing is None:
            self._closing = gatherResults([self._worker.close(), self._isolated.close()])
            self._closing.addBoth(self._gone)
        elif self._closing.called:
            self._gone(None)
        return done

    def _gone(self, result: object) -> None:
        self._neighbours.gone(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


@implementer(IInterpreters)
class ChildInterpreters(Service):
    """Makes interpreters from a warm spare; keeps one ready from start to stop."""

    def __init__(
        self, reactor: Any, secrets: ISecrets, lifecycle: Lifecycle | None = None, spare: Spare | None = None
    ) -> None:
        """
        Start nothing yet.

        :param reactor: an ``IReactorProcess``, ``IReactorFDSet`` and ``IReactorTime``.
        :param secrets: what handlers ask for secrets.
        :param lifecycle: gets an event for each serving process that died or was killed.
        :param spare: the spare, if its first process was started already.
        """
        self.spare = Spare(reactor, Printing(reactor)) if spare is None else spare
        printing = self.spare.printing
        emits = Lifecycle() if lifecycle is None else lifecycle
        self._services = WorkerServices(reactor, self.spare, secrets, printing, emits)
        self._beside = WorkerServices(reactor, self.spare, secrets, printing, Lifecycle(), uses_spare=False)
        self.open = OpenInterpreters()

    def startService(self) -> None:
        """Start the spare."""
        Service.startService(self)
        self.spare.start()

    def stopService(self) -> Deferred[None]:
        """Close the spare and every interpreter; fires when all processes are gone."""
        Service.stopService(self)
        ending = [self.spare.stop(), *(interpreter.close() for interpreter in self.open)]
        return gatherResults(ending, consumeErrors=True).addCallback(lambda _: None)

    def create(self, bundle: Bundle, *, spare: bool = True) -> Deferred[IInterpreter]:
        """See `IInterpreters`."""
        services = self._services if spare else self._beside
        interpreter = ChildInterpreter(services, bundle, self.open)
        self.open.add(interpreter)

        def not_started(failure: Any) -> Any:
            self.open.discard(interpreter)
            return failure

        return interpreter.start().addErrback(not_started)

    def exchange(self) -> None:
        """See `IInterpreters`."""
        for interpreter in self.open:
            if isinstance(interpreter, ChildInterpreter):
                interpreter.exchange()

    def try_hooks_again(self) -> None:
        """See `IInterpreters`."""
        self.open.try_hooks_again()


MOST_ISOLATED = 4
"""The most processes for isolated calls of one bundle."""
IDLE_LIMIT = 30.0
"""Seconds without a call after which the process is closed."""


class IsolatedWorker:
    """Runs calls one after another."""

    def __init__(self, services: WorkerServices, bundle: Bundle, references: Collection[str]) -> None:
        """
        Start nothing yet.

        :param references: the references resolved so far; imported before the first call's time runs.
        """
        self.running = 0
        self._services = services
        self._bundle = bundle
        self._references = references
        self._worker: Worker | None = None
        self._turn = DeferredLock()
        self._idle: Any = None
        self._closed = False

    def call(self, call: Call) -> Deferred[Returned]:
        """Run ``call`` when the earlier ones have ended."""
        self.running += 1
        returned: Deferred[Returned] = self._turn.run(self._run, call)
        return returned.addBoth(self._over)

    def close(self) -> Deferred[None]:
        """Interrupt the running call and end the process; fires when it is gone."""
        self._closed = True
        self._stop_idling()
        worker, self._worker = self._worker, None
        if worker is None:
            gone: Deferred[None] = Deferred()
            gone.callback(None)
            return gone
        return worker.close()

    def _run(self, call: Call) -> Deferred[Returned]:
        self._stop_idling()
        if self._closed:
            return fail(CallInterrupted("the interpreter is closed", suspect=False))
        if self._worker is None:
            self._worker = Worker(self._services, self._bundle)
            self._worker.serve(self._references)
        return run_call(self._worker, call)

    def _over(self, result: Any) -> Any:
        self.running -= 1
        if not self.running and not self._closed:
            self._stop_idling()
            self._idle = self._services.reactor.callLater(IDLE_LIMIT, self._retire)
        return result

    def _retire(self) -> None:
        self._idle = None
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


class IsolatedWorkers:
    """A few isolated workers, so that a slow call delays no other suspect; each is made when all others are in use."""

    def __init__(self, services: WorkerServices, bundle: Bundle, references: Collection[str]) -> None:
        """Start nothing yet; the parameters are those of `IsolatedWorker`."""
        self._services = services
        self._bundle = bundle
        self._references = references
        self._isolated: list[IsolatedWorker] = []

    @property
    def running(self) -> int:
        """Number of calls in them, running or waiting."""
        return sum(worker.running for worker in self._isolated)

    def call(self, call: Call) -> Deferred[Returned]:
        """Run ``call`` alone, in the worker with the fewest calls."""
        least = min(self._isolated, key=lambda worker: worker.running, default=None)
        if least is None or (least.running and len(self._isolated) < MOST_ISOLATED):
            least = IsolatedWorker(self._services, self._bundle, self._references)
            self._isolated.append(least)
        return least.call(call)

    def close(self) -> Deferred[Any]:
        """Interrupt running calls and end the processes; fires when they are gone."""
        return gatherResults([worker.close() for worker in self._isolated])
