"""
Interpreters in child processes, the default: the service that makes them, and the interpreter that callers use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from harn.lifecycle import Lifecycle
from harn.model.references import FunctionReference
from harn.vm.bundle import Bundle
from harn.vm.hooks import try_again, when_closed
from harn.vm.interfaces import IInterpreter, IInterpreters
from harn.vm.isolation import IsolatedWorker, IsolatedWorkers
from harn.vm.model import Call, Returned
from harn.vm.printing import Printing
from harn.vm.secret_requests import SecretReader
from harn.vm.sources import BundleProblem
from harn.vm.spare import Spare
from harn.vm.worker import Worker, WorkerServices


@implementer(IInterpreter)
class ChildInterpreter:
    """One bundle's interpreter: a process for all calls, and sometimes another for a call that must run alone."""

    def __init__(
        self,
        services: WorkerServices,
        bundle: Bundle,
        closed: Callable[[ChildInterpreter], None],
        ending: Callable[[], Deferred[Any]],
    ) -> None:
        """
        Start nothing yet.

        :param closed: called when it is gone; ``ending`` returns a Deferred that fires when those that are closing are
            gone.
        """
        self.bundle_id = bundle.bundle_id
        references = self._references = set[str]()
        self._closed = closed
        self._ending = ending
        self._worker = Worker(services, bundle)
        self._isolated = IsolatedWorkers(
            lambda: IsolatedWorker(services.reactor, lambda: Worker(services, bundle), references)
        )
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

    def call(self, call: Call, *, alone: bool = False) -> Deferred[Returned]:
        """See `IInterpreter`."""
        if alone and self._closing is None:
            return self._isolated.call(call)
        if not self._worker.hooks.wanted and call.handler is not None and self._closing is None:
            self.serve()
        return self._worker.call(call)

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
        return self._worker.hooks.begin(self._ending)

    def try_hooks_again(self) -> None:
        """Run the start hooks that failed again."""
        self._worker.hooks.again()

    def importing(self) -> str:
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
        self._closed(self)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)


@implementer(IInterpreters)
class ChildInterpreters(Service):
    """Makes interpreters from a warm spare; keeps one ready from start to stop."""

    def __init__(self, reactor: Any, secrets: SecretReader, lifecycle: Lifecycle | None = None) -> None:
        """
        Start nothing yet.

        :param reactor: an ``IReactorProcess``, ``IReactorFDSet`` and ``IReactorTime``.
        :param secrets: returns a secret by the trigger's id and the reference's text; may fail with any error, whose
            message the handler gets.
        :param lifecycle: gets an event for each serving process that died or was killed.
        """
        printing = Printing(reactor.seconds)
        emits = Lifecycle() if lifecycle is None else lifecycle
        self.spare = Spare(reactor, printing)
        self._services = WorkerServices(reactor, self.spare.take, secrets, printing, emits)
        self._beside = WorkerServices(reactor, self.spare.beside, secrets, printing, Lifecycle())
        self._open: set[ChildInterpreter] = set()

    def startService(self) -> None:
        """Start the spare."""
        Service.startService(self)
        self.spare.start()

    def stopService(self) -> Deferred[None]:
        """Close the spare and every interpreter; fires when all processes are gone."""
        Service.stopService(self)
        ending = [self.spare.stop(), *(interpreter.close() for interpreter in tuple(self._open))]
        return gatherResults(ending, consumeErrors=True).addCallback(lambda _: None)

    def create(self, bundle: Bundle, *, spare: bool = True) -> Deferred[IInterpreter]:
        """See `IInterpreters`."""
        services = self._services if spare else self._beside
        interpreter = ChildInterpreter(services, bundle, self._interpreter_closed, self._ending)
        self._open.add(interpreter)

        def not_started(failure: Any) -> Any:
            self._open.discard(interpreter)
            return failure

        return interpreter.start().addErrback(not_started)

    def try_hooks_again(self) -> None:
        """See `IInterpreters`."""
        try_again(self._open)

    def _ending(self) -> Deferred[Any]:
        return when_closed(self._open)

    def _interpreter_closed(self, interpreter: ChildInterpreter) -> None:
        self._open.discard(interpreter)
        self.try_hooks_again()
