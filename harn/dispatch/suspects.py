"""
Deliveries that were running when a server crashed, and wait to run again: the fewer beside them, the more often it was.

The delivery that kills the server affects fewer others each time, until it runs alone. Nothing here is durable: each
row has its number of crashes. And nothing here may delay the others for long: neither one that runs for an hour, nor
one that waits for such a one to end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.queue import Queue
from harn.dispatch.timers import Wakeups

ALONE_FROM = 3
"""Crashes from which on a delivery runs alone, behind all others."""
MOST_AT_ONCE = 8
"""How many that have seen fewer run at the same time, before what has seen none."""
LONGEST_WAIT = 60.0
"""Seconds that one may wait to run alone while others come; then nothing else is begun before it."""
LONGEST_HOLD = 30.0
"""Seconds that others are held back for one that waits to run alone, and one that does: a handler's default time."""


class Suspects:
    """
    Two lines beside the queues: of those that may run beside others, and of those that may not.

    :param clock: whose time does not jump.
    :ivar concern: whether any waits here or runs alone; while none does, nothing here need be called.
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
        """Add one that has seen a crash, and that its queue counts; ``first``: before the others of its kind."""
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
        """Remove all deliveries of a queue, or one of them."""

        def stays(delivery: Delivery) -> bool:
            return delivery.queue is not queue or (only is not None and delivery is not only)

        if self.concern:
            self._some = deque(filter(stays, self._some))
            self._alone = deque(filter(stays, self._alone))
            self._plan()

    def pop(self, running: Collection[int]) -> Delivery | None:
        """Return the next that may run beside others; ``running`` are the ids of what runs."""
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
        """Return the next that must run alone, once nothing else runs; or what runs has not ended for so long."""
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
        """Return whether one runs alone, or has waited so long for it that nothing else may be begun."""
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
        """Look again when the next of the times above has come, though nothing else may happen then."""
        times = [self._held_until] if self._runs_alone is not None else []
        if self._alone:
            times += (self._since + LONGEST_WAIT, self._since + LONGEST_WAIT + LONGEST_HOLD)
        now = self._clock.seconds()
        ahead = [at for at in times if at > now]
        if ahead:
            self._wakeups.wake_within(min(ahead) - now)

    def look_again(self) -> None:
        """Called when a time has come, perhaps one of those planned."""
        if self.concern:
            self._plan()


def _may_begin(delivery: Delivery) -> bool:
    share = delivery.queue.share
    return delivery.queue.is_open and share.held is None and share.running < share.limit


def _take(line: deque[Delivery]) -> Delivery | None:
    """Remove and return the first delivery whose trigger may begin one."""
    for delivery in line:
        if _may_begin(delivery):
            line.remove(delivery)
            return delivery
    return None
