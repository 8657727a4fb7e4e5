"""
Deliveries that were running when a server crashed, and wait to run again: the fewer beside them, the more often it was.

The delivery that kills the server affects fewer others each time, until it runs alone. Nothing here is durable: each
row has its number of crashes. And nothing here may delay the others for long: neither one that runs for an hour, nor
one that waits for such a one to end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from harn.dispatch.delivery import Delivery

ALONE_FROM = 3
"""Crashes from which on a delivery runs alone, behind all others."""
MOST_AT_ONCE = 8
"""How many that have seen fewer run at once, before what has seen none."""
LONGEST_WAIT = 60.0
"""Seconds that one may wait to run alone while others come; then nothing else is begun before it."""
LONGEST_HOLD = 30.0
"""Seconds that others are held back for one that waits to run alone, and one that does: a handler's default time."""


class Suspects:
    """
    Two queues: those that may run beside others, and those that may not.

    :param clock: whose time does not jump.
    :param go_on: called when others, held back until now, may begin.
    :ivar concern: whether any waits here or runs alone; while none does, `pop`, `pop_alone` and `holds_others_back`
        have nothing to say, and need not be asked.
    """

    def __init__(self, clock: IReactorTime, go_on: Callable[[], None]) -> None:
        self._clock = clock
        self._go_on = go_on
        self._some: deque[Delivery] = deque()
        self._alone: deque[Delivery] = deque()
        self._since = 0.0
        self._begun: set[int] = set()
        self._runs_alone: int | None = None
        self._held_until = 0.0
        self._timer: IDelayedCall | None = None
        self.concern = False

    def __len__(self) -> int:
        return len(self._some) + len(self._alone)

    def __iter__(self) -> Iterator[Delivery]:
        yield from self._some
        yield from self._alone

    def add(self, delivery: Delivery, *, first: bool = False) -> None:
        """Add one that has seen a crash; ``first``: before the others of its kind."""
        self.concern = True
        queue = self._alone if delivery.crashes >= ALONE_FROM else self._some
        if first:
            queue.appendleft(delivery)
        else:
            queue.append(delivery)
        if queue is self._alone and len(queue) == 1:
            self._since = self._clock.seconds()
            self._plan()

    def remove(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove all deliveries that ``wanted`` picks."""
        taken = [delivery for delivery in self if wanted(delivery)]
        if taken:
            self._some = deque(delivery for delivery in self._some if not wanted(delivery))
            self._alone = deque(delivery for delivery in self._alone if not wanted(delivery))
            self._plan()
        return taken

    def pop(self, running: Collection[int]) -> Delivery | None:
        """Return the next that may run beside others; ``running`` are the ids of what runs."""
        if not self._some:
            return None
        self._begun = {delivery_id for delivery_id in self._begun if delivery_id in running}
        if len(self._begun) >= MOST_AT_ONCE or self.holds_others_back(running):
            return None
        delivery = self._some.popleft()
        self._begun.add(delivery.delivery_id)
        return delivery

    def pop_alone(self, running: Collection[int]) -> Delivery | None:
        """Return the next that must run alone, once nothing else runs; or what runs has not ended for so long."""
        if not self._alone or self._runs_alone in running:
            return None
        now = self._clock.seconds()
        if running and now < self._since + LONGEST_WAIT + LONGEST_HOLD:
            return None
        delivery = self._alone.popleft()
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
        return bool(self._alone) and self._clock.seconds() >= self._since + LONGEST_WAIT

    def close(self) -> None:
        """Plan nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        """Look again when the next of the times above has come, though nothing else may happen then."""
        self.close()
        times = [self._held_until] if self._runs_alone is not None else []
        if self._alone:
            times += (self._since + LONGEST_WAIT, self._since + LONGEST_WAIT + LONGEST_HOLD)
        now = self._clock.seconds()
        ahead = [at for at in times if at > now]
        if ahead:
            self._timer = self._clock.callLater(min(ahead) - now, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._go_on()
        if self._timer is None:
            self._plan()
