"""
Large bodies: kept in memory only while their delivery runs, within a limit for all of them; else in the store alone.

A delivery that waits in a queue does not hold its large body: the body is read from the store when the delivery begins.
A delivery whose body exceeds the free memory waits in a separate line, so that it does not delay smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from harn.dispatch.delivery import Delivery
from harn.errors import CallInterrupted, EventLogUnavailable
from harn.model.delivery import StoredDelivery
from harn.store.deliveries import IDeliveries

MAX_BYTES = 64 * 1024 * 1024


class RunningBodies:
    """
    Counts the bytes of the running deliveries.

    :ivar max_bytes: the most bytes of all large bodies together; a single one may be larger if it runs alone.
    :ivar bytes: the bytes of all deliveries that run.
    """

    def __init__(self, deliveries: IDeliveries, max_bytes: int = MAX_BYTES) -> None:
        self._deliveries = deliveries
        self.max_bytes = max_bytes
        self.bytes = 0
        self._large = 0

    def fits(self, delivery: Delivery) -> bool:
        """Return whether the body of a delivery fits in memory beside those of the running deliveries."""
        return not delivery.large or not self._large or self._large + delivery.large <= self.max_bytes

    def begin(self, delivery: Delivery) -> None:
        """Add the bytes of a delivery that begins."""
        self.bytes += delivery.size
        if delivery.large:
            self._large += delivery.large
            self.bytes += delivery.large

    def end(self, delivery: Delivery) -> None:
        """Stop counting the bytes of a delivery that has ended, and release its body if it is large."""
        self.bytes -= delivery.size
        if delivery.large:
            self._large -= delivery.large
            self.bytes -= delivery.large
            delivery.drop_body()

    def read(self, delivery: Delivery) -> Deferred[None] | None:
        """
        Read the body of a delivery from the store; return None if the delivery has its body in memory.

        :raises CallInterrupted: (as a failure) the body cannot be read now; the delivery must begin again later.
        """
        if delivery.body is not None:
            return None

        def found(rows: Sequence[StoredDelivery]) -> None:
            delivery.body = next((row.body for row in rows if row.delivery_id == delivery.delivery_id), None)
            if delivery.body is None:
                raise CallInterrupted(f"the event log has no body of {delivery.event_id}", suspect=False)

        def not_read(failure: Failure) -> None:
            failure.trap(EventLogUnavailable)
            raise CallInterrupted(f"the body cannot be read: {failure.getErrorMessage()}", suspect=False)

        return self._deliveries.find(delivery.event_id).addCallbacks(found, not_read)
