"""The reading of a list, slice by slice, until enough is found or all is read. Pure."""

from __future__ import annotations

from attrs import define, field

from harn.deliveries.selection import NotEvaluated, Selection
from harn.store.lists import DeliveryFilter, ListedDelivery, Slice

FEWEST, MOST = 200, 5000
"""Rows of the first slice, and of the largest."""
WITH_EVENTS = 500
"""Rows of the largest slice that has the bytes of events."""


@define
class Scan:
    """
    One reading of a list, the newest first.

    :ivar limit: how many deliveries are wanted.
    :ivar now: seconds, Unix: the age of a delivery is measured from it.
    :ivar before: the reading goes on with ids less than this; None: at the newest.
    :ivar is_at_end: whether nothing is left to read.
    :ivar passed_over: how many deliveries the expression could not be evaluated on; ``problem`` says why, of the first.
    """

    selection: Selection
    limit: int
    now: float
    before: int | None = None
    found: list[ListedDelivery] = field(factory=list)
    is_at_end: bool = False
    passed_over: int = 0
    problem: str | None = None
    _rows: int = 0

    @property
    def needs_more(self) -> bool:
        """Return whether another slice is to be read."""
        return not self.is_at_end and len(self.found) < self.limit

    def request(self) -> tuple[DeliveryFilter, int | None, int, int, bool]:
        """Return the arguments of the next `IDeliveryLists.part`; each slice is larger than the one before."""
        where = self.selection.where
        with_events = where is not None and where.needs_event
        self._rows = min(max(self._rows * 2, FEWEST, self.limit), WITH_EVENTS if with_events else MOST)
        return self.selection.chosen, self.before, self._rows, self._wanted(), with_events

    def _wanted(self) -> int:
        return self._rows if self.selection.where is not None else self.limit - len(self.found)

    def add(self, part: Slice) -> None:
        """Add what is chosen out of a slice; with an expression, call this off the reactor's thread."""
        for delivery in part.deliveries:
            if len(self.found) == self.limit:
                return
            self.before = delivery.delivery_id
            if self._holds(delivery):
                self.found.append(delivery)
        self.before = part.before
        self.is_at_end = part.before is None

    def _holds(self, delivery: ListedDelivery) -> bool:
        where = self.selection.where
        if where is None:
            return True
        try:
            return where.holds(delivery, self.now)
        except NotEvaluated as error:
            self.passed_over += 1
            self.problem = self.problem or f"{delivery.event_id}: {error}"
            return False
