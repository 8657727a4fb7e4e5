"""Lists of deliveries: each slice looks at a bounded number of rows, found by an index that is in order of ids."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from harn.model.delivery import READY, RUNNING, WAITING, State
from harn.store.deliveries import (
    DeadGroup,
    DeliveryFilter,
    IDeliveryLists,
    ListedDelivery,
    Slice,
    WholeDelivery,
    as_held,
    hidden_triggers,
    stored_states,
)
from harn.store.executor import Idea, reads
from harn.store.postgres.connection import PostgresConnection
from harn.store.postgres.deliveries import STATE
from harn.store.rows import NAMES, Running, attempt_of, is_chosen, listed

MOST_BYTES = 16 << 20
"""Bodies of one slice."""
MOST_HELD = 100
"""Triggers that are held, each by itself, whose ready deliveries are chosen one by one."""

_COLUMNS = (
    "d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, " + STATE + ", d.owner, d.attempts,"
    " coalesce(d.skip_reason, d.reason),"
    " CASE WHEN d.reason IS NULL THEN (SELECT a.error_class FROM attempts a WHERE a.delivery_id = d.id"
    " ORDER BY a.id DESC LIMIT 1) ELSE d.error_class END,"
    " CASE WHEN d.reason IS NULL THEN (SELECT a.error FROM attempts a WHERE a.delivery_id = d.id"
    " ORDER BY a.id DESC LIMIT 1) ELSE d.error END,"
    " d.received_at, d.due_at, d.settled_at, d.died_at, d.replay_of, d.replayed_as"
)
# The states are asked for by the expression of the index, which has all rows but those that are done.
_CANDIDATES = "SELECT d.id FROM deliveries d WHERE d.id < $1::bigint AND d.id >= $2::bigint{} ORDER BY d.id DESC LIMIT "
_OF_TRIGGER = " AND d.trigger_id = ${}::text"
_OF_KIND = " AND d.kind = ${}::text"
_OF_STATES = " AND (" + STATE + " = ANY (${}::smallint[]){})"
_OR_READY_OF = " OR (d.state = 0 AND d.trigger_id = ANY (${}::text[]))"
_NOT_DONE = " AND (d.state <> 2 OR d.ended_as > 0)"
_AMONG = " AND d.id = ANY (${}::bigint[])"
_LISTED = (
    "SELECT {} FROM deliveries d{} WHERE d.id = ANY ($1::bigint[])"
    " AND NOT (d.state = 0 AND d.trigger_id = ANY ($2::text[])) ORDER BY d.id DESC"
)
_WITHOUT_EVENT = _LISTED.format(_COLUMNS, "")
_WITH_EVENT = _LISTED.format(_COLUMNS + ", e.envelope, e.body", " JOIN events e ON e.id = d.id")
_WHOLE = (
    "SELECT " + _COLUMNS + ", e.envelope, e.body, d.result FROM deliveries d JOIN events e ON e.id = d.id"
    " WHERE d.event_id = $1::text ORDER BY d.id"
)
_ATTEMPTS = (
    "SELECT number, version, started_at, completed_at, outcome, error_class, error, traceback, output FROM attempts"
    " WHERE delivery_id = $1::bigint ORDER BY id"
)
_PLACE = "SELECT min(id) FROM deliveries WHERE event_id = $1::text"
_GROUPS = (
    "SELECT trigger_id, reason, error_class, count(*), min(settled_at), max(settled_at), max(id)"
    " FROM deliveries WHERE state = 3 AND ($1::text IS NULL OR trigger_id = $1::text)"
    " GROUP BY trigger_id, reason, error_class"
)
_GROUPS_WITH_EXAMPLES = "SELECT g.*, d.event_id FROM (" + _GROUPS + ") AS g JOIN deliveries d ON d.id = g.max_id"
_GROUPS_WITH_EXAMPLES = _GROUPS_WITH_EXAMPLES.replace("max(id)", "max(id) AS max_id")
_ENDS = "SELECT min(id), max(id) FROM deliveries"
_NEXT = "SELECT id, received_at FROM deliveries WHERE id >= $1::bigint ORDER BY id LIMIT 1"


@implementer(IDeliveryLists)
class PostgresDeliveryLists(Idea):
    """
    `IDeliveryLists` on PostgreSQL.

    :ivar nothing_runs: no server uses the store: what ran when one was killed is ready, or waits, as it is stored.
    """

    nothing_runs = False

    @reads
    def part(
        self,
        connection: PostgresConnection,
        chosen: DeliveryFilter,
        before: int | None,
        rows: int,
        limit: int,
        events: bool,
    ) -> Slice:
        """See `IDeliveryLists.part`."""
        running = self._running()
        lowest = 0 if chosen.since is None else first_since(connection, chosen.since)
        below = 1 << 62 if before is None else before
        ids = _candidates(connection, chosen, running, below, lowest, rows)
        found: list[ListedDelivery] = []
        size, looked_at = 0, below
        values = (ids, hidden_triggers(chosen))
        for row in connection.execute(_WITH_EVENT if events else _WITHOUT_EVENT, values):
            if len(found) == limit or size > MOST_BYTES:
                return Slice(deliveries=tuple(found), before=looked_at)
            looked_at = row[0]
            delivery = as_held(listed(row, running), chosen.holds)
            if is_chosen(delivery, chosen):
                found.append(delivery)
                size += len(delivery.body)
        return Slice(deliveries=tuple(found), before=ids[-1] if len(ids) == rows else None)

    @reads
    def whole(self, connection: PostgresConnection, event_id: str) -> Sequence[WholeDelivery]:
        """See `IDeliveryLists.whole`."""
        running = self._running()
        return [
            WholeDelivery(
                delivery=listed(row, running),
                attempts=tuple(map(attempt_of, connection.execute(_ATTEMPTS, (row[0],)))),
                result=row[20],
            )
            for row in connection.execute(_WHOLE, (event_id,)).fetchall()
        ]

    @reads
    def place(self, connection: PostgresConnection, event_id: str) -> int | None:
        """See `IDeliveryLists.place`."""
        (number,) = connection.execute(_PLACE, (event_id,)).fetchone()
        return None if number is None else int(number)

    @reads
    def dead_groups(self, connection: PostgresConnection, trigger: str | None) -> Sequence[DeadGroup]:
        """See `IDeliveryLists.dead_groups`."""
        groups = [
            DeadGroup(
                trigger_id=row[0],
                reason=row[1],
                error_class=row[2],
                count=row[3],
                first=row[4],
                last=row[5],
                example_id=row[7],
            )
            for row in connection.execute(_GROUPS_WITH_EXAMPLES, (trigger,))
        ]
        return sorted(groups, key=lambda group: group.last, reverse=True)

    def _running(self) -> Running:
        """Return the deliveries that run; none do where no server has the store open."""
        return {} if self.nothing_runs else self._executor.notes.read()


def _candidates(
    connection: PostgresConnection, chosen: DeliveryFilter, running: Running, below: int, lowest: int, most: int
) -> list[int]:
    """Return the ids of the next rows to look at, at most so many: each that is chosen is among them."""
    values: list[Any] = [below, lowest]
    conditions = ""

    def add(condition: str, value: Any, more: str = "") -> None:
        nonlocal conditions
        values.append(value)
        conditions += condition.format(len(values), more) if more or "{}" in condition else condition

    if chosen.trigger is not None:
        add(_OF_TRIGGER, chosen.trigger)
    if chosen.kind is not None:
        add(_OF_KIND, chosen.kind)
    if chosen.states == {RUNNING}:
        add(_AMONG, [number for numbers in running.values() for number in numbers])
    elif chosen.states:
        states, ready_of = _stored(chosen)
        more = ""
        if ready_of:
            values.append(ready_of)
            more = _OR_READY_OF.format(len(values))
        add(_OF_STATES, [NAMES.index(state) for state in states], more)
        if State.DONE not in states:
            conditions += _NOT_DONE
    values.append(most)
    statement = _CANDIDATES.format(conditions) + f"${len(values)}::bigint"
    return [number for (number,) in connection.execute(statement, values)]


def _stored(chosen: DeliveryFilter) -> tuple[set[State], list[str]]:
    """Return the stored states of chosen deliveries, and the held triggers of which ready ones are chosen, too."""
    holds, trigger = chosen.holds, chosen.trigger
    if trigger is not None:
        return stored_states(chosen.states, holds.of(trigger) is not None), []
    states = stored_states(chosen.states, holds.of_all is not None)
    if WAITING not in chosen.states or READY in states:
        return states, []
    if len(holds.by_trigger) > MOST_HELD:
        return {*states, READY}, []
    return states, list(holds.by_trigger)


def first_since(connection: PostgresConnection, since: float) -> int:
    """Return the id of the first delivery accepted at ``since`` (seconds, Unix) or later, by halving the ids."""
    low, high = connection.execute(_ENDS).fetchone()
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_NEXT, (middle,)).fetchone()
        if row is None or row[1] >= since:
            high = middle
        else:
            low = row[0] + 1
    return int(low)
