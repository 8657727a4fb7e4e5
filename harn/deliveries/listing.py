"""The reading of deliveries for operators: off the reactor's thread, in slices, for a bounded time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from harn.clocks import WallTime
from harn.deliveries.describing import only, unknown
from harn.deliveries.scan import Scan
from harn.deliveries.selection import Selection
from harn.store.holds import Holds
from harn.store.lists import IDeliveryLists, WholeDelivery, as_held

LONGEST = 2.0
"""Seconds after which a list ends where it has come to."""


class InThread(Protocol):
    """Calls a function off the reactor's thread."""

    def __call__(self, function: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]:
        """Return what it returns."""


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
