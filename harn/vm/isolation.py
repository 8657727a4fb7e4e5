"""
Isolation of calls that must run alone: further processes of the same bundle, started when needed, with one call in each
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, fail, gatherResults

from harn.errors import CallInterrupted
from harn.vm.model import Call, Returned
from harn.vm.worker import Worker

MOST_ISOLATED = 4
"""The most processes for isolated calls of one bundle."""
IDLE_LIMIT = 30.0
"""Seconds without a call after which the process is closed."""


class IsolatedWorker:
    """Runs calls one after another."""

    def __init__(self, reactor: Any, make_worker: Callable[[], Worker], references: Collection[str]) -> None:
        """
        Start nothing yet.

        :param references: the references resolved so far; imported before the first call's time runs.
        """
        self.running = 0
        self._reactor = reactor
        self._make_worker = make_worker
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
            self._worker = self._make_worker()
            self._worker.serve(self._references)
        return self._worker.call(call)

    def _over(self, result: Any) -> Any:
        self.running -= 1
        if not self.running and not self._closed:
            self._stop_idling()
            self._idle = self._reactor.callLater(IDLE_LIMIT, self._retire)
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

    def __init__(self, make_isolated: Callable[[], IsolatedWorker]) -> None:
        self._make = make_isolated
        self._isolated: list[IsolatedWorker] = []

    @property
    def running(self) -> int:
        """Number of calls in them, running or waiting."""
        return sum(worker.running for worker in self._isolated)

    def call(self, call: Call) -> Deferred[Returned]:
        """Run ``call`` alone, in the worker with the fewest calls."""
        least = min(self._isolated, key=lambda worker: worker.running, default=None)
        if least is None or (least.running and len(self._isolated) < MOST_ISOLATED):
            least = self._make()
            self._isolated.append(least)
        return least.call(call)

    def close(self) -> Deferred[Any]:
        """Interrupt running calls and end the processes; fires when they are gone."""
        return gatherResults([worker.close() for worker in self._isolated])
