"""
The times of dispatch: one timer for all waiting retries, which wakes the dispatcher when the earliest is due; and
writes to the store that must be made, however often the event log is unavailable.
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
"""Seconds between tries while the event log is unavailable."""


class Woken(Event, frozen=True, gc=False):
    """A time has come at which something may be due, or may begin."""


class Wakeups:
    """
    Emits `Woken` when the earliest noticed time has come, and at least once a minute until then.

    It comes once for all that was noticed. It may come early: the subscriber must look for itself what is due, and
    notice what is due later.
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
        """Stop waking and noticing."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._lifecycle.emit(Woken())


class _WriteFailed(Exception):
    """A write is to be tried again."""


class Writes:
    """Writes under way; `close` ends those that wait for another try."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._under_way: set[Deferred[Any]] = set()
        self._open = True

    def __len__(self) -> int:
        return len(self._under_way)

    def insist(self, what: str, write: Callable[[], Awaitable[T]]) -> Deferred[T]:
        """
        Call ``write`` until it succeeds.

        :param what: describes it in the log of failures other than `EventLogUnavailable`.
        :return: fires with its result; never, once this is closed.
        """
        if not self._open:
            return Deferred()

        async def attempt() -> T:
            try:
                return await write()
            except Exception as error:
                if not self._open:
                    raise CancelledError from error  # by `close`, while it was being written: not to be tried again
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
        """Try nothing again: what was not written is found again by the next server."""
        self._open = False
        for trying in list(self._under_way):
            trying.cancel()


def _not_written(failure: Any, written: Deferred[Any]) -> None:
    if not failure.check(CancelledError):
        written.errback(failure)
