"""
Keeping the garbage collector away from what lives as long as a generation.

A full collection walks every object of the live generation, and stops every request meanwhile. So after start-up, and
after each adopt, what is alive then is frozen: no collection looks at it again. What dies of it dies by its reference
count, which is why generations hold no cycles. What was garbage already is collected first.
"""

from __future__ import annotations

import gc

from twisted.internet.interfaces import IReactorTime


def freeze() -> None:
    """Collect what is garbage, and let no later collection look at what is not."""
    gc.collect()
    gc.freeze()


class Freezer:
    """Freezes in a turn of its own, once for all adopts that came before it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_due = False

    def soon(self) -> None:
        """Freeze when the turn that adopted is over."""
        if not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._freeze)

    def _freeze(self) -> None:
        self._is_due = False
        freeze()
