"""
The scheduler: which delivery begins next.

Triggers take turns. In one turn a trigger begins as many deliveries as its weight, oldest first, whichever version they
are for. So a trigger waits for one turn of each other trigger, no matter how many deliveries those have. A trigger that
has no deliveries, or may begin none, takes no turns and costs no time.

Source: Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1995; each delivery costs one.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IReactorTime

from harn.dispatch.bodies import RunningBodies
from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.places import Places
from harn.dispatch.queue import UNLIMITED, Pace, Queue, Share
from harn.dispatch.queues import Queues
from harn.dispatch.suspects import Suspects
from harn.dispatch.timers import Wakeups
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

FREE_PER_RUNNING = 7
"""The most handlers of one trigger for each free place: of 64 places, a single trigger takes 56, two take 29 each."""


class Scheduler:
    """
    Picks the delivery that begins next, from all queues.

    :ivar max_outstanding: the most handlers that may run at the same time.
    :ivar running: the deliveries whose handler runs, by id.
    :ivar places: divides the limits of triggers among the servers on the store; None if there is only one server.
    :ivar suspects: the deliveries that were running when a server crashed.
    :ivar turns: the triggers that take turns. If it is empty and ``suspects.concern`` is false, no delivery may begin.
    """

    def __init__(
        self, clock: IReactorTime, registry: Registry, queues: Queues, bodies: RunningBodies, wakeups: Wakeups
    ) -> None:
        self._clock = clock
        self._wakeups = wakeups
        self._registry = registry
        self._queues = queues
        self._bodies = bodies
        self.suspects = Suspects(clock, wakeups)
        self.max_outstanding = 64
        self.places: Places | None = None
        self.running: dict[int, Delivery] = {}
        self.turns: deque[Share] = deque()
        self._crowded: dict[Share, None] = {}
        self._cramped: dict[Share, None] = {}

    def apply(self, max_outstanding: int) -> None:
        """Set the most handlers that may run at the same time; called too when limits of triggers may have changed."""
        self.max_outstanding = max_outstanding
        for share in self._queues.shares():
            self.enlist(share)

    def add(self, delivery: Delivery, *, first: bool = False) -> None:
        """
        Add a delivery that its queue counts as waiting.

        :param first: whether it is put before the others of its queue.
        """
        queue, delivery.again = delivery.queue, None
        if delivery.crashes:
            self.suspects.add(delivery, first=first)
        elif first:
            queue.push_first(delivery)
        else:
            queue.push(delivery)
        self.enlist(queue.share)

    def takes_at_once(self, delivery: Delivery, binding: BindingVersion) -> bool:
        """
        Return whether a new delivery may begin at once; if so, count it as begun.

        It may if no trigger waits for a turn, and its trigger has no other delivery waiting, in memory or in the store:
        then it would be the next one anyway.
        """
        queue = delivery.queue
        share = queue.share
        if (
            self.turns
            or self.suspects.concern
            or queue.holder is not binding
            or queue.stored
            or share.count
            or not queue.is_open
            or delivery.large
            or len(self.running) + 1 >= self.max_outstanding  # the trigger that takes the last place must end its turn
            or share.has_found(delivery.delivery_id)
        ):
            return False
        if share.active is not self._registry.active:
            self._read_limits(share)
        if share.pace is not None or not self._may_begin_one(share):
            return False
        queue.begins(delivery)
        return True

    def hold(self, delivery: Delivery) -> None:
        """Count a new delivery in its queue, and add it."""
        delivery.queue.hold(delivery)
        self.add(delivery)

    def enlist(self, share: Share) -> None:
        """Add a trigger to those that take turns, because one of its deliveries may begin."""
        if not share.is_listed:
            share.is_listed = True
            self.turns.append(share)

    def unload(self, queue: Queue) -> list[Delivery]:
        """Remove the deliveries of a queue that have not begun from memory; return them."""
        self.suspects.remove(queue)
        self.enlist(queue.share)  # at its next turn, it stops waiting for room
        return self._queues.unload(queue)

    def remove(self, delivery: Delivery) -> None:
        """Remove a delivery that has not begun, because it is about to be settled."""
        queue = delivery.queue
        if delivery.phase is Phase.QUEUED:
            if delivery.crashes:
                self.suspects.remove(queue, delivery)
            else:
                (queue.large if delivery.large else queue.small).remove(delivery)
        self._queues.withdraw(delivery)
        self._queues.note(queue)
        self.enlist(queue.share)

    def next(self) -> Delivery | None:
        """Return the delivery to begin now, removed from its queue; None if there is none."""
        if len(self.running) >= self.max_outstanding or (not self.turns and not self.suspects.concern):
            return None
        delivery = self._next() if self.suspects.concern else self._in_turn()
        if delivery is not None:
            queue = delivery.queue
            queue.taken(delivery)
            if queue.stored:
                self._queues.note(queue)
        return delivery

    def begun(self, delivery: Delivery) -> None:
        """Count a delivery as running."""
        self.running[delivery.delivery_id] = delivery
        share = delivery.queue.share
        share.running += 1
        if share.pace is not None and not share.pace.begun(self._clock.seconds(), share.unbegun):
            share.pace = None
        self._bodies.begin(delivery)

    def ended(self, delivery: Delivery) -> None:
        """Stop counting a delivery as running; let the triggers take turns that had to wait for it."""
        share = delivery.queue.share
        del self.running[delivery.delivery_id]
        share.running -= 1
        if self.places is not None:
            self.places.ended(share)
        self._bodies.end(delivery)
        if share.count and not share.is_listed:
            self.enlist(share)
        if self._crowded:
            for crowded in self._crowded:
                self.enlist(crowded)
            self._crowded.clear()
        if delivery.large:
            for cramped in list(self._cramped):
                self.enlist(cramped)

    def look_again(self) -> None:
        """Called at a time when a delivery may begin that had to wait for this time."""
        self.suspects.look_again()
        timed, self._queues.timed = self._queues.timed, {}
        for share in timed:
            self.gate_changed(share)

    def gate_changed(self, share: Share) -> None:
        """Read the gates for a trigger again; if they hold it for long, remove its deliveries from memory."""
        before = share.held
        self._queues.ask_gates(share)
        if share.held is None:
            for queue in share.queues.values() if before is not None else ():
                self._queues.note(queue)
            self.enlist(share)
            return
        kept = before is None or before.keeps
        for queue in share.queues.values() if kept and not share.held.keeps else ():
            for delivery in self.unload(queue):
                queue.put_back(delivery)
            self._queues.hungry.pop(queue, None)

    def pace(self, share: Share, rate: float | None) -> None:
        """Begin the waiting deliveries of a trigger at most ``rate`` a second; with None, without a limit."""
        left = share.unbegun
        share.pace = Pace(rate, left, self._clock.seconds()) if rate is not None and left else None
        self.enlist(share)

    def _next(self) -> Delivery | None:
        suspect = self.suspects.pop(self.running)
        if suspect is not None:
            return suspect
        if self.suspects.holds_others_back(self.running):
            return self.suspects.pop_alone(self.running)
        delivery = self._in_turn()
        if delivery is not None or self.running or self._queues.hungry or self._queues.is_reading:
            return delivery
        return self.suspects.pop_alone(self.running)

    def _in_turn(self) -> Delivery | None:
        turns = self.turns
        while turns:
            share = turns[0]
            if share.active is not self._registry.active:
                self._read_limits(share)
            if share.is_spent:
                share.is_spent = False
                turns.rotate(-1)
                continue
            if not share.credit:
                share.credit = share.weight
            delivery = self._first_of(share)
            is_full = len(self.running) + 1 >= self.max_outstanding
            if delivery is None or (share.count == 1 and not is_full):  # no other delivery can follow: its turn ends
                turns.popleft()
                share.is_listed = share.is_spent = False
                share.credit = 0
            else:
                share.credit -= 1
                share.is_spent = not share.credit  # triggers that join until its next turn go before it
            if delivery is not None:
                return delivery
        return None

    def _read_limits(self, share: Share) -> None:
        """Read the weight and the limit of a trigger, which a reload may have changed."""
        share.active = self._registry.active
        newest = self._registry.newest(share.trigger_id)
        if newest is not None:
            share.weight = newest.spec.weight
            limit = newest.spec.max_outstanding or UNLIMITED
            share.limit = limit if self.places is None else self.places.limit(share, limit)

    def _first_of(self, share: Share) -> Delivery | None:
        """Return the oldest delivery of a trigger that may begin, removed from its line; None if none may."""
        small = large = None
        if self._may_begin_one(share):
            small, large = share.first_queues()
        if large is None:
            if self._cramped:
                self._wait_for_no_room(share)
        elif (small is None or large.large[0].delivery_id < small.small[0].delivery_id) and self._fits(
            share, large.large[0]
        ):
            self._wait_for_no_room(share)
            return large.large.popleft()
        if small is not None:
            return small.small.popleft()
        return None

    def _may_begin_one(self, share: Share) -> bool:
        """Return whether a trigger may begin one more delivery, without regard to its body's size."""
        if share.held is not None:
            return False
        if share.running >= share.limit:
            if self.places is not None:
                self.places.wanted(share)
            return False
        if share.pace is not None and not self._is_time(share.pace, share):
            return False
        free = self.max_outstanding - len(self.running)
        if share.running >= FREE_PER_RUNNING * free and len(self._registry.active) > 1:
            self._crowded[share] = None
            return False
        return True

    def _is_time(self, pace: Pace, share: Share) -> bool:
        """Return whether the pace lets the next delivery begin; if not, look again when it does."""
        wait = pace.next_at - self._clock.seconds()
        if wait > 0:
            self._queues.timed[share] = None
            self._wakeups.wake_within(wait)
        return wait <= 0

    def _fits(self, share: Share, delivery: Delivery) -> bool:
        """Return whether a large body fits in memory now; if not, or another trigger waits longer, wait for room."""
        first = next(iter(self._cramped), share)
        if first is share and self._bodies.fits(delivery):
            return True
        self._cramped[share] = None
        return False

    def _wait_for_no_room(self, share: Share) -> None:
        """Remove a trigger from those that wait for room for a large body; let the first of the rest take turns."""
        if share in self._cramped:
            del self._cramped[share]
            for first in self._cramped:
                self.enlist(first)
                break
