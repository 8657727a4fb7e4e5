"""
Large bodies: in memory while their delivery runs, in the event log otherwise; together they take a bounded space.

A delivery that waits for its turn does not hold a large body: it is read back when the turn comes. One that does not
fit beside those that run waits apart, where it keeps no other from its turn.
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
    Counts the bytes of what runs.

    :ivar max_bytes: most that large bodies may take together; one alone may be larger.
    :ivar bytes: what all deliveries that run take.
    """

    def __init__(self, deliveries: IDeliveries, max_bytes: int = MAX_BYTES) -> None:
        self._deliveries = deliveries
        self.max_bytes = max_bytes
        self.bytes = 0
        self._large = 0

    def fits(self, delivery: Delivery) -> bool:
        """Return whether there is room for a delivery beside those that run."""
        return not delivery.large or not self._large or self._large + delivery.large <= self.max_bytes

    def begin(self, delivery: Delivery) -> None:
        """Count a delivery that begins."""
        self.bytes += delivery.size
        if delivery.large:
            self._large += delivery.large
            self.bytes += delivery.large

    def end(self, delivery: Delivery) -> None:
        """Stop counting a delivery, and release its body if that is large."""
        self.bytes -= delivery.size
        if delivery.large:
            self._large -= delivery.large
            self.bytes -= delivery.large
            delivery.drop_body()

    def read(self, delivery: Delivery) -> Deferred[None] | None:
        """
        Read the body of a delivery that does not hold it; None when it does.

        :raises CallInterrupted: it cannot be read now; the delivery is to begin again later.
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
