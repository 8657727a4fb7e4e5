"""
Keeping the garbage collector away from what lives as long as a generation.

A full collection walks every object of the live generation, and stops every request meanwhile. So after start-up, and
after adopts that brought much that is new, what is alive then is frozen: no collection looks at it again. What dies of
it dies by its reference count, which is why generations hold no cycles. What was garbage already is collected first.

Not after every adopt: what is frozen while it is in use for a moment, and in a cycle (a request that Klein serves, the
last task of a pool's thread), is never freed. A reload that changes one trigger adds less to a collection's work than
such a loss would cost.
"""

from __future__ import annotations

import gc

from twisted.internet.interfaces import IReactorTime

ENOUGH = 500
"""New bindings since the last time for which freezing pays."""


def freeze() -> None:
    """Collect what is garbage, and let no later collection look at what is not."""
    gc.collect()
    gc.freeze()


class Freezer:
    """Freezes in a turn of its own, once for all adopts that came before it; the first time for any."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_due = False
        self._fresh = ENOUGH

    def adopted(self, fresh: int) -> None:
        """
        Freeze when the turn that adopted is over, if that pays.

        :param fresh: how many bindings are new.
        """
        self._fresh += fresh
        if self._fresh >= ENOUGH and not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._freeze)

    def _freeze(self) -> None:
        self._is_due = False
        self._fresh = 0
        freeze()
