"""
Timers of dispatch: one timer that wakes the dispatcher at the earliest time that it needs, and writes to the store that
are retried until they succeed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from harn.clocks import WallTime, sleep_until
from harn.errors import EventLogUnavailable
from harn.lifecycle import Event, Lifecycle
from harn.waiting import retry

log = Logger(namespace="harn.dispatch")

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between two tries of a write while the event log is unavailable."""


class Woken(Event, frozen=True, gc=False):
    """A retry may be due, or a delivery may begin, because its time has come."""


class Wakeups:
    """
    Emits `Woken` when the earliest noticed time has come, and at least once a minute until then.

    `Woken` is emitted once for all noticed times that have come. It may come early: the subscriber must check which
    times have come, and notice the others again.
    """

    def __init__(self, clock: IReactorTime, wall: WallTime, lifecycle: Lifecycle) -> None:
        self._clock = clock
        self._wall = wall
        self._lifecycle = lifecycle
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def notice(self, due_at: float) -> None:
        """Wake at ``due_at`` (seconds, Unix), or earlier if something earlier was noticed."""
        self.wake_within(sleep_until(due_at, self._wall))

    def wake_within(self, seconds: float) -> None:
        """Wake after ``seconds`` of the reactor's time, or earlier if something earlier was noticed."""
        if self._stopped:
            return
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._fire)
        elif self._clock.seconds() + seconds < self._timer.getTime():
            self._timer.reset(seconds)

    def stop(self) -> None:
        """Stop the timer, and ignore all further times."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._lifecycle.emit(Woken())


class _WriteFailed(Exception):
    """A write failed and must be retried."""


class Writes:
    """Writes in progress, which are retried until they succeed; `close` ends the retries."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._under_way: set[Deferred[Any]] = set()
        self._open = True

    def __len__(self) -> int:
        return len(self._under_way)

    def insist(self, what: str, write: Callable[[], Awaitable[T]]) -> Deferred[T]:
        """
        Call ``write`` until it succeeds.

        :param what: describes the write in the log, for failures other than `EventLogUnavailable`.
        :return: fires with the result of ``write``; never fires after `close`.
        """
        if not self._open:
            return Deferred()

        async def attempt() -> T:
            try:
                return await write()
            except Exception as error:
                if not self._open:
                    raise CancelledError from error  # `close` cancelled the write: do not retry
                if not isinstance(error, EventLogUnavailable):
                    log.failure("{what} failed, trying again", what=what)
                raise _WriteFailed from error

        trying = Deferred.fromCoroutine(retry(self._clock, attempt, _WriteFailed, pause=INTERVAL))
        self._under_way.add(trying)
        written: Deferred[T] = Deferred()
        trying.addBoth(self._over, trying).addCallbacks(written.callback, _not_written, errbackArgs=(written,))
        return written

    def _over(self, result: object, trying: Deferred[Any]) -> object:
        self._under_way.discard(trying)
        return result

    def close(self) -> None:
        """Stop all retries; the next server finds the deliveries whose writes are missing."""
        self._open = False
        for trying in list(self._under_way):
            trying.cancel()


def _not_written(failure: Any, written: Deferred[Any]) -> None:
    if not failure.check(CancelledError):
        written.errback(failure)
