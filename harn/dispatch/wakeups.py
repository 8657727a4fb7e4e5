"""One timer for all waiting retries: it wakes the dispatcher when the earliest is due."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from harn.clocks import WallTime, sleep_until
from harn.lifecycle import Event, Lifecycle


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
        """Wake no more, and notice nothing more."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _fire(self) -> None:
        self._timer = None
        self._lifecycle.emit(Woken())
