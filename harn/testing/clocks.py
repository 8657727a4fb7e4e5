"""A wall clock for tests: it goes with a ``Clock``, and is set forward or back where a test says so."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class SteppedWall:
    """
    The time of day of a test, an `harn.clocks.WallTime`.

    :param clock: what drives it, most often the test's ``twisted.internet.task.Clock``.
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
