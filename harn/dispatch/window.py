"""
The window: what is ready to run and held in memory, bounded; the store is the queue behind it.

Each delivery that does not fit stays in the store, and its binding counts it as stored. When there is room again, the
window is filled from the store, by id, from where memory ended. Nothing is lost if the process is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.delivery import Delivery
from harn.dispatch.second_tries import SecondTries
from harn.dispatch.suspects import Suspects
from harn.model.delivery import StoredDelivery
from harn.store.deliveries import IDeliveries

log = Logger(namespace="harn.dispatch")

MAX_DELIVERIES = 4096
MAX_BYTES = 64 * 1024 * 1024

Admit = Callable[[StoredDelivery], Delivery | None]


class Window:
    """
    A first-in-first-out queue of deliveries over the store. Those that have seen a crash wait apart (`Suspects`), and
    so do those for whose bodies there was no room when it was their turn.

    :param clock: whose time does not jump.
    :param admit: makes a delivery of a row that was read back, or None when the row no longer belongs to this server.
    :param refilled: called when deliveries came in from the store, or may be taken that were held back.
    :ivar in_hand: ids of all deliveries in memory: queued here, running, being settled. None of them is read from the
        store again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deliveries: IDeliveries,
        admit: Admit,
        refilled: Callable[[], None],
        second_tries: SecondTries,
        max_deliveries: int = MAX_DELIVERIES,
        max_bytes: int = MAX_BYTES,
        fits: Callable[[Delivery], bool] = lambda _: True,
    ) -> None:
        """:param fits: returns whether a delivery's body fits beside those that run."""
        self._deliveries = deliveries
        self._admit = admit
        self._refilled = refilled
        self._second_tries = second_tries
        self._max_deliveries = max_deliveries
        self.max_bytes = max_bytes
        self._fits = fits
        self.in_hand: set[int] = set()
        self._queue: deque[Delivery] = deque()
        self._apart: deque[Delivery] = deque()
        self._suspects = Suspects(clock, refilled)
        self.bytes = 0
        self._newest = 0
        self._announced: int | None = None
        self._overflowing = False
        self._missed = False
        self._reading = False
        self._outdated = False
        self._held = False
        self._left_meanwhile: set[int] = set()

    def __len__(self) -> int:
        return len(self._apart) + len(self._queue) + (len(self._suspects) if self._suspects.concern else 0)

    def __iter__(self) -> Iterator[Delivery]:
        return chain(self._apart, self._queue, self._suspects)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take: nothing waits here, and the store has no more than this."""
        return not (self._queue or self._apart or self._overflowing or self._suspects.concern)

    @property
    def room(self) -> int:
        """Number of deliveries that still fit."""
        return max(0, self._max_deliveries - len(self)) if self.bytes < self.max_bytes else 0

    def offer(self, delivery: Delivery) -> None:
        """Add a delivery just accepted, or leave it to the store; ids rise from call to call."""
        self._announced = delivery_id = delivery.delivery_id
        if delivery_id <= self._newest or delivery_id in self.in_hand:
            # A read of the store was faster than the news of the first commit, and has brought it already.
            delivery.binding.stored += 1
            return
        if self._overflowing or not self.room:
            self._overflowing = self._missed = True
            delivery.binding.stored += 1
            return
        self._newest = delivery_id
        self.push(delivery)

    def offer_late(self, delivery: Delivery) -> None:
        """
        Add a delivery just accepted in any case: it belongs to another version now than its row in the store.

        Only requests that began on a version before it was moved on bring any.
        """
        self.announce(delivery.delivery_id)
        if delivery.delivery_id in self.in_hand:
            delivery.binding.stored += 1
        else:
            self.push(delivery)

    def announce(self, delivery_id: int) -> None:
        """Record that the news of a commit is here: from now on its row may be read back."""
        self._announced = delivery_id

    def push(self, delivery: Delivery) -> None:
        """Add a delivery in any case, for example a retry that is due."""
        self.in_hand.add(delivery.delivery_id)
        if delivery.crashes:
            self._suspects.add(delivery)
        else:
            self._queue.append(delivery)
        self.bytes += delivery.size

    def push_first(self, delivery: Delivery) -> None:
        """Push a delivery before all others, after another call interrupted it."""
        self.in_hand.add(delivery.delivery_id)
        if delivery.crashes:
            self._suspects.add(delivery, first=True)
        else:
            self._queue.appendleft(delivery)
        self.bytes += delivery.size

    def pop(self, running: Collection[int] = ()) -> Delivery | None:
        """
        Return the next, which stays in hand; fill up from the store when half is used up.

        :param running: ids of the deliveries that run now.
        """
        delivery = self._next(running)
        if delivery is not None:
            self.bytes -= delivery.size
            if self._overflowing and len(self) < self._max_deliveries // 2:
                self.fill()
        return delivery

    def _next(self, running: Collection[int]) -> Delivery | None:
        if not self._suspects.concern:
            return self._next_that_fits()
        suspect = self._suspects.pop(running)
        if suspect is not None:
            return suspect
        if self._suspects.holds_others_back(running):
            return self._suspects.pop_alone(running)
        delivery = self._next_that_fits()
        if delivery is not None:
            return delivery
        return None if running or self._overflowing else self._suspects.pop_alone(running)

    def _next_that_fits(self) -> Delivery | None:
        if self._apart and self._fits(self._apart[0]):
            return self._apart.popleft()
        while True:
            if not self._queue:
                self.fill()
                if not self._queue:
                    return None
            delivery = self._queue.popleft()
            # Large ones begin in their order: else those that fit would keep a larger one from its turn.
            if not delivery.large or (not self._apart and self._fits(delivery)):
                return delivery
            self._apart.append(delivery)

    def let_go(self, delivery_id: int) -> None:
        """Record that memory has done with a delivery: it is settled, on disk."""
        self.in_hand.discard(delivery_id)
        if self._reading:
            self._left_meanwhile.add(delivery_id)

    def remove(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove all deliveries that ``wanted`` picks. Cost grows with the window: for drains only."""
        taken = [delivery for delivery in chain(self._apart, self._queue) if wanted(delivery)]
        if taken:
            self._apart = deque(delivery for delivery in self._apart if not wanted(delivery))
            self._queue = deque(delivery for delivery in self._queue if not wanted(delivery))
        taken += self._suspects.remove(wanted)
        self.bytes -= sum(delivery.size for delivery in taken)
        return taken

    def hold(self) -> None:
        """Pause reading from the store until `start_over`; rows being read are dropped."""
        self._held = True

    def start_over(self) -> None:
        """End `hold`, and look through the whole store again, as after a restart."""
        self._held = False
        self.look_through()

    def look_through(self) -> None:
        """Look through the whole store again: it holds ready deliveries of any age."""
        self._overflowing = self._missed = True
        self._newest = 0
        self.read_again()
        self.fill()

    def read_again(self) -> None:
        """Drop what is being read: rows have changed since, which would be missed."""
        self._outdated = self._reading

    def fill(self) -> None:
        """Read more from the store, if it has more than memory and no read is under way."""
        if not self._overflowing or self._reading or self._held:
            return
        room = self.room
        if not room:
            return
        self._missed = False
        self._reading = True
        self._deliveries.ready(self._newest, room, max(1, self.max_bytes - self.bytes)).addCallbacks(
            self._filled, self._not_filled
        ).addErrback(lambda failure: log.failure("filling the window failed", failure=failure))

    def _filled(self, rows: Sequence[StoredDelivery]) -> None:
        self._reading = False
        left, self._left_meanwhile = self._left_meanwhile, set()
        if self._outdated or self._held:
            self._outdated = False
            self.fill()
            return
        if self._announced is not None:
            # The news of a commit may come after a read that saw it: such a row is left to the news.
            rows = [row for row in rows if row.delivery_id <= self._announced]
        for row in rows:
            self._newest = max(self._newest, row.delivery_id)
            if row.delivery_id in self.in_hand or row.delivery_id in left:
                continue
            delivery = self._admit(row)
            if delivery is not None:
                self.push(delivery)
        if rows:
            self._refilled()
        elif not self._missed:
            # Nothing is left there, and nothing was left to it since the read began.
            self._overflowing = False
            if len(self._suspects):
                self._refilled()  # those that run alone have waited for this
        else:
            self.fill()

    def _not_filled(self, failure: Failure) -> None:
        self._reading = self._outdated = False
        self._left_meanwhile.clear()
        log.warn("cannot read ready deliveries, trying again: {error}", error=failure.getErrorMessage())
        self._second_tries.add(self.fill)

    def close(self) -> None:
        """Read no more."""
        self._overflowing = False
        self._suspects.close()
