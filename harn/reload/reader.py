"""
A reader of files with a thread of its own: a file server that hangs blocks only that thread.

Reads run one after the other. While a file hangs, further reads fail immediately with the name of that file. When the
file server answers again, reading continues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from harn.clocks import WallTime, rfc3339
from harn.errors import FilesHang
from harn.files import Noted, noting

HANGING = 5.0
"""Seconds after which a read that has not ended counts as hanging."""


class _Daemon(Thread):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, daemon=True, **more)


class OneThread(ThreadPool):
    """A pool of one daemon thread: the process can end even if the thread waits for a file for ever."""

    threadFactory = _Daemon  # noqa: N815 - Twisted's name

    def __init__(self, name: str) -> None:
        super().__init__(0, 1, name)


@define(eq=False)
class _Job:
    """
    One read.

    :ivar turn: fires when the read may begin.
    :ivar noted: notes the files that are read.
    :ivar what: the files that are read, for messages that people read.
    :ivar since: when the read began (the reactor's seconds).
    """

    turn: Deferred[None]
    noted: Noted
    what: str
    waiting: Deferred[Any] | None = None
    since: float = 0.0


class FileReader:
    """
    Calls functions that read files, one after the other.

    :param reactor: an ``IReactorThreads`` and ``IReactorTime``.
    :param pool: the pool that runs the functions; None for a thread of the reader's own, started when it is needed.
    :ivar reactor: the reactor, for callers that need the time.
    """

    def __init__(self, reactor: Any, wall: WallTime, pool: Any = None) -> None:
        self.reactor = reactor
        self._wall = wall
        self._pool = pool
        self._own: OneThread | None = None
        self._jobs: deque[_Job] = deque()
        self._running: _Job | None = None

    def read(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        what: str = "files",
        noted: Noted | None = None,
        waits: bool = False,
    ) -> Deferred[Any]:
        """
        Call ``function`` in the thread. Cancelling ends the wait; a call that runs already continues.

        :param what: a name for the files, for messages that people read; files that are read through `harn.files` are
            named by their paths.
        :param noted: notes the files that are read.
        :param waits: if True, wait for a file that hangs, without a limit.
        :raises FilesHang: a file hangs.
        """
        hanging = "" if waits else self.hanging()
        if hanging:
            return fail(FilesHang(hanging))
        noted = Noted(clock=self.reactor) if noted is None else noted
        turn: Deferred[None] = Deferred()
        job = _Job(turn, noted, what)
        waiting = job.waiting = Deferred(lambda _: self._abandon(job))

        def begin(_: None) -> Deferred[Any]:
            return deferToThreadPool(self.reactor, self._thread(), _call, noted, function, *arguments)

        turn.addCallback(begin).addBoth(self._over, job)
        self._jobs.append(job)
        self._next()
        return waiting

    def doing(self) -> str:
        """Return a text with the file that is being read, and since when; empty if no file is being read."""
        job = self._running
        if job is None:
            return ""
        what, since = job.noted.step or (job.what, job.since)
        age = max(0.0, self.reactor.seconds() - since)
        return f"{what} is being read since {rfc3339(self._wall.seconds() - age)} ({age:.1f} s)"

    def hanging(self) -> str:
        """Return a text with the file that hangs, and since when; empty if no file hangs."""
        job = self._running
        if job is None:
            return ""
        _, since = job.noted.step or (job.what, job.since)
        if self.reactor.seconds() - since < HANGING:
            return ""
        return f"{self.doing()}: the file system does not answer; nothing else is read until it does"

    def close(self) -> None:
        """End the thread; if a file hangs, it ends with the process instead."""
        own, self._own = self._own, None
        if own is not None and self._running is None:
            own.stop()

    def _abandon(self, job: _Job) -> None:
        job.waiting = None
        if job in self._jobs:
            self._jobs.remove(job)
            job.turn = Deferred()  # the old one's callbacks hold the job, and what it would have read

    def _next(self) -> None:
        if self._running is not None or not self._jobs:
            return
        job = self._running = self._jobs.popleft()
        job.since = self.reactor.seconds()
        job.turn.callback(None)

    def _thread(self) -> Any:
        if self._pool is not None:
            return self._pool
        if self._own is None:
            self._own = OneThread("files")
            self._own.start()
        return self._own

    def _over(self, result: Any, job: _Job) -> None:
        self._running = None
        waiting, job.waiting = job.waiting, None
        if waiting is not None:
            waiting.callback(result)
        self._next()


def _call(noted: Noted, function: Callable[..., Any], *arguments: Any) -> Any:
    with noting(noted):
        return function(*arguments)
