"""
The queue of a binding version: what is ready to run on it; a bounded part is in memory, the rest in the store alone.

A queue belongs to the version that its deliveries' rows name, and holds the leases of those that have not begun. Once
that version may begin nothing more, another one takes the queue, and its leases, over: no row is changed.
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
    The memory for deliveries that wait, shared by all queues.

    A queue may hold as much as is still free then: so one that is flooded takes half of it, two take a third each, and
    there is always some for one that held nothing.

    Source: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998.

    :ivar max_deliveries: most deliveries; ``max_bytes``: most bytes of theirs.
    :ivar count: deliveries that are in; ``bytes``: their size.
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

    :ivar holder: the version that they run on, and that is leased for each; None while no version is left for them.
    :ivar stored: how many more are ready, in the store alone.
    :ivar count: how many are in memory and have not begun; ``bytes``: their size. ``begun``: how many run, or are being
        settled.
    :ivar is_leaving: what the store has of it is being made dead letters: nothing is read or begun meanwhile.
    :ivar is_reading: rows of it are being read; ``is_outdated``: what is read is not to be used.
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
        """Number of deliveries that have not begun: each holds a lease on the holder."""
        return self.stored + self.count

    @property
    def is_open(self) -> bool:
        """Whether there is a version that its deliveries may begin on."""
        return self.holder is not None and not self.holder.is_closed and not self.is_leaving

    def hold(self, delivery: Delivery) -> None:
        """Count a delivery that has not begun, or is to begin again."""
        share = self.share
        share.in_hand[delivery.delivery_id] = delivery
        share.count += 1
        self.count += 1
        self.bytes += delivery.size
        self.room.count += 1
        self.room.bytes += delivery.size

    def begins(self, delivery: Delivery) -> None:
        """Count a delivery that begins without having waited."""
        self.share.in_hand[delivery.delivery_id] = delivery
        self.begun += 1

    def taken(self, delivery: Delivery) -> None:
        """Count it as one that begins, or is given up."""
        self.begun += 1
        self.share.count -= 1
        self.count -= 1
        self.bytes -= delivery.size
        self.room.count -= 1
        self.room.bytes -= delivery.size

    def push(self, delivery: Delivery) -> None:
        """Add a delivery that was counted, as the last."""
        delivery.become(Phase.QUEUED)
        (self.large if delivery.large else self.small).append(delivery)

    def push_first(self, delivery: Delivery) -> None:
        """Add a delivery that was counted, as the first."""
        delivery.become(Phase.QUEUED)
        (self.large if delivery.large else self.small).appendleft(delivery)

    def leave(self, delivery: Delivery) -> None:
        """Remove a delivery from memory: its row is as it should be."""
        self.begun -= 1
        share = self.share
        del share.in_hand[delivery.delivery_id]
        if share.is_reading:
            share.ended.add(delivery.delivery_id)

    def put_back(self, delivery: Delivery) -> None:
        """Leave a delivery to the store that was unloaded."""
        delivery.become(Phase.STORED)
        self.leave(delivery)
        self.stored += 1

    def waits(self) -> list[Delivery]:
        """Return the deliveries in memory that have not begun, or are to begin again."""
        return [
            each
            for each in self.share.in_hand.values()
            if each.queue is self and each.phase in (Phase.QUEUED, Phase.INTERRUPTED)
        ]


class Pace:
    """
    The rate at which what a pause had held begins.

    :ivar left: how many it had held and have not begun. ``next_at``: when the next may (reactor's seconds).
    """

    __slots__ = ("interval", "left", "next_at")

    def __init__(self, rate: float, left: int, now: float) -> None:
        self.interval = 1.0 / rate
        self.left = left
        self.next_at = now

    def begun(self, now: float, unbegun: int) -> bool:
        """
        Count one that begins; return whether any is left.

        :param unbegun: how many of the trigger have not begun: what was cancelled or given up is not waited for.
        """
        self.left = min(self.left - 1, unbegun)
        self.next_at = max(now, self.next_at) + self.interval
        return self.left > 0


class Share:
    """
    One trigger's share of the server: the queues of its versions, and how many of its handlers run.

    :ivar weight: how many of its deliveries begin in its turn; ``limit``: how many may run at the same time;
        ``active``: the live versions when both were read.
    :ivar in_hand: by id, all its deliveries in memory: queued, running, being settled. None of them is
        read from the store, whichever version its row names.
    :ivar is_reading: rows of one queue are being read; ``ended``: ids that have left ``in_hand`` since.
    :ivar count: how many of its deliveries are in memory and have not begun, of all its queues.
    :ivar barred: ids that are being cancelled in the store, and are not to be read.
    :ivar held: why nothing of it may begin, if a gate says so. ``refusal``: what its deliveries become instead.
        ``pace``: how fast what was held begins.
    :ivar credit: how many may still begin in this turn. ``is_listed``: it takes turns. ``is_spent``:
        its turn has ended.
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
        """Number of deliveries that have not begun, in memory and in the store."""
        return sum(queue.unbegun for queue in self.queues.values())

    def has_found(self, delivery_id: int) -> bool:
        """
        Return whether a read of the store found a delivery before its commit was reported: it is in memory, or is
        cancelled.
        """
        return delivery_id in self.in_hand or delivery_id in self.barred

    def first_queues(self) -> tuple[Queue | None, Queue | None]:
        """Return the queue whose first delivery without a large body was accepted first; the same of those with one."""
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
