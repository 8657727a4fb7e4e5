"""One timer for all waiting retries: it wakes the dispatcher when the earliest is due."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LONGEST_SLEEP = 60.0
"""Seconds after which the clock is looked at again, so that a step of the wall clock is noticed."""


class Wakeups:
    """
    Calls ``wake`` when the earliest noticed time has come.

    Times are Unix seconds. ``wake`` may be called early, and must look for itself what is due.
    """

    def __init__(self, clock: IReactorTime, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._due_at: float | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def notice(self, due_at: float) -> None:
        """Wake at ``due_at``, or earlier if an earlier time was noticed."""
        if not self._stopped and (self._due_at is None or due_at < self._due_at):
            self._due_at = due_at
            self._arm(due_at)

    def stop(self) -> None:
        """Forget everything, and notice nothing more."""
        self._stopped = True
        self._due_at = None
        self._disarm()

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self, due_at: float) -> None:
        self._disarm()
        wait = min(max(0.0, due_at - self._clock.seconds()), LONGEST_SLEEP)
        self._timer = self._clock.callLater(wait, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._due_at is not None and self._due_at > self._clock.seconds():
            self._arm(self._due_at)
            return
        self._due_at = None
        self._wake()
