"""Deliveries whose call ended with their interpreter: each is queued again in a moment, without using an attempt."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.queues import Queues
from harn.dispatch.retry import pause_after
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.settler import Settler, give_back_lease
from harn.triggers.registry import Registry


class Interruptions:
    """Queues deliveries again."""

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
        Queue a delivery again soon; where no version is left for it, give it up.

        :param suspect: it may have caused the end of its interpreter.
        :return: fires when it is queued, or given up.
        """
        delivery.deaths += suspect
        queue = self._queues.of(delivery.binding.id, delivery.queue.version)  # open again, if the trigger came back
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
        """Queue nothing again; the next server finds it."""
        self._open = False
        for delivery in self._queues.interrupted:
            if delivery.again is not None:
                delivery.again.cancel()
        self._queues.interrupted.clear()
