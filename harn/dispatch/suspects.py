"""
Suspects: waiting deliveries that were running when a server crashed. With more crashes, fewer others run beside them.

So a delivery that crashes the server affects fewer others each time, until it runs alone. Nothing here is durable; the
row of each delivery holds its number of crashes. Suspects must not delay other deliveries for long: neither one that
runs for an hour, nor one that waits to run alone until a long handler has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.queue import Queue
from harn.dispatch.timers import Wakeups

ALONE_FROM = 3
"""A delivery with at least this many crashes runs alone, after all others."""
MOST_AT_ONCE = 8
"""The most suspects with fewer crashes that run at the same time; they begin before deliveries without crashes."""
LONGEST_WAIT = 60.0
"""Seconds that a suspect waits to run alone while others begin; after that no other begins before it."""
LONGEST_HOLD = 30.0
"""Seconds that others are held back while a suspect waits to run alone, or runs alone: the default handler time-out."""


class Suspects:
    """
    Two lines beside the queues: suspects that may run beside other deliveries, and suspects that must run alone.

    :param clock: a clock whose time does not jump.
    :ivar concern: whether a suspect waits here or runs alone; if not, the scheduler need not call these methods.
    """

    def __init__(self, clock: IReactorTime, wakeups: Wakeups) -> None:
        self._clock = clock
        self._wakeups = wakeups
        self._some: deque[Delivery] = deque()
        self._alone: deque[Delivery] = deque()
        self._since = 0.0
        self._begun: set[int] = set()
        self._runs_alone: int | None = None
        self._held_until = 0.0
        self.concern = False

    def __len__(self) -> int:
        return len(self._some) + len(self._alone)

    def add(self, delivery: Delivery, *, first: bool = False) -> None:
        """
        Add a suspect that its queue counts as waiting.

        :param first: whether it is put before the others of its line.
        """
        delivery.become(Phase.QUEUED)
        self.concern = True
        line = self._alone if delivery.crashes >= ALONE_FROM else self._some
        if first:
            line.appendleft(delivery)
        else:
            line.append(delivery)
        if line is self._alone and len(line) == 1:
            self._since = self._clock.seconds()
            self._plan()

    def remove(self, queue: Queue, only: Delivery | None = None) -> None:
        """Remove all suspects of a queue, or only the one given."""

        def stays(delivery: Delivery) -> bool:
            return delivery.queue is not queue or (only is not None and delivery is not only)

        if self.concern:
            self._some = deque(filter(stays, self._some))
            self._alone = deque(filter(stays, self._alone))
            self._plan()

    def pop(self, running: Collection[int]) -> Delivery | None:
        """
        Return the next suspect that may run beside others, removed from its line; None if there is none.

        :param running: the ids of the running deliveries.
        """
        if not self._some:
            return None
        self._begun = {delivery_id for delivery_id in self._begun if delivery_id in running}
        if len(self._begun) >= MOST_AT_ONCE or self.holds_others_back(running):
            return None
        delivery = _take(self._some)
        if delivery is not None:
            self._begun.add(delivery.delivery_id)
        return delivery

    def pop_alone(self, running: Collection[int]) -> Delivery | None:
        """Return the next suspect that must run alone, if nothing else runs or it has waited for the longest time."""
        if not self._alone or self._runs_alone in running:
            return None
        now = self._clock.seconds()
        if running and now < self._since + LONGEST_WAIT + LONGEST_HOLD:
            return None
        delivery = _take(self._alone)
        if delivery is not None:
            self._runs_alone, self._since, self._held_until = delivery.delivery_id, now, now + LONGEST_HOLD
            self._plan()
        return delivery

    def holds_others_back(self, running: Collection[int]) -> bool:
        """Return whether no other delivery may begin, since a suspect runs alone or has waited too long for that."""
        if self._runs_alone in running:
            return self._clock.seconds() < self._held_until
        if self._runs_alone is not None:
            self._runs_alone = None
            self._since = self._clock.seconds()
            self._plan()
        self.concern = bool(self._some or self._alone)
        waits = any(_may_begin(delivery) for delivery in self._alone)
        return waits and self._clock.seconds() >= self._since + LONGEST_WAIT

    def _plan(self) -> None:
        """Wake the dispatcher at the next of the times above, since no other event may wake it."""
        times = [self._held_until] if self._runs_alone is not None else []
        if self._alone:
            times += (self._since + LONGEST_WAIT, self._since + LONGEST_WAIT + LONGEST_HOLD)
        now = self._clock.seconds()
        ahead = [at for at in times if at > now]
        if ahead:
            self._wakeups.wake_within(min(ahead) - now)

    def look_again(self) -> None:
        """Called when the dispatcher wakes, perhaps at a planned time; plan the next one."""
        if self.concern:
            self._plan()


def _may_begin(delivery: Delivery) -> bool:
    share = delivery.queue.share
    return delivery.queue.is_open and share.held is None and share.running < share.limit


def _take(line: deque[Delivery]) -> Delivery | None:
    """Remove and return the first delivery whose trigger may begin one; return None if there is none."""
    for delivery in line:
        if _may_begin(delivery):
            line.remove(delivery)
            return delivery
    return None
