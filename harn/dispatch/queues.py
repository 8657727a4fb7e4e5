"""All queues, by trigger and version: which version runs their deliveries, and which deliveries memory holds."""

from __future__ import annotations

from collections.abc import Iterator

from harn.dispatch.delivery import Delivery
from harn.dispatch.gates import Gates
from harn.dispatch.queue import Queue, Room, Share
from harn.dispatch.timers import Wakeups
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry


class Queues:
    """
    All queues; each is made when it is first needed.

    :ivar hungry: the queues that may read more rows from the store, in the order of their reads.
    :ivar is_reading: whether rows of one queue are being read.
    :ivar interrupted: deliveries that begin again soon.
    :ivar timed: triggers whose gates or pace must be checked at a certain time.
    :ivar orphans: queues with deliveries that no version can run.
    """

    def __init__(self, registry: Registry, room: Room, gates: Gates, wakeups: Wakeups) -> None:
        self._registry = registry
        self.gates = gates
        self._wakeups = wakeups
        self.timed: dict[Share, None] = {}
        self.room = room
        self._shares: dict[str, Share] = {}
        self.hungry: dict[Queue, None] = {}
        self.orphans: dict[Queue, None] = {}
        self.interrupted: set[Delivery] = set()
        self.is_reading = False

    def __iter__(self) -> Iterator[Queue]:
        return (queue for share in self._shares.values() for queue in share.queues.values())

    def of(self, trigger_id: str, version: int) -> Queue:
        """Return the queue of a version; make it if there is none."""
        share = self._shares.get(trigger_id)
        if share is None:
            share = self._shares[trigger_id] = Share(trigger_id)
            self.ask_gates(share)
        queue = share.queues.get(version)
        if queue is None:
            holder = self._registry.for_queued(trigger_id, version)
            queue = share.queues[version] = Queue(share, version, holder, self.room)
        elif (queue.holder is None or queue.holder.is_closed) and not queue.is_leaving:
            self.reopen(queue)
        return queue

    def ask_gates(self, share: Share) -> None:
        """Record whether the gates hold or refuse a trigger; ask them again at the time that they return."""
        held = self.gates.held(share.trigger_id)
        share.refusal = None if held is None else held.refusal
        share.held = held if share.refusal is None else None
        if held is not None and held.until is not None:
            self.ask_gates_at(share, held.until)
        if held is not None and held.gate is not None and share.unbegun:
            held.gate.wanted(share.trigger_id)

    def ask_gates_at(self, share: Share, at: float) -> None:
        """Read the gates again for a trigger at ``at`` (seconds, Unix), or before."""
        self.timed[share] = None
        self._wakeups.notice(at)

    def reopen(self, queue: Queue) -> bool:
        """Move a queue to the version that may run its deliveries; return False if there is none."""
        holder = self._registry.for_queued(queue.share.trigger_id, queue.version)
        if holder is None:
            return False
        if holder is not queue.holder:
            self.hand(queue, holder)
        return True

    def shares(self, trigger_id: str | None = None) -> list[Share]:
        """Return the share of a trigger, if it has one; with None, all shares."""
        if trigger_id is None:
            return list(self._shares.values())
        share = self._shares.get(trigger_id)
        return [] if share is None else [share]

    def of_trigger(self, trigger_id: str) -> list[Queue]:
        """Return every queue of a trigger."""
        share = self._shares.get(trigger_id)
        return [] if share is None else list(share.queues.values())

    def in_hand(self, trigger_id: str) -> tuple[int, ...]:
        """Return the ids of a trigger's deliveries in memory."""
        share = self._shares.get(trigger_id)
        return () if share is None else tuple(share.in_hand)

    def held_by(self, binding: BindingVersion) -> list[Queue]:
        """Return the queues that this version holds."""
        return [queue for queue in self.of_trigger(binding.id) if queue.holder is binding]

    def unbegun(self, binding: BindingVersion) -> int:
        """Return how many deliveries in the queues that this version holds have not begun."""
        return sum(queue.unbegun for queue in self.held_by(binding))

    def stored(self, binding: BindingVersion) -> int:
        """Return how many of the deliveries that `unbegun` counts are only in the store."""
        return sum(queue.stored for queue in self.held_by(binding))

    def admit(self, queue: Queue, binding: BindingVersion, *, stays: bool = False) -> bool:
        """
        Count a delivery that has just become durable, and for which the caller holds a lease on ``binding``.

        :param stays: whether the delivery is in memory already and displaces another, which is then only in the store.
        :return: whether the caller must hold it in memory; otherwise it is only in the store.
        """
        holder = queue.holder
        if holder is not binding:
            if holder is None:
                queue.holder = binding
            else:
                holder.lease()
                binding.release()
        if stays or queue.stored or queue.share.held is not None or not queue.is_open or not self.room.takes(queue):
            queue.stored += 1
            self.note(queue)
            return False
        return True

    def became_ready(self, trigger_id: str, version: int, count: int) -> None:
        """Count rows in the store that have become ready, and take leases on the version that will run them."""
        queue = self.of(trigger_id, version)
        if queue.holder is not None:
            queue.holder.lease(count)
        queue.stored += count
        self.note(queue)

    def left(self, trigger_id: str, version: int) -> None:
        """Stop counting a row that was ready in the store and has ended there."""
        queue = self.of(trigger_id, version)
        if queue.stored > 0:
            queue.stored -= 1
            if queue.holder is not None:
                queue.holder.release()
        self.tidy(queue)

    def note(self, queue: Queue) -> None:
        """Record that the rows of a queue must be read, or given up if no version can run them."""
        if not queue.stored or queue.is_leaving:
            return
        if not queue.is_open:
            self.orphans[queue] = None
        elif queue.share.held is None and not queue.is_reading and self.room.for_queue(queue) >= queue.count:
            self.hungry[queue] = None
        elif queue.share.held is not None and queue.share.held.gate is not None:
            queue.share.held.gate.wanted(queue.share.trigger_id)

    def hand(self, queue: Queue, holder: BindingVersion | None) -> None:
        """Move a queue, and the leases of its deliveries that have not begun, to another version."""
        before, queue.holder = queue.holder, holder
        if holder is not None:
            holder.lease(queue.unbegun)
        if before is not None:
            before.release(queue.unbegun)
        self.note(queue)

    def withdraw(self, delivery: Delivery) -> None:
        """Count a delivery as being settled that has not begun."""
        if delivery.again is not None:
            delivery.again.cancel()
            delivery.again = None
            self.interrupted.discard(delivery)
        delivery.queue.taken(delivery)

    def unload(self, queue: Queue) -> list[Delivery]:
        """Remove the deliveries of a queue that have not begun from memory; return them."""
        waits = queue.waits()
        for delivery in waits:
            self.withdraw(delivery)
        queue.small.clear()
        queue.large.clear()
        return waits

    def version_ended(self, trigger_id: str, version: int) -> None:
        """Drop the queues of a version that has ended."""
        for queue in self.of_trigger(trigger_id):
            if queue.holder is not None and queue.holder.version == version:
                queue.holder = None  # none of its deliveries has a lease
            if queue.version == version:
                self.tidy(queue)

    def tidy(self, queue: Queue) -> None:
        """Drop a queue that is empty and whose version has ended."""
        if queue.begun or queue.unbegun or queue.is_leaving or queue.is_reading or queue.share.barred:
            return
        share = queue.share
        if (
            self._registry.get(share.trigger_id, queue.version) is not None
            or share.queues.get(queue.version) is not queue
        ):
            return
        del share.queues[queue.version]
        self.hungry.pop(queue, None)
        self.orphans.pop(queue, None)
        if not share.queues and not share.running:
            self._shares.pop(share.trigger_id, None)
