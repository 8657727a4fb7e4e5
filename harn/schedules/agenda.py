"""The times at which triggers are due, by the wall clock, with one timer for the earliest."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from harn.clocks import BackSteps, WallTime, sleep_until

MOST = 100
"""The most triggers, or events of them, in one turn of the reactor; at midnight thousands may be due."""


class Owner(Protocol):
    """The service that fires or calls the triggers of an `Agenda`."""

    def due(self, trigger_id: str) -> int:
        """
        Called when a trigger is due. The agenda has no time for it until `Agenda.set` is called again.

        :return: the number of events that this made.
        """

    def set_back(self, looked_at: float) -> None:
        """
        Called when the wall clock was set back.

        :param looked_at: the time of the last look at the agenda, on the clock as it is now (seconds, Unix).
        """


class Agenda:
    """Keeps the next time of each trigger, and calls its `Owner` at that time."""

    def __init__(self, clock: IReactorTime, wall: WallTime, owner: Owner) -> None:
        self._clock = clock
        self._wall = wall
        self._owner = owner
        self._steps = BackSteps(clock, wall)
        self._looked_at = clock.seconds()
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with entries that `_times` does not confirm, which do not count
        self._timer: IDelayedCall | None = None
        self._runs = False

    def at(self, trigger_id: str) -> float | None:
        """Return a trigger's next time (seconds, Unix), if it has one."""
        return self._times.get(trigger_id)

    def set(self, trigger_id: str, at: float | None) -> None:
        """Set a trigger's next time (seconds, Unix); None removes the trigger."""
        if at is None:
            self._times.pop(trigger_id, None)
            return
        self._times[trigger_id] = at
        if not self._heap:
            self._look_at_clock()  # for the first time, or after a long one
        heappush(self._heap, (at, trigger_id))
        if self._heap[0] == (at, trigger_id):
            self._set_timer()

    def start(self) -> None:
        """Begin to call the owner."""
        self._runs = True
        self._set_timer()

    def stop(self) -> None:
        """Stop calling the owner."""
        self._runs = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        if self._runs and self._heap:
            self._timer = self._clock.callLater(sleep_until(self._heap[0][0], self._wall), self._look)

    def _look_at_clock(self) -> bool:
        """Return whether the wall clock was set back since the last look."""
        self._looked_at = self._clock.seconds()
        return self._steps.look() > 0

    def _look(self) -> None:
        before = self._looked_at
        is_back = self._look_at_clock()
        now, count = self._wall.seconds(), 0
        if is_back:
            self._owner.set_back(now - (self._looked_at - before))
        while self._heap and self._heap[0][0] <= now and count < MOST:
            at, trigger_id = heappop(self._heap)
            if self._times.get(trigger_id) == at:
                del self._times[trigger_id]
                count += max(1, self._owner.due(trigger_id))
        self._set_timer()
