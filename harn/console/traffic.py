"""Counts of the last minutes, from lifecycle events: deliveries accepted and ended each second, and their durations."""

from __future__ import annotations

from bisect import bisect_left

from msgspec import Struct

from harn.clocks import WallTime
from harn.lifecycle import Accepted, Lifecycle, Settled
from harn.model.delivery import DONE

SPAN = 300
"""Seconds that are kept."""
RECENT = 60
"""Seconds over which rates and percentiles are said."""
STEP = 5
"""Seconds of one point of a plot."""
BOUNDS = tuple(0.001 * 1.25**power for power in range(64))
"""Upper bounds of the classes of durations (seconds): 1 ms to 21 min, each a quarter longer than the previous one."""


class Rates(Struct, frozen=True, kw_only=True):
    """
    The last minutes. Rates are per second.

    :ivar accepted: one rate for each `STEP`, the oldest first; so ``done`` and ``failed``.
    :ivar p50: seconds from the receipt of an event to the success of its delivery; None where none succeeded.
    """

    accepted: tuple[float, ...]
    done: tuple[float, ...]
    failed: tuple[float, ...]
    accepted_now: float
    done_now: float
    p50: float | None
    p95: float | None


class Traffic:
    """
    Subscribes to deliveries, and keeps counts in a ring of seconds: constant work for each event.

    :ivar changes: rises with each event: whoever reads it again sees whether anything has happened.
    """

    def __init__(self, wall: WallTime, lifecycle: Lifecycle) -> None:
        self._wall = wall
        self.changes = 0
        self._second = int(wall.seconds())
        self._accepted = [0] * SPAN
        self._done = [0] * SPAN
        self._failed = [0] * SPAN
        self._took: list[dict[int, int]] = [{} for _ in range(SPAN)]
        lifecycle.subscribe(Accepted, self._count_accepted)
        lifecycle.subscribe(Settled, self._count_settled)

    def _count_accepted(self, event: Accepted) -> None:
        self._accepted[self._slot()] += len(event.deliveries)
        self.changes += 1

    def _count_settled(self, event: Settled) -> None:
        slot, now = self._slot(), self._wall.seconds()
        took = self._took[slot]
        self.changes += 1
        self._done[slot] += len(event.deliveries) - len(event.others)
        for each in event.deliveries:
            settlement = each.settlement
            if settlement.state is DONE:
                kind = bisect_left(BOUNDS, now - each.received_at)
                took[kind] = took.get(kind, 0) + 1
            elif settlement.attempt is not None and settlement.attempt.error_class is not None:
                self._failed[slot] += 1

    def _slot(self) -> int:
        """Return the place of this second in the ring, after emptying those of the seconds that went by."""
        now = int(self._wall.seconds())
        if now != self._second:
            for second in range(max(self._second, now - SPAN) + 1, now + 1):
                slot = second % SPAN
                self._accepted[slot] = self._done[slot] = self._failed[slot] = 0
                self._took[slot] = {}
            self._second = now
        return now % SPAN

    def rates(self) -> Rates:
        """Return the rates, of whole seconds: the present one does not count yet."""
        self._slot()
        order = [second % SPAN for second in range(self._second - SPAN + STEP, self._second)]
        recent = order[-RECENT:]
        took = [0] * (len(BOUNDS) + 1)
        for slot in recent:
            for kind, number in self._took[slot].items():
                took[kind] += number
        return Rates(
            accepted=_points(self._accepted, order),
            done=_points(self._done, order),
            failed=_points(self._failed, order),
            accepted_now=sum(self._accepted[slot] for slot in recent) / RECENT,
            done_now=sum(self._done[slot] for slot in recent) / RECENT,
            p50=percentile(took, 0.5),
            p95=percentile(took, 0.95),
        )


def _points(counts: list[int], order: list[int]) -> tuple[float, ...]:
    whole = order[len(order) % STEP :]
    return tuple(sum(counts[slot] for slot in whole[at : at + STEP]) / STEP for at in range(0, len(whole), STEP))


def percentile(counts: list[int], share: float) -> float | None:
    """Return the bound below which this share of the counted durations lies (seconds); None where there are none."""
    wanted = share * sum(counts)
    if not wanted:
        return None
    seen = 0
    for kind, number in enumerate(counts):
        seen += number
        if seen >= wanted:
            return BOUNDS[min(kind, len(BOUNDS) - 1)]
    return BOUNDS[-1]
