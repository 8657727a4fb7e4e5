"""Time for tests: a wall clock that is set forward or back, and a clock with a thread pool that the test holds."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from harn.waiting import ReactorThreads

START = 1_700_000_000.0
"""Seconds, Unix: when a `ThreadClock` begins."""


class SteppedWall:
    """
    The time of day of a test, an `harn.clocks.WallTime`.

    :param clock: the clock that drives it, most often the test's ``twisted.internet.task.Clock``.
    :param ahead: seconds by which it is ahead of ``clock``.
    """

    def __init__(self, clock: IReactorTime, ahead: float = 0.0) -> None:
        self._clock = clock
        self._ahead = ahead

    def seconds(self) -> float:
        """Return the time of day (seconds, Unix)."""
        return self._clock.seconds() + self._ahead

    def step(self, seconds: float) -> None:
        """Set it forward, or, by a negative number of seconds, back; the ``Clock`` does not notice."""
        self._ahead += seconds


class HeldPool:
    """A thread pool without threads: it runs calls immediately, or, while ``held``, on `release`."""

    def __init__(self) -> None:
        self.held = False
        self._waiting: deque[tuple[Any, Any, tuple[Any, ...], dict[str, Any]]] = deque()

    def callInThreadWithCallback(self, done: Any, function: Any, *args: Any, **more: Any) -> None:
        """See `twisted.python.threadpool.ThreadPool`."""
        if self.held:
            self._waiting.append((done, function, args, more))
        else:
            self._run(done, function, args, more)

    def release(self) -> None:
        """Run every call that waits, and run further calls immediately."""
        self.held = False
        while self._waiting:
            self._run(*self._waiting.popleft())

    @staticmethod
    def _run(done: Any, function: Any, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        try:
            result = function(*args, **more)
        except BaseException:
            done(False, Failure())
        else:
            done(True, result)


class NoThreads(ReactorThreads):
    """Runs calls immediately, where others run them in threads."""

    def __init__(self) -> None:
        super().__init__(None)

    def call(self, function: Any, /, *arguments: Any) -> Deferred[Any]:
        """See `ReactorThreads.call`."""
        return maybeDeferred(function, *arguments)


class ThreadClock(Clock):
    """A clock with a `HeldPool`, which runs calls "from a thread" immediately."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = HeldPool()
        self.advance(START)

    def getThreadPool(self) -> HeldPool:
        """See `IReactorThreads`."""
        return self.pool

    def callFromThread(self, function: Any, *args: Any, **more: Any) -> None:
        """See `IReactorFromThreads`."""
        function(*args, **more)
