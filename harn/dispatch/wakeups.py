"""One timer for all waiting retries: it wakes the dispatcher when the earliest is due."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from harn.clocks import WallTime, sleep_until


class Wakeups:
    """
    Calls ``wake`` when the earliest noticed time has come, and at least once a minute until then.

    ``wake`` is called once for all that was noticed. It may be called early: it must look for itself what is due, and
    notice what is due later.
    """

    def __init__(self, clock: IReactorTime, wall: WallTime, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wall = wall
        self._wake = wake
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
        """Wake no more, and notice nothing more."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._wake()
