"""All queues, by trigger and version: which version runs what is in them, and what memory holds of them."""

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
    The queues; each is made when it is needed.

    :ivar hungry: those that may take more from the store, in their order.
    :ivar is_reading: rows of one are being read.
    :ivar interrupted: deliveries that are to begin again in a moment.
    :ivar timed: triggers of which the gates, or their pace, are to be looked at when a time has come.
    :ivar orphans: those with deliveries that no version is left for.
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
        """Return the queue of a version."""
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
        """Record whether the gates hold a trigger, or refuse it; they are read again at the time that they name."""
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
        """Move a queue to the version that its deliveries may run on; return False if there is none."""
        holder = self._registry.for_queued(queue.share.trigger_id, queue.version)
        if holder is None:
            return False
        if holder is not queue.holder:
            self.hand(queue, holder)
        return True

    def shares(self, trigger_id: str | None = None) -> list[Share]:
        """Return the share of a trigger, if it has one; with None all of them."""
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
        """Return the queues whose deliveries run on this version."""
        return [queue for queue in self.of_trigger(binding.id) if queue.holder is binding]

    def unbegun(self, binding: BindingVersion) -> int:
        """Return how many deliveries that have not begun run on this version."""
        return sum(queue.unbegun for queue in self.held_by(binding))

    def stored(self, binding: BindingVersion) -> int:
        """Return how many of them are in the store alone."""
        return sum(queue.stored for queue in self.held_by(binding))

    def admit(self, queue: Queue, binding: BindingVersion, *, stays: bool = False) -> bool:
        """
        Count a delivery that has just become durable; its maker holds a lease on ``binding`` for it.

        :param stays: it is in memory already, in the place of another one: that is in the store alone.
        :return: whether it is to be held in memory; else it stays in the store alone.
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
        """Count rows in the store that have become ready, and lease the version that they run on."""
        queue = self.of(trigger_id, version)
        if queue.holder is not None:
            queue.holder.lease(count)
        queue.stored += count
        self.note(queue)

    def left(self, trigger_id: str, version: int) -> None:
        """Count a row in the store less, which was ready and has ended there."""
        queue = self.of(trigger_id, version)
        if queue.stored > 0:
            queue.stored -= 1
            if queue.holder is not None:
                queue.holder.release()
        self.tidy(queue)

    def note(self, queue: Queue) -> None:
        """Record that a queue with deliveries in the store is to be read, or given up."""
        if not queue.stored or queue.is_leaving:
            return
        if not queue.is_open:
            self.orphans[queue] = None
        elif queue.share.held is None and not queue.is_reading and self.room.for_queue(queue) >= queue.count:
            self.hungry[queue] = None
        elif queue.share.held is not None and queue.share.held.gate is not None:
            queue.share.held.gate.wanted(queue.share.trigger_id)

    def hand(self, queue: Queue, holder: BindingVersion | None) -> None:
        """Move the deliveries that have not begun to another version, which takes over their leases."""
        before, queue.holder = queue.holder, holder
        if holder is not None:
            holder.lease(queue.unbegun)
        if before is not None:
            before.release(queue.unbegun)
        self.note(queue)

    def withdraw(self, delivery: Delivery) -> None:
        """Count a delivery that has not begun as one that is being settled."""
        if delivery.again is not None:
            delivery.again.cancel()
            delivery.again = None
            self.interrupted.discard(delivery)
        delivery.queue.taken(delivery)

    def unload(self, queue: Queue) -> list[Delivery]:
        """Leave the deliveries that have not begun to the store; return those that were in memory."""
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
                queue.holder = None  # nothing in it has a lease
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
