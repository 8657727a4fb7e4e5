"""
The queue of reloads: one runs at a time, the others wait.

Plain requests that come while a reload runs share one following reload, so that every caller gets the report of a
reload that began after it asked. Each runs as a task of its own: a caller that stops waiting does not end it, and only
the server's end cuts it off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock

from harn.errors import ShuttingDown
from harn.reload.report import ReloadReport, ReloadRequest


@define(eq=False)
class Batch:
    """Plain requests that one reload answers."""

    requests: list[ReloadRequest] = field(factory=list)
    answers: list[Deferred[ReloadReport]] = field(factory=list)

    def add(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """Add a request; return a Deferred of its report."""
        self.requests.append(request)
        self.answers.append(Deferred())
        return self.answers[-1]

    def succeed(self, report: ReloadReport) -> None:
        """Answer each request with the report of the reload, with the request's own source and actor."""
        for request, answer in zip(self.requests, self.answers, strict=True):
            answer.callback(evolve(report, source=request.source, actor=request.actor))

    def fail(self, error: BaseException) -> None:
        """Fail each request with the error."""
        for answer in self.answers:
            answer.errback(error)


class ReloadQueue:
    """
    Serialises reloads.

    :ivar following: the batch that waits for the reload before it, if there is one.
    :ivar closed: nothing more runs.
    """

    def __init__(self) -> None:
        self._lock = DeferredLock()
        self._tasks: set[Deferred[Any]] = set()
        self.following: Batch | None = None
        self.closed = False

    def check_open(self) -> None:
        """
        Check that reloads still run.

        :raises ShuttingDown: they do not.
        """
        if self.closed:
            raise ShuttingDown("the server is shutting down; it accepts no reload", retry_after=5)

    def spawn(self, work: Coroutine[Deferred[Any], Any, ReloadReport]) -> Deferred[ReloadReport]:
        """Run a task; return a Deferred of its report. Cancelling that does not end the task."""
        answer: Deferred[ReloadReport] = Deferred()
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def ended(result: Any) -> Any:
            self._tasks.discard(task)
            return result

        task.addBoth(ended).addCallbacks(answer.callback, answer.errback)
        return answer

    def spawn_batch(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run a task that answers its callers itself."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addBoth(lambda _: self._tasks.discard(task))

    def close(self) -> Deferred[None]:
        """Cancel the tasks that run; fire when they have ended."""
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
        return self._lock.run(lambda: None)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """
        Wait for the reloads before, and keep out those behind.

        :raises ShuttingDown: the server ends: no reload begins any more, or the wait or the body was cancelled.
        """
        try:
            await self._lock.acquire()
            try:
                if self.closed:  # the next server decides what was asked of this one
                    raise ShuttingDown("the server is shutting down; ask again", retry_after=5)
                yield
            finally:
                self._lock.release()
        except CancelledError:
            raise ShuttingDown("the server is shutting down; the reload was cut off", retry_after=5) from None
