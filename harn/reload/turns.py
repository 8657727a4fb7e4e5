"""
Turns: one reload at a time, and requests that come meanwhile.

Plain requests that come while a reload runs share one following reload, so that every caller gets the report of a
reload that began after it asked. Each runs as a task of its own: who stops waiting for it does not end it, and only the
server's end cuts it off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail

from harn.errors import ShuttingDown
from harn.reload.report import ReloadReport, ReloadRequest

Run = Callable[[ReloadRequest, int], Awaitable[ReloadReport]]
"""Runs one reload in its turn, for so many requests that were merged."""


class Turns:
    """Gives out turns. :ivar closed: no more are given."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = DeferredLock()
        self._following: list[tuple[ReloadRequest, Deferred[ReloadReport]]] | None = None
        self._tasks: set[Deferred[Any]] = set()
        self.closed = False

    def ask(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """
        Run a reload for ``request``, alone or with others that ask for the same.

        :raises ShuttingDown: no more turns are given.
        """
        if self.closed:
            return fail(ShuttingDown("the server is shutting down; it reloads no more", retry_after=5))
        if not request.is_plain:
            return self.begin(self._run_alone(request))
        answer: Deferred[ReloadReport] = Deferred()
        if self._following is not None:
            self._following.append((request, answer))
            return answer
        self._following = [(request, answer)]
        self._spawn(self._run_following(self._following))
        return answer

    def begin(self, work: Any) -> Deferred[ReloadReport]:
        """Begin a task; who stops waiting for its report does not end it."""
        answer: Deferred[ReloadReport] = Deferred()
        self._spawn(work).addCallbacks(answer.callback, answer.errback)
        return answer

    def close(self) -> Deferred[None]:
        """Give no more: what runs is cut off, and undone by not being done. Fires when nothing runs."""
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
        return self._lock.run(lambda: None)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Wait for the reloads before, and keep out those behind.

        :raises ShuttingDown: no more turns are given; or the wait, or what was done in the turn, was cut off, which
            only the server's end does.
        """
        try:
            await self._lock.acquire()
            try:
                if self.closed:  # whoever comes next decides what was asked of us
                    raise ShuttingDown("the server is shutting down; ask again", retry_after=5)
                yield
            finally:
                self._lock.release()
        except CancelledError:
            raise ShuttingDown("the server is shutting down; the reload was cut off", retry_after=5) from None

    def _spawn(self, work: Any) -> Deferred[Any]:
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def ended(result: Any) -> Any:
            self._tasks.discard(task)
            return result

        return task.addBoth(ended)

    async def _run_alone(self, request: ReloadRequest) -> ReloadReport:
        async with self.turn():
            return await self._run(request, 1)

    async def _run_following(self, requests: list[tuple[ReloadRequest, Deferred[ReloadReport]]]) -> None:
        try:
            async with self.turn():
                self._following = None
                report = await self._run(requests[0][0], len(requests))
        except BaseException as error:
            self._following = None if self._following is requests else self._following
            for _, answer in requests:
                answer.errback(error)
            return
        for request, answer in requests:
            answer.callback(evolve(report, source=request.source, actor=request.actor))
