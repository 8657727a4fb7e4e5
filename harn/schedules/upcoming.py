"""The next firings of many schedules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

from msgspec import Struct

from harn.connectors.schedule import UTC, Schedule


class Timed(Struct, frozen=True, kw_only=True):
    """
    The schedule of one trigger.

    :ivar after: everything up to here is dealt with (seconds, Unix).
    :ivar delay: by how many seconds it is later than its times say.
    :ivar schedule: as people read it, with ``timezone``.
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
    """A firing to come: ``at`` with its delay (seconds, Unix), ``tick_at`` as the schedule says."""

    at: float
    trigger_id: str
    tick_at: float


def upcoming(schedules: Iterable[Timed]) -> Iterator[Upcoming]:
    """Yield the firings to come, in order, for ever unless every schedule ends."""
    of = {each.trigger_id: each for each in schedules}
    heap = [found for each in of.values() for found in each.following(each.after)]
    heapify(heap)
    while heap:
        first = heappop(heap)
        yield first
        for following in of[first.trigger_id].following(first.tick_at):
            heappush(heap, following)
