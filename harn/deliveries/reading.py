"""
The reading of deliveries for operators: in slices, off the reactor's thread, for a bounded time.

`Scan` is pure: it says which slice to read next, and keeps what is chosen. Imports nothing of Twisted: commands read a
store without a server, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import define, evolve, field, frozen

from harn.clocks import WallTime
from harn.deliveries.selection import NotEvaluated, Selection
from harn.errors import DeliveryUnknown, RouteUnknown
from harn.store.deliveries import DeliveryFilter, IDeliveryLists, ListedDelivery, Slice, WholeDelivery, as_held
from harn.store.holds import Holds

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from harn.waiting import InThread

FEWEST, MOST = 200, 5000
"""Rows of the first slice, and of the largest."""
WITH_EVENTS = 500
"""Rows of the largest slice that has the bytes of events."""
LONGEST = 2.0
"""Seconds after which a list ends where it has come to."""


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


class HoldSource(Protocol):
    """The gates of a server, or, where none runs, what its records say: `harn.store.holds.RecordedHolds`."""

    def holds(self, now: float) -> Holds:
        """Return what is held at a time (seconds, Unix)."""


@frozen(kw_only=True)
class DeliveryReader:
    """Reads deliveries out of a server's store."""

    clock: IReactorTime
    wall: WallTime
    lists: IDeliveryLists
    gates: HoldSource
    in_thread: InThread

    async def scan(self, selection: Selection, limit: int, before: int | None = None, longest: float = LONGEST) -> Scan:
        """
        Read the next deliveries of a selection, the newest first, up to ``limit``.

        :param before: go on with ids less than this: the ``before`` of the scan that ended there.
        :param longest: seconds after which to end where it has come to, after one slice at least.
        :raises EventLogUnavailable: the store cannot be read.
        """
        now = self.wall.seconds()
        scan = Scan(selection=selection.held(self.gates.holds(now)), limit=limit, now=now, before=before)
        began = self.clock.seconds()
        while scan.needs_more:
            part = await self.lists.part(*scan.request())
            if selection.where is None:
                scan.add(part)
            else:
                await self.in_thread(scan.add, part)
            if self.clock.seconds() - began >= longest:
                break
        return scan

    async def whole(self, event_id: str) -> WholeDelivery:
        """
        Return the delivery of an event.

        :raises DeliveryUnknown: there is none.
        """
        found = only(event_id, await self.lists.whole(event_id))
        return evolve(found, delivery=as_held(found.delivery, self.gates.holds(self.wall.seconds())))

    async def place(self, event_id: str) -> int:
        """
        Return the number of an event's delivery, from which a list goes on.

        :raises DeliveryUnknown: there is none.
        """
        found = await self.lists.place(event_id)
        if found is None:
            raise unknown(event_id)
        return int(found)


def only(event_id: str, found: Sequence[WholeDelivery]) -> WholeDelivery:
    """
    Return the delivery of an event out of those that were found.

    :raises DeliveryUnknown: there is none.
    """
    if not found:
        raise unknown(event_id)
    return found[-1]


def unknown(event_id: str) -> DeliveryUnknown:
    """Return the error for an id that no delivery has, which says what to do."""
    return DeliveryUnknown(
        f"no delivery has the id {event_id!r}; `harn orchestrator deliveries` lists them, and with"
        f" --where \"event.dedupe_key == '...'\" finds one by its sender's id"
    )


def unknown_job(job_id: int) -> RouteUnknown:
    """Return the error for a number that no job has, which says what to do."""
    return RouteUnknown(f"there is no job {job_id}; `harn orchestrator jobs` lists them")
