"""
The queue of a binding version: the deliveries that are ready to run on it, of which memory holds a bounded part and the
store all.

A queue belongs to the version that the rows of its deliveries name, and holds a lease for each that has not begun. When
that version may begin no further delivery, another version takes over the queue and its leases; no row is changed.
"""

from __future__ import annotations

from collections import deque

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.gates import Held
from harn.model.delivery import DeadLetter
from harn.triggers.binding import BindingVersion

DEFAULT_WEIGHT = 1
UNLIMITED = 1 << 30


class Room:
    """
    The memory for waiting deliveries, which all queues share.

    A queue may hold at most as much as is still free. So a single flooded queue takes half of the memory, two take a
    third each, and some is always left for a queue that held nothing.

    Source: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998.

    :ivar max_deliveries: the most deliveries.
    :ivar max_bytes: the most bytes of all deliveries.
    :ivar count: how many deliveries are in memory.
    :ivar bytes: the size of these deliveries.
    """

    __slots__ = ("bytes", "count", "max_bytes", "max_deliveries")

    def __init__(self, max_deliveries: int, max_bytes: int) -> None:
        self.max_deliveries = max_deliveries
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0

    def for_queue(self, queue: Queue) -> int:
        """Return how many more deliveries a queue may hold."""
        free, free_bytes = self.max_deliveries - self.count, self.max_bytes - self.bytes
        if free <= 0 or free_bytes <= 0:
            return 0
        if not queue.count:
            return (free + 1) // 2
        return max(0, (free - queue.count + 1) // 2) if queue.bytes < free_bytes else 0

    def takes(self, queue: Queue) -> bool:
        """Return whether a queue may hold one more delivery: `for_queue` is not 0."""
        free_bytes = self.max_bytes - self.bytes
        if self.max_deliveries - self.count <= queue.count or free_bytes <= 0:
            return False
        return not queue.count or queue.bytes < free_bytes

    def bytes_for(self, queue: Queue) -> int:
        """Return how many more bytes a queue may hold, at least 1."""
        return max(1, (self.max_bytes - self.bytes - queue.bytes) // 2)


class Queue:
    """
    The deliveries that wait for one binding version, in their order.

    :ivar version: the number of the version that the rows name.
    :ivar holder: the version that runs them, with a lease for each; None if no version can run them.
    :ivar small: the waiting deliveries in memory that have no large body.
    :ivar large: the waiting deliveries in memory that have a large body.
    :ivar stored: how many deliveries are ready and only in the store.
    :ivar count: how many deliveries are in memory and have not begun.
    :ivar bytes: the size of these deliveries.
    :ivar begun: how many deliveries run or are being settled.
    :ivar is_leaving: whether its deliveries in the store are becoming dead letters; none is read or begun meanwhile.
    :ivar is_reading: whether rows of it are being read.
    :ivar is_outdated: whether the rows that are being read must not be used.
    """

    __slots__ = (
        "begun",
        "bytes",
        "count",
        "holder",
        "is_leaving",
        "is_outdated",
        "is_reading",
        "large",
        "room",
        "share",
        "small",
        "stored",
        "version",
    )

    def __init__(self, share: Share, version: int, holder: BindingVersion | None, room: Room) -> None:
        self.share = share
        self.version = version
        self.holder = holder
        self.room = room
        self.small: deque[Delivery] = deque()
        self.large: deque[Delivery] = deque()
        self.stored = self.count = self.bytes = self.begun = 0
        self.is_leaving = self.is_reading = self.is_outdated = False

    @property
    def unbegun(self) -> int:
        """The number of deliveries that have not begun; for each, the queue has a lease on the holder."""
        return self.stored + self.count

    @property
    def is_open(self) -> bool:
        """Whether its deliveries may begin: its holder is not closed, and they are not becoming dead letters."""
        return self.holder is not None and not self.holder.is_closed and not self.is_leaving

    def hold(self, delivery: Delivery) -> None:
        """Count a delivery in memory that has not begun, or will begin again."""
        share = self.share
        share.in_hand[delivery.delivery_id] = delivery
        share.count += 1
        self.count += 1
        self.bytes += delivery.size
        self.room.count += 1
        self.room.bytes += delivery.size

    def begins(self, delivery: Delivery) -> None:
        """Count a delivery that begins at once, without having been counted by `hold`."""
        self.share.in_hand[delivery.delivery_id] = delivery
        self.begun += 1

    def taken(self, delivery: Delivery) -> None:
        """Count a waiting delivery as one that begins or is given up."""
        self.begun += 1
        self.share.count -= 1
        self.count -= 1
        self.bytes -= delivery.size
        self.room.count -= 1
        self.room.bytes -= delivery.size

    def push(self, delivery: Delivery) -> None:
        """Append a delivery that `hold` has counted."""
        delivery.become(Phase.QUEUED)
        (self.large if delivery.large else self.small).append(delivery)

    def push_first(self, delivery: Delivery) -> None:
        """Put a delivery that `hold` has counted before all others."""
        delivery.become(Phase.QUEUED)
        (self.large if delivery.large else self.small).appendleft(delivery)

    def leave(self, delivery: Delivery) -> None:
        """Remove a delivery from memory; its row needs no further change."""
        self.begun -= 1
        share = self.share
        del share.in_hand[delivery.delivery_id]
        if share.is_reading:
            share.ended.add(delivery.delivery_id)

    def put_back(self, delivery: Delivery) -> None:
        """Remove an unloaded delivery from memory, and count it as being only in the store."""
        delivery.become(Phase.STORED)
        self.leave(delivery)
        self.stored += 1

    def waits(self) -> list[Delivery]:
        """Return the deliveries in memory that have not begun, or will begin again."""
        return [
            each
            for each in self.share.in_hand.values()
            if each.queue is self and each.phase in (Phase.QUEUED, Phase.INTERRUPTED)
        ]


class Pace:
    """
    The rate at which deliveries begin that a pause had held.

    :ivar interval: seconds between two beginnings.
    :ivar left: how many of these deliveries have not begun.
    :ivar next_at: when the next one may begin (reactor's seconds).
    """

    __slots__ = ("interval", "left", "next_at")

    def __init__(self, rate: float, left: int, now: float) -> None:
        self.interval = 1.0 / rate
        self.left = left
        self.next_at = now

    def begun(self, now: float, unbegun: int) -> bool:
        """
        Count a delivery that begins at ``now`` (reactor's seconds); return whether any is left.

        :param unbegun: how many deliveries of the trigger have not begun. It limits ``left``, since some may have been
            cancelled or given up.
        """
        self.left = min(self.left - 1, unbegun)
        self.next_at = max(now, self.next_at) + self.interval
        return self.left > 0


class Share:
    """
    One trigger's share of the server: the queues of its versions, and how many of its handlers run.

    :ivar queues: its queues, by the number of the version.
    :ivar weight: how many of its deliveries begin in one turn.
    :ivar limit: how many of its handlers may run at the same time.
    :ivar active: the live versions when ``weight`` and ``limit`` were read.
    :ivar running: how many of its handlers run.
    :ivar in_hand: all its deliveries in memory, by id: queued, running or being settled. None of them is read from the
        store, whichever version its row names.
    :ivar is_reading: whether rows of one of its queues are being read.
    :ivar ended: ids of deliveries that have left ``in_hand`` since that read began.
    :ivar count: how many of its deliveries are in memory and have not begun, in all its queues.
    :ivar barred: ids of deliveries that are being cancelled in the store and must not be read.
    :ivar held: the reason for which a gate holds its deliveries; None if none does.
    :ivar refusal: the dead letter that its deliveries become instead of waiting; None if they wait.
    :ivar pace: the rate at which deliveries begin that a pause had held; None for no limit.
    :ivar credit: how many of its deliveries may still begin in this turn.
    :ivar is_listed: whether it takes turns.
    :ivar is_spent: whether its turn has ended.
    """

    __slots__ = (
        "active",
        "barred",
        "count",
        "credit",
        "ended",
        "held",
        "in_hand",
        "is_listed",
        "is_reading",
        "is_spent",
        "limit",
        "pace",
        "queues",
        "refusal",
        "running",
        "trigger_id",
        "weight",
    )

    def __init__(self, trigger_id: str) -> None:
        self.trigger_id = trigger_id
        self.queues: dict[int, Queue] = {}
        self.active: object = None
        self.weight = DEFAULT_WEIGHT
        self.limit = UNLIMITED
        self.running = self.count = 0
        self.credit = 0
        self.is_listed = self.is_reading = self.is_spent = False
        self.in_hand: dict[int, Delivery] = {}
        self.ended: set[int] = set()
        self.barred: set[int] = set()
        self.held: Held | None = None
        self.refusal: DeadLetter | None = None
        self.pace: Pace | None = None

    @property
    def unbegun(self) -> int:
        """The number of deliveries that have not begun, in memory or only in the store."""
        return sum(queue.unbegun for queue in self.queues.values())

    def has_found(self, delivery_id: int) -> bool:
        """
        Return whether a read of the store found a delivery before its commit was reported: then it is in memory
        already, or is being cancelled.
        """
        return delivery_id in self.in_hand or delivery_id in self.barred

    def first_queues(self) -> tuple[Queue | None, Queue | None]:
        """Return the queues with the oldest delivery in ``small`` and the oldest in ``large``; None for none."""
        small: Queue | None = None
        large: Queue | None = None
        for queue in self.queues.values():
            if not queue.count or not queue.is_open:
                continue
            if queue.small and (small is None or queue.small[0].delivery_id < small.small[0].delivery_id):
                small = queue
            if queue.large and (large is None or queue.large[0].delivery_id < large.large[0].delivery_id):
                large = queue
        return small, large
