"""
After an attempt has ended: makes its outcome durable, then removes the delivery from memory or queues it again.

If a call ended because its interpreter did, there is no outcome: the delivery is queued again soon, and the attempt is
not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TypeAlias

from msgspec import Struct
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.queues import Queues
from harn.dispatch.retries import Retries
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.settlements import cancelled, pause_after, refused, removed, skipped
from harn.dispatch.timers import Writes
from harn.errors import EventLogGone
from harn.lifecycle import Interrupted, Lifecycle, Settled, TakenAway
from harn.model.delivery import CANCELLED, DEAD, DONE, READY, WAITING, Settlement
from harn.store.deliveries import IDeliveries
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")

Settling: TypeAlias = tuple[Delivery, Settlement]
"""A delivery and the settlement to write for it."""


class Outcome(Struct, frozen=True):
    """The state of one delivery after it was settled, for its watchers."""

    delivery: Delivery
    settlement: Settlement


class Settler:
    """
    Makes outcomes durable, and changes deliveries in memory by them.

    :ivar unsettled: how many outcomes are not on disk yet.
    :ivar is_gone: whether the event log is unusable until a restart, after which unsettled deliveries run again.
    :ivar cancelled: how many deliveries were given up one by one, by version whose drain is being cancelled.
    """

    def __init__(
        self,
        deliveries: IDeliveries,
        registry: Registry,
        lifecycle: Lifecycle,
        queues: Queues,
        scheduler: Scheduler,
        retries: Retries,
        writes: Writes,
    ) -> None:
        self._deliveries = deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._queues = queues
        self._scheduler = scheduler
        self._retries = retries
        self._writes = writes
        self._watchers: dict[str, list[Deferred[Outcome]]] = {}
        self.unsettled = 0
        self.is_gone = False
        self.cancelled: dict[BindingVersion, int] = {}

    def watch(self, event_id: str) -> Deferred[Outcome]:
        """Fire with the next outcome of the event's delivery: done, dead, or waiting for a retry."""

        def give_up(watcher: Deferred[Outcome]) -> None:
            watchers = self._watchers[event_id]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[event_id]

        watcher: Deferred[Outcome] = Deferred(give_up)
        self._watchers.setdefault(event_id, []).append(watcher)
        return watcher

    def settle(self, settling: Sequence[Settling]) -> Deferred[None]:
        """
        Make the outcomes of deliveries durable; fire when all are settled. Each delivery holds a lease on its version.
        """
        for delivery, _ in settling:
            delivery.become(Phase.SETTLING)
        self.unsettled += len(settling)
        written = self._deliveries.settle(*[settlement for _, settlement in settling])
        return written.addCallbacks(self._settled, self._not_settled, callbackArgs=(settling,), errbackArgs=(settling,))

    def give_up(self, delivery: Delivery, *, running: bool = False) -> Deferred[None]:
        """
        Settle a delivery that must not begin, because a gate refuses it or no version can run it.

        :param running: whether the call of its handler was interrupted.
        """
        binding = delivery.binding
        if binding.is_cancelled:
            if binding in self.cancelled:
                self.cancelled[binding] += 1
            return self.settle([(delivery, cancelled(delivery, running=running))])
        refusal = delivery.queue.share.refusal
        if refusal is not None and binding.destination is not None:
            return self.settle([(delivery, refused(delivery, refusal))])
        dead = removed(delivery.delivery_id, binding.id, binding.version, delivery.attempts, passed=delivery.passed)
        return self.settle([(delivery, dead)])

    def _not_settled(self, failure: Failure, settling: Sequence[Settling]) -> Deferred[None]:
        """Settle each delivery alone, with retries, so that one that cannot be written does not delay the others."""
        self.is_gone = self.is_gone or failure.check(EventLogGone) is not None
        return _all_of([self._insist(each) for each in settling])

    def _insist(self, settling: Settling) -> Deferred[None]:
        written = self._writes.insist("settling a delivery", partial(self._deliveries.settle, settling[1]))
        return written.addCallback(self._settled, [settling])

    def drop(self, delivery: Delivery) -> None:
        """Remove a delivery that had begun from memory, since another server has taken it over."""
        queue = delivery.queue
        delivery.trace = None
        delivery.become(Phase.STORED)
        queue.leave(delivery)
        for each in queue.share.queues.values():
            self._queues.note(each)  # a read may have skipped its row, if this server owns it again
        delivery.binding.release()
        if not queue.begun:
            self._queues.tidy(queue)
        for operator in delivery.cancelling:
            operator.callback(False)
        self._lifecycle.emit(TakenAway(1))

    def _keep_ours(self, taken: Collection[int], settling: Sequence[Settling]) -> Sequence[Settling]:
        """Drop deliveries that another server has taken over, without counting their attempts; return the others."""
        for delivery, _ in settling:
            if delivery.delivery_id in taken:
                key, delivery_id = delivery.binding.key, delivery.delivery_id
                self._lifecycle.emit(Interrupted(delivery.binding.id, key, delivery_id, delivery.trace))
                self.drop(delivery)
        return [each for each in settling if each[0].delivery_id not in taken]

    def _settled(self, taken: Collection[int] | None, settling: Sequence[Settling]) -> Deferred[None] | None:
        """Change deliveries by their settlements, now on disk; fire when further settlements that follow are too."""
        self.unsettled -= len(settling)
        if taken:
            settling = self._keep_ours(taken, settling)
        event = Settled.of([delivery.settled(settlement) for delivery, settlement in settling])
        further: list[Deferred[None]] = []
        leaving: list[Settling] = []
        for each in settling:
            delivery, settlement = each
            delivery.attempts, delivery.passed = settlement.attempts, settlement.passed
            if settlement.state is DONE:  # nearly every delivery
                delivery.queue.leave(delivery)
                delivery.become(Phase.DONE)
                leaving.append(each)
                continue
            again = self._not_done(delivery, settlement)
            if again is not None:
                further.append(again)
            elif settlement.state is not READY:
                leaving.append(each)
        self._lifecycle.emit(event)
        for delivery, settlement in leaving:
            self._left(delivery, settlement)
        return _all_of(further) if further else None

    def _not_done(self, delivery: Delivery, settlement: Settlement) -> Deferred[None] | None:
        """Change a delivery by a settlement other than success; return a Deferred if it must be settled once more."""
        binding, queue = delivery.binding, delivery.queue
        delivery.trace = None  # its attempt has ended
        further: Deferred[None] | None = None
        if settlement.state in (READY, WAITING):
            if delivery.cancelling:
                further = self.settle([(delivery, skipped(delivery, CANCELLED))])
            elif self._registry.for_queued(binding.id, settlement.version) is None:
                further = self.give_up(delivery)
            elif settlement.state == READY:
                self._queue_again(delivery, settlement.version)
            else:
                queue.leave(delivery)
                delivery.become(Phase.WAITING)
                if settlement.due_at is not None:
                    self._retries.waits(binding.id, settlement.due_at)
        else:
            queue.leave(delivery)
            delivery.become(Phase.DEAD if settlement.state == DEAD else Phase.DONE)
        return further

    def _left(self, delivery: Delivery, settlement: Settlement) -> None:
        """Called when a settled delivery has been removed from memory; release its lease and fire those who wait."""
        queue = delivery.queue
        delivery.binding.release()
        if not queue.begun:
            self._queues.tidy(queue)
        if delivery.cancelling:
            for operator in delivery.cancelling:
                operator.callback(settlement.skip_reason == CANCELLED)
        if self._watchers:
            for watcher in self._watchers.pop(delivery.event_id, ()):
                watcher.callback(Outcome(delivery, settlement))

    def _queue_again(self, delivery: Delivery, version: int) -> None:
        """Queue a delivery for an immediate retry, in the queue of the version that its row names now."""
        before, binding = delivery.queue, delivery.binding
        queue = self._queues.of(binding.id, version)
        before.begun -= 1
        delivery.queue = queue
        queue.hold(delivery)
        give_back_lease(delivery)
        self._scheduler.add(delivery)
        if queue is not before:
            self._queues.tidy(before)


def give_back_lease(delivery: Delivery) -> None:
    """Move a delivery's lease to its queue, as a lease on the version that will run it."""
    queue, binding = delivery.queue, delivery.binding
    if queue.holder is None:
        queue.holder = binding
    elif queue.holder is not binding:
        queue.holder.lease()
        binding.release()


def _all_of(deferreds: Sequence[Deferred[None]]) -> Deferred[None]:
    return gatherResults(deferreds).addCallback(lambda _: None)


class Interruptions:
    """Queues deliveries again whose calls were interrupted."""

    def __init__(
        self, clock: IReactorTime, registry: Registry, queues: Queues, scheduler: Scheduler, settler: Settler
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._queues = queues
        self._scheduler = scheduler
        self._settler = settler
        self._open = True

    def queue_again(self, delivery: Delivery, *, suspect: bool) -> Deferred[None]:
        """
        Queue a delivery again soon; give it up if no version can run it.

        :param suspect: whether it may have caused the end of its interpreter.
        :return: fires when the delivery is queued or given up.
        """
        delivery.deaths += suspect
        delivery.trace = None
        queue = self._queues.of(delivery.binding.id, delivery.queue.version)  # open again if the trigger came back
        if self._registry.for_queued(delivery.binding.id, queue.version) is None:
            return self._settler.give_up(delivery)
        pause = pause_after(delivery.interruptions)
        delivery.interruptions += 1
        delivery.become(Phase.INTERRUPTED)
        queue.begun -= 1
        queue.hold(delivery)
        give_back_lease(delivery)
        queued: Deferred[None] = Deferred()
        if self._open:
            self._queues.interrupted.add(delivery)
            delivery.again = self._clock.callLater(pause, self._queue, delivery, queued)
        return queued

    def _queue(self, delivery: Delivery, queued: Deferred[None]) -> None:
        self._queues.interrupted.discard(delivery)
        self._scheduler.add(delivery, first=True)
        queued.callback(None)

    def close(self) -> None:
        """Stop queueing deliveries again; the next server finds them in the store."""
        self._open = False
        for delivery in self._queues.interrupted:
            if delivery.again is not None:
                delivery.again.cancel()
        self._queues.interrupted.clear()
