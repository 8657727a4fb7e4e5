"""
Lists of deliveries: each is read from its candidates, whose ids `harn.store.sqlite.candidates` finds by indices.

A slice looks at a bounded number of rows, so that no list, however few rows of it match, holds up other reads.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from zope.interface import implementer

from harn.model.delivery import Attempt
from harn.store.deliveries import (
    DeadGroup,
    DeliveryFilter,
    IDeliveryLists,
    ListedDelivery,
    Slice,
    WholeDelivery,
    as_held,
    hidden_triggers,
)
from harn.store.executor import Idea, reads
from harn.store.rows import Running, attempt_of, is_chosen, listed
from harn.store.sqlite.candidates import candidates, first_since
from harn.store.sqlite.deliveries import STATE

MOST_BYTES = 16 << 20
"""Bodies of one slice."""
_COLUMNS = (
    "d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, " + STATE + ", d.owner, d.attempts,"
    " coalesce(d.skip_reason, d.reason),"
    " CASE WHEN d.reason IS NULL THEN (SELECT a.error_class FROM attempts a WHERE a.delivery_id = d.id"
    " ORDER BY a.id DESC LIMIT 1) ELSE d.error_class END,"
    " CASE WHEN d.reason IS NULL THEN (SELECT a.error FROM attempts a WHERE a.delivery_id = d.id"
    " ORDER BY a.id DESC LIMIT 1) ELSE d.error END,"
    " d.received_at, d.due_at, d.settled_at, d.died_at, d.replay_of, d.replayed_as"
)
_AMONG = " FROM json_each(?) AS chosen CROSS JOIN deliveries d ON d.id = chosen.value"
_EVENT = " CROSS JOIN events e ON e.id = d.id"
# Before any further column is read.
_OF_THESE = (
    " WHERE d.trigger_id = coalesce(?, d.trigger_id) AND d.kind = coalesce(?, d.kind)"
    " AND NOT (d.state = 0 AND d.trigger_id IN (SELECT value FROM json_each(?)))"
)
_LISTED = "SELECT " + _COLUMNS + _AMONG + _OF_THESE
_LISTED_WITH_EVENT = "SELECT " + _COLUMNS + ", e.envelope, e.body" + _AMONG + _EVENT + _OF_THESE
_WHOLE = (
    "SELECT " + _COLUMNS + ", e.envelope, e.body, d.result FROM deliveries d JOIN events e ON e.id = d.id"
    " WHERE d.event_id = ? ORDER BY d.id"
)
_ATTEMPTS = (
    "SELECT number, version, started_at, completed_at, outcome, error_class, error, traceback, output FROM attempts"
    " WHERE delivery_id = ? ORDER BY id"
)
_PLACE = "SELECT min(id) FROM deliveries WHERE event_id = ?"

_GROUPS = (
    "SELECT trigger_id, reason, error_class, count(*), min(settled_at), max(settled_at), max(id)"
    " FROM deliveries INDEXED BY deliveries_dead_groups WHERE state = 3{} GROUP BY trigger_id, reason, error_class"
)
_EXAMPLE = "SELECT event_id FROM deliveries WHERE id = ?"


@implementer(IDeliveryLists)
class SQLiteDeliveryLists(Idea):
    """
    `IDeliveryLists` on SQLite.

    :ivar nothing_runs: no server uses the store: what ran when one was killed is ready, or waits, as it is stored.
    """

    nothing_runs = False

    @reads
    def part(
        self,
        connection: sqlite3.Connection,
        chosen: DeliveryFilter,
        before: int | None,
        rows: int,
        limit: int,
        events: bool,
    ) -> Slice:
        """See `IDeliveryLists.part`."""
        running = _running(self)
        lowest = 0 if chosen.since is None else first_since(connection, chosen.since)
        below = 1 << 62 if before is None else before
        ids = candidates(connection, chosen, running, below, lowest, rows)
        found: list[ListedDelivery] = []
        size, looked_at = 0, below
        values = (json.dumps(ids), chosen.trigger, chosen.kind, json.dumps(hidden_triggers(chosen)))
        for row in connection.execute(_LISTED_WITH_EVENT if events else _LISTED, values):
            if len(found) == limit or size > MOST_BYTES:
                return Slice(deliveries=tuple(found), before=looked_at)
            looked_at = row[0]
            delivery = as_held(listed(row, running), chosen.holds)
            if is_chosen(delivery, chosen):
                found.append(delivery)
                size += len(delivery.body)
        return Slice(deliveries=tuple(found), before=ids[-1] if len(ids) == rows else None)

    @reads
    def whole(self, connection: sqlite3.Connection, event_id: str) -> Sequence[WholeDelivery]:
        """See `IDeliveryLists.whole`."""
        running = _running(self)
        return [
            WholeDelivery(
                delivery=listed(row, running),
                attempts=_attempts(connection, row[0]),
                result=row[20],
            )
            for row in connection.execute(_WHOLE, (event_id,)).fetchall()
        ]

    @reads
    def place(self, connection: sqlite3.Connection, event_id: str) -> int | None:
        """See `IDeliveryLists.place`."""
        (number,) = connection.execute(_PLACE, (event_id,)).fetchone()
        return None if number is None else int(number)

    @reads
    def dead_groups(self, connection: sqlite3.Connection, trigger: str | None) -> Sequence[DeadGroup]:
        """See `IDeliveryLists.dead_groups`."""
        values = () if trigger is None else (trigger,)
        statement = _GROUPS.format("" if trigger is None else " AND trigger_id = ?")
        groups = [
            DeadGroup(
                trigger_id=row[0],
                reason=row[1],
                error_class=row[2],
                count=row[3],
                first=row[4],
                last=row[5],
                example_id=connection.execute(_EXAMPLE, (row[6],)).fetchone()[0],
            )
            for row in connection.execute(statement, values).fetchall()
        ]
        return sorted(groups, key=lambda group: group.last, reverse=True)


def _running(lists: SQLiteDeliveryLists | None) -> Running:
    """Return the deliveries that run; none where no server has the store open."""
    return {} if lists is None or lists.nothing_runs else lists._executor.notes.read()


def _attempts(connection: sqlite3.Connection, delivery_id: int) -> tuple[Attempt, ...]:
    return tuple(map(attempt_of, connection.execute(_ATTEMPTS, (delivery_id,))))
