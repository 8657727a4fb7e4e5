"""Lists of deliveries on every dialect: a slice looks at a bounded number of rows, whatever matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from harn.store.database import Connection
from harn.store.deliveries import (
    DeadGroup,
    DeliveryFilter,
    ListedDelivery,
    Slice,
    WholeDelivery,
    as_held,
    hidden_triggers,
)
from harn.store.executor import Idea, reads
from harn.store.rows import Running, attempt_of, is_chosen, listed

MOST_BYTES = 16 << 20
"""Bodies of one slice."""
MOST_HELD = 100
"""Triggers that are held, each by itself, of which ready deliveries are chosen one by one."""
ATTEMPT_COLUMNS = "number, version, started_at, completed_at, outcome, error_class, error"
"""Of ``attempts``, as `attempt_of` reads them; then, where asked for, `traceback` and `output`."""


def listed_columns(state: str) -> str:
    """Return the columns that `listed` reads, but for the event's; ``state``: the number of the state."""
    last = "CASE WHEN d.reason IS NULL THEN (SELECT a.{0} FROM attempts a WHERE a.delivery_id = d.id"
    last += " ORDER BY a.id DESC LIMIT 1) ELSE d.{0} END"
    return (
        f"d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, {state}, d.owner, d.attempts,"
        f" coalesce(d.skip_reason, d.reason), {last.format('error_class')}, {last.format('error')},"
        " d.received_at, d.due_at, d.settled_at, d.died_at, d.replay_of, d.replayed_as"
    )


class ListStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar listed: ids, trigger or None, kind or None, triggers whose ready ones are left out; as `listed` reads it, the
        newest first.
    :ivar listed_with_event: the same, with the event.
    :ivar whole: event id; as `listed` reads it, with the event, then the result.
    :ivar attempts: delivery; as `attempt_of` reads it.
    :ivar place: event id.
    :ivar groups: none.
    :ivar groups_of: trigger.
    :ivar ends: none: the lowest and the highest id.
    :ivar next: an id: it or the next above it, and when it came.
    """

    listed: str
    listed_with_event: str
    whole: str
    attempts: str
    place: str
    groups: str
    groups_of: str
    ends: str
    next: str


class DeliveryListsHalf(Idea):
    """
    `harn.store.deliveries.IDeliveryLists` with the statements of ``sql``.

    :ivar nothing_runs: no server uses the store: what ran when one was killed is ready, or waits, as it is stored.
    """

    sql: ClassVar[ListStatements]
    nothing_runs = False

    def _candidates(
        self, connection: Connection, chosen: DeliveryFilter, running: Running, below: int, lowest: int, most: int
    ) -> list[int]:
        """Return the ids of the next rows to look at, the newest first, at most so many: each chosen one is there."""
        raise NotImplementedError

    @reads
    def part(
        self,
        connection: Connection,
        chosen: DeliveryFilter,
        before: int | None,
        rows: int,
        limit: int,
        events: bool,
    ) -> Slice:
        """See `IDeliveryLists.part`."""
        running = self._running()
        lowest = 0 if chosen.since is None else self._first_since(connection, chosen.since)
        below = 1 << 62 if before is None else before
        ids = self._candidates(connection, chosen, running, below, lowest, rows)
        found: list[ListedDelivery] = []
        size, looked_at = 0, below
        array = self._executor.arrays.of
        values = (array(ids), chosen.trigger, chosen.kind, array(hidden_triggers(chosen)))
        for row in connection.execute(self.sql.listed_with_event if events else self.sql.listed, values):
            if len(found) == limit or size > MOST_BYTES:
                return Slice(deliveries=tuple(found), before=looked_at)
            looked_at = row[0]
            delivery = as_held(listed(row, running), chosen.holds)
            if is_chosen(delivery, chosen):
                found.append(delivery)
                size += len(delivery.body)
        return Slice(deliveries=tuple(found), before=ids[-1] if len(ids) == rows else None)

    @reads
    def whole(self, connection: Connection, event_id: str) -> Sequence[WholeDelivery]:
        """See `IDeliveryLists.whole`."""
        running = self._running()
        return [
            WholeDelivery(
                delivery=listed(row, running),
                attempts=tuple(map(attempt_of, connection.execute(self.sql.attempts, (row[0],)))),
                result=row[20],
            )
            for row in connection.execute(self.sql.whole, (event_id,)).fetchall()
        ]

    @reads
    def place(self, connection: Connection, event_id: str) -> int | None:
        """See `IDeliveryLists.place`."""
        (number,) = connection.execute(self.sql.place, (event_id,)).fetchone()
        return None if number is None else int(number)

    @reads
    def dead_groups(self, connection: Connection, trigger: str | None) -> Sequence[DeadGroup]:
        """See `IDeliveryLists.dead_groups`."""
        if trigger is None:
            rows = connection.execute(self.sql.groups)
        else:
            rows = connection.execute(self.sql.groups_of, (trigger,))
        groups = [
            DeadGroup(
                trigger_id=row[0],
                reason=row[1],
                error_class=row[2],
                count=row[3],
                first=row[4],
                last=row[5],
                example_id=row[6],
            )
            for row in rows
        ]
        return sorted(groups, key=lambda group: group.last, reverse=True)

    def _running(self) -> Running:
        """Return the deliveries that run; none do where no server has the store open."""
        return {} if self.nothing_runs else self._executor.notes.read()

    def _first_since(self, connection: Connection, since: float) -> int:
        """Return the id of the first delivery accepted at ``since`` (seconds, Unix) or later; 0 where there is none."""
        low, last = connection.execute(self.sql.ends).fetchone()
        return 0 if low is None else first_at(connection, self.sql.next, low, last, since)


def first_at(connection: Connection, probe: str, low: int, last: int, since: float) -> int:
    """
    Return the id of the first row whose time is ``since`` (seconds, Unix) or later, by halving the ids.

    Ids rise with time but for the order within a moment, and for a clock that was set back: a row is left out only when
    it has a lower id than one from before ``since``.

    :param probe: the statement for an id: it or the next above it, and its time.
    :param low: the lowest id.
    :param last: the highest id.
    """
    high = last + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(probe, (middle,)).fetchone()
        if row is None or row[1] >= since:
            high = middle
        else:
            low = int(row[0]) + 1
    return low
