"""
Selection of deliveries by state, trigger, kind, age and an expression, and the reader that scans the store for them.

`refusal` says in which states a delivery may be replayed, cancelled or discarded. `Scan`, without I/O, says which slice
to read next, and keeps the selected deliveries. `DeliveryReader` reads the slices, off the reactor thread, for a
limited time. This module does not import Twisted, as commands also read a store without a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import define, evolve, field
from msgspec import Struct
from msgspec.structs import replace

from harn.clocks import WallTime
from harn.deliveries.expressions import NotEvaluated, Where, compile_where
from harn.errors import DeliveryUnknown, RouteUnknown
from harn.model.delivery import CANCELLED, DISCARDED, DONE, REPLAYED, SKIPPED, State
from harn.store.deliveries import DeliveryFilter, IDeliveryLists, ListedDelivery, Slice, WholeDelivery, as_held
from harn.store.holds import Holds
from harn.store.jobs import CANCEL, DISCARD, REPLAY

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from harn.waiting import ReactorThreads


ALLOWED: Mapping[str, frozenset[State]] = {
    REPLAY: frozenset((DONE, SKIPPED, *(state for state in State if state.may_become(REPLAYED)))),
    CANCEL: frozenset(state for state in State if state.may_become(SKIPPED)),
    DISCARD: frozenset(state for state in State if state.may_become(DISCARDED)),
}
"""The states that allow each operation."""
PAST = {REPLAY: "replayed", CANCEL: "cancelled", DISCARD: "discarded"}
"""The participle for a delivery after each operation, for messages and counts."""


class Selection(Struct, frozen=True, kw_only=True):
    """
    A selection of deliveries: those that pass the filter, and for which the expression, if any, is true.

    :ivar chosen: the filter, by columns for which the store has indices.
    """

    chosen: DeliveryFilter
    where: Where | None = None

    @classmethod
    def of(
        cls,
        now: float,
        *,
        states: frozenset[State] = frozenset(),
        trigger: str | None = None,
        kind: str | None = None,
        since: float | None = None,
        where: str | None = None,
    ) -> Selection:
        """
        Return a selection.

        :param now: the present time (seconds, Unix).
        :param since: select deliveries accepted in so many seconds before ``now``; None for all.
        :raises ValueError: see `compile_where`.
        """
        return cls(
            chosen=DeliveryFilter(
                states=states, trigger=trigger, kind=kind, since=None if since is None else now - since
            ),
            where=None if where is None else compile_where(where),
        )

    def held(self, holds: Holds) -> Selection:
        """Return the same selection while these triggers are held."""
        return replace(self, chosen=evolve(self.chosen, holds=holds))


def read_states(text: str) -> frozenset[State]:
    """
    Read the names of states, with commas between them.

    :raises ValueError: one is not the name of a state.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in tuple(State)]
    if wrong:
        raise ValueError(f"state: must be one or more of {', '.join(State)}, got {wrong[0]!r}")
    return frozenset(map(State, names))


def gone(trigger_id: str) -> str:
    """Return why deliveries of a removed trigger cannot be replayed."""
    return f"its trigger {trigger_id} is not in the manifest any more; put it back, reload, and replay again"


def refusal(operation: str, delivery: ListedDelivery) -> str | None:
    """Return why the state of a delivery does not allow an operation; None if it does."""
    if delivery.state in ALLOWED[operation]:
        return None
    allowed = ", ".join(state for state in State if state in ALLOWED[operation])
    return f"it is {describe_state(delivery)}; only what is {allowed} can be {PAST[operation]}"


def describe_state(delivery: ListedDelivery) -> str:
    """Return the state of a delivery, with what it names."""
    state = delivery.state
    if state is SKIPPED:
        return f"{state} ({delivery.reason})" if delivery.reason else state
    return f"{state} as {delivery.replayed_as}" if state is State.REPLAYED and delivery.replayed_as else state


def is_cancelled(delivery: ListedDelivery) -> bool:
    """Return whether a delivery ended as one that an operator cancelled."""
    return delivery.state is SKIPPED and delivery.reason == CANCELLED


FEWEST, MOST = 200, 5000
"""Rows of the first slice, and of the largest."""
WITH_EVENTS = 500
"""Rows of the largest slice that has the bytes of events."""
LONGEST = 2.0
"""Seconds after which the reading of a list ends."""


@define
class Scan:
    """
    The reading of one list of deliveries, the newest first.

    :ivar limit: the number of deliveries wanted.
    :ivar now: the time from which ages are measured (seconds, Unix).
    :ivar before: the next slice has ids less than this; None to begin with the newest.
    :ivar is_at_end: whether nothing is left to read.
    :ivar passed_over: the number of deliveries on which the expression could not be evaluated.
    :ivar problem: why not, for the first of them.
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
        """Return the arguments of the next `IDeliveryLists.part`; each slice is larger than the previous one."""
        where = self.selection.where
        with_events = where is not None and where.needs_event
        self._rows = min(max(self._rows * 2, FEWEST, self.limit), WITH_EVENTS if with_events else MOST)
        return self.selection.chosen, self.before, self._rows, self._wanted(), with_events

    def _wanted(self) -> int:
        return self._rows if self.selection.where is not None else self.limit - len(self.found)

    def add(self, part: Slice) -> None:
        """Add the selected deliveries of a slice; with an expression, call this off the reactor's thread."""
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
    """The gates of a server, or its recorded holds if none runs: `harn.store.holds.RecordedHolds`."""

    def holds(self, now: float) -> Holds:
        """Return the holds at a time (seconds, Unix)."""


class DeliveryReader(Struct, frozen=True, kw_only=True):
    """Reads deliveries out of a server's store."""

    clock: IReactorTime
    wall: WallTime
    lists: IDeliveryLists
    gates: HoldSource
    threads: ReactorThreads

    async def scan(self, selection: Selection, limit: int, before: int | None = None, longest: float = LONGEST) -> Scan:
        """
        Read the next deliveries of a selection, the newest first, up to ``limit``.

        :param before: read ids less than this: the ``before`` of an earlier scan; None to begin with the newest.
        :param longest: seconds after which reading ends, after one slice at least.
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
                await self.threads.call(scan.add, part)
            if self.clock.seconds() - began >= longest:
                break
        return scan

    async def whole(self, event_id: str) -> WholeDelivery:
        """
        Return the delivery of an event.

        :raises DeliveryUnknown: no delivery of this event is kept.
        """
        found = only(event_id, await self.lists.whole(event_id))
        return replace(found, delivery=as_held(found.delivery, self.gates.holds(self.wall.seconds())))

    async def place(self, event_id: str) -> int:
        """
        Return the number of an event's delivery, from which a list continues.

        :raises DeliveryUnknown: no delivery of this event is kept.
        """
        found = await self.lists.place(event_id)
        if found is None:
            raise unknown(event_id)
        return int(found)


def only(event_id: str, found: Sequence[WholeDelivery]) -> WholeDelivery:
    """
    Return the delivery of an event from those that were found.

    :raises DeliveryUnknown: no delivery of this event is kept.
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
