"""The next firings of many schedules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

from msgspec import Struct

from harn.connectors.schedule import UTC, Schedule


class Timed(Struct, frozen=True, kw_only=True):
    """
    The schedule of one trigger.

    :ivar after: only ticks after this time are listed (seconds, Unix).
    :ivar delay: the seconds that each firing is later than its tick.
    :ivar schedule: the schedule as people read it, in the time zone ``timezone``.
    """

    trigger_id: str
    times: Schedule
    after: float
    delay: float = 0.0
    schedule: str
    timezone: str = UTC

    def following(self, after: float) -> Iterator[Upcoming]:
        """Yield the first firing after a time of the schedule (seconds, Unix), if there is one."""
        found = self.times.following(after)
        if found is not None:
            yield Upcoming(found + self.delay, self.trigger_id, found)


class Upcoming(Struct, frozen=True, order=True):
    """A future firing: ``at`` is its time with the delay (seconds, Unix), ``tick_at`` its time in the schedule."""

    at: float
    trigger_id: str
    tick_at: float


def upcoming(schedules: Iterable[Timed]) -> Iterator[Upcoming]:
    """Yield the future firings in order, without end unless every schedule ends."""
    of = {each.trigger_id: each for each in schedules}
    heap = [found for each in of.values() for found in each.following(each.after)]
    heapify(heap)
    while heap:
        first = heappop(heap)
        yield first
        for following in of[first.trigger_id].following(first.tick_at):
            heappush(heap, following)
