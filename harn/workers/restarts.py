"""When a worker that has ended is started again: a pure decision."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

STABLE = 30.0
"""Seconds after which the end of a worker says nothing about its next start."""
FIRST, LONGEST = 0.5, 30.0
"""Seconds until the first start again, and at most."""


class Restarts(Struct, frozen=True):
    """
    The ends of one worker.

    :ivar short_lives: how many times in a row it ended within `STABLE` seconds of its start.
    """

    short_lives: int = 0

    def after(self, lived: float) -> Restarts:
        """
        Return the ends with one more.

        :param lived: seconds from its start to its end.
        """
        return replace(self, short_lives=0 if lived >= STABLE else self.short_lives + 1)

    @property
    def pause(self) -> float:
        """Return the seconds until it is started again."""
        # The exponent is bounded, since a worker may fail for months.
        return min(LONGEST, FIRST * 2.0 ** min(10, max(0, self.short_lives - 1)))
