"""
Cancels single deliveries: the delivery ends as skipped; if its handler runs, the call is interrupted.

A delivery in memory is settled by the `Settler`. Any other is changed in the store, and its row is not read back until
that is on disk.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from harn.dispatch.delivery import Delivery, Phase
from harn.dispatch.queues import Queues
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.settlements import skipped
from harn.dispatch.settler import Settler
from harn.lifecycle import Lifecycle, Settled, SettledDelivery
from harn.model.delivery import CANCELLED, READY, SKIPPED, Settlement, StoredDelivery
from harn.store.deliveries import IDeliveries
from harn.triggers.registry import Registry


class Cancellations:
    """Cancels single deliveries, in memory or in the store."""

    def __init__(
        self,
        deliveries: IDeliveries,
        registry: Registry,
        lifecycle: Lifecycle,
        queues: Queues,
        scheduler: Scheduler,
        settler: Settler,
    ) -> None:
        self._deliveries = deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._queues = queues
        self._scheduler = scheduler
        self._settler = settler

    async def cancel(self, event_id: str, delivery_id: int) -> bool:
        """
        Cancel a delivery of an event.

        :return: True once its cancellation is on disk; False if it had ended before, or ended by itself meanwhile.
        :raises EventLogUnavailable: the store cannot be read, or a delivery that only the store holds cannot be
            changed; the delivery stays as it was.
        """
        row = next((each for each in await self._deliveries.find(event_id) if each.delivery_id == delivery_id), None)
        if row is None:
            return False
        for share in self._queues.shares(row.trigger_id):
            delivery = share.in_hand.get(delivery_id)
            if delivery is not None:
                return await self._cancel_in_hand(delivery)
        return await self._cancel_stored(row)

    def _cancel_in_hand(self, delivery: Delivery) -> Deferred[bool]:
        ended: Deferred[bool] = Deferred()
        delivery.cancelling += (ended,)
        queue = delivery.queue
        if delivery.phase in (Phase.QUEUED, Phase.INTERRUPTED):
            self._scheduler.remove(delivery)
            assert queue.holder is not None
            delivery.binding = queue.holder
            self._settler.settle([(delivery, skipped(delivery, CANCELLED))])
        elif delivery.calling is not None:
            delivery.calling.cancel()
        # Else it is being settled: the outcome of this attempt stays, and only a retry is cancelled.
        return ended

    async def _cancel_stored(self, row: StoredDelivery) -> bool:
        share = self._queues.of(row.trigger_id, row.version).share
        share.barred.add(row.delivery_id)
        try:
            found = await self._deliveries.skip(row.delivery_id, CANCELLED)
        finally:
            share.barred.discard(row.delivery_id)
            if share.is_reading:
                share.ended.add(row.delivery_id)
            for queue in list(share.queues.values()):
                self._queues.note(queue)  # a read may have skipped a row of this queue
                self._queues.tidy(queue)
        if found is None:
            return False
        binding = self._registry.newest(row.trigger_id)
        settlement = Settlement(
            delivery_id=row.delivery_id,
            state=SKIPPED,
            version=found.version,
            attempts=row.attempts,
            passed=row.passed,
            skip_reason=CANCELLED,
        )
        kind = "local" if binding is None else binding.handler_kind
        key = f"{row.trigger_id}@v{found.version}"
        settled = SettledDelivery(
            row.trigger_id, row.provider, key, row.event_id, row.envelope, False, settlement, kind
        )
        self._lifecycle.emit(Settled.of([settled]))
        # This comes last, since it may end the version, and with the version its trigger.
        if found.state == READY:
            self._queues.left(row.trigger_id, found.version)
        else:
            self._registry.retries_end(row.trigger_id, 1)
        return True
