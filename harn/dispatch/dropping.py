"""
Drops the deliveries that other servers have taken over: all that this server accepted before it was fenced.

Deliveries that have not begun are removed from memory, with their leases. Running ones continue, since their effects
cannot be undone, and their outcomes are dropped. One that is being settled is dropped when the store answers that
another server owns it.
"""

from __future__ import annotations

from harn.dispatch.queue import Queue
from harn.dispatch.queues import Queues
from harn.dispatch.retries import Retries
from harn.dispatch.scheduler import Scheduler
from harn.lifecycle import Lifecycle, TakenAway
from harn.triggers.registry import Registry


class Dropping:
    """Drops the deliveries that other servers have taken over."""

    def __init__(
        self, registry: Registry, lifecycle: Lifecycle, queues: Queues, scheduler: Scheduler, retries: Retries
    ) -> None:
        self._registry = registry
        self._lifecycle = lifecycle
        self._queues = queues
        self._scheduler = scheduler
        self._retries = retries

    def drop_all(self) -> None:
        """Drop all deliveries in memory, and all that are counted as being only in the store."""
        for delivery in self._scheduler.running.values():
            delivery.is_taken = True
        count = sum(self._registry.waiting.values())
        for queue in list(self._queues):
            count += self._drop_unbegun(queue)
        for trigger_id in list(self._registry.waiting):
            self._registry.retries_end(trigger_id, None)
        self._retries.clear()
        self._lifecycle.emit(TakenAway(count))

    def _drop_unbegun(self, queue: Queue) -> int:
        for delivery in self._scheduler.unload(queue):
            operators, delivery.cancelling = delivery.cancelling, ()
            queue.put_back(delivery)
            for operator in operators:
                operator.callback(False)
        count, queue.stored = queue.stored, 0
        queue.is_outdated = queue.is_reading
        self._queues.hungry.pop(queue, None)
        self._queues.orphans.pop(queue, None)
        if count and queue.holder is not None:
            queue.holder.release(count)
        self._queues.tidy(queue)
        return count
