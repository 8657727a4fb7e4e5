"""
Reads the rows of queues back from the store when there is room in memory: one queue at a time, in their order.

At most as many rows of a queue are read as it counts as being only in the store, whichever rows the store returns: the
queue holds one lease for each. So a row may be read before its commit is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.delivery import Delivery
from harn.dispatch.queue import Queue
from harn.dispatch.queues import Queues
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.timers import Wakeups
from harn.model.delivery import StoredDelivery
from harn.store.deliveries import IDeliveries

log = Logger(namespace="harn.dispatch")

INTERVAL = 1.0
"""Seconds from a failed read to the next one."""


class Refill:
    """Fills queues with rows from the store."""

    def __init__(
        self, clock: IReactorTime, deliveries: IDeliveries, queues: Queues, scheduler: Scheduler, wakeups: Wakeups
    ) -> None:
        self._clock = clock
        self._deliveries = deliveries
        self._queues = queues
        self._scheduler = scheduler
        self._wakeups = wakeups
        self._rests_until = 0.0
        self._open, self._is_held = True, False

    def begin(self) -> Deferred[None] | None:
        """
        Begin to read rows of the queue that has waited longest for a read.

        :return: fires when the deliveries are in memory; None if no rows must be read, or a read is in progress.
        """
        queues = self._queues
        if (
            queues.is_reading
            or self._is_held
            or not self._open
            or not queues.hungry
            or self._clock.seconds() < self._rests_until
        ):
            return None
        while queues.hungry:
            queue = next(iter(queues.hungry))
            room = queues.room.for_queue(queue)
            if not room and not queue.count:
                return None  # all memory is taken
            del queues.hungry[queue]
            if room and queue.stored and queue.is_open and queue.share.held is None:
                return self._read(queue, min(room, queue.stored))
        return None

    def hold(self) -> None:
        """Read nothing until `resume`, and do not use the rows that are being read."""
        self._is_held = True
        for queue in self._queues:
            queue.is_outdated = queue.is_reading

    def resume(self) -> None:
        """End `hold`."""
        self._is_held = False

    def close(self) -> None:
        """Stop reading."""
        self._open = False

    def _read(self, queue: Queue, limit: int) -> Deferred[None]:
        self._queues.is_reading = queue.is_reading = queue.share.is_reading = True
        queue.is_outdated = False
        share, max_bytes = queue.share, self._queues.room.bytes_for(queue)
        excluded = (*share.in_hand, *share.barred)
        # A row that another server took over may belong to this server again while its old handler still runs here.
        left_out = len(share.barred) + sum(each.is_taken for each in share.in_hand.values())
        reading = self._deliveries.ready(share.trigger_id, queue.version, excluded, limit, max_bytes)
        return reading.addBoth(self._over, queue).addCallbacks(
            self._came, self._failed, callbackArgs=(queue, left_out), errbackArgs=(queue,)
        )

    def _over(self, result: object, queue: Queue) -> object:
        self._queues.is_reading = queue.is_reading = queue.share.is_reading = False
        return result

    def _came(self, rows: Sequence[StoredDelivery], queue: Queue, left_out: int) -> None:
        has_left = bool(queue.share.ended)
        ended, in_hand = queue.share.ended | queue.share.barred, queue.share.in_hand
        queue.share.ended = set()
        if self._open and queue.is_open and queue.share.held is None and not queue.is_outdated:
            for row in rows:
                if queue.stored <= 0:
                    break
                if row.delivery_id not in in_hand and row.delivery_id not in ended:
                    queue.stored -= 1
                    self._scheduler.hold(Delivery.stored(row, queue))
            if not rows and queue.stored > left_out:
                self._missing(queue, left_out)
        # Else each row left is being cancelled, or its old handler runs; when that has ended, the queue is noted.
        if rows or not left_out or has_left or queue.is_outdated:
            self._queues.note(queue)
        self._queues.tidy(queue)

    def _missing(self, queue: Queue, left_out: int) -> None:
        """
        Called when the store has no ready rows of a queue that counts some, since another server took them over.

        :param left_out: how many rows were skipped, because they are being cancelled or an old handler runs them; the
            queue still counts these.
        """
        log.error(
            "{count} deliveries of {trigger}@v{version} belong to another server now",
            count=queue.stored - left_out,
            trigger=queue.share.trigger_id,
            version=queue.version,
        )
        lost, queue.stored = queue.stored - left_out, left_out
        if queue.holder is not None:
            queue.holder.release(lost)

    def _failed(self, failure: Failure, queue: Queue) -> None:
        queue.share.ended.clear()
        log.warn("cannot read ready deliveries, trying again: {error}", error=failure.getErrorMessage())
        self._rests_until = self._clock.seconds() + INTERVAL
        self._wakeups.wake_within(INTERVAL)
        self._queues.note(queue)
