"""
Lists of deliveries: each is merged from streams of ids, newest first, one for each range of an index that it needs.

A slice looks at a bounded number of rows, so that no list, however few rows of it match, holds up other reads.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import frozen
from zope.interface import implementer

from harn.model.delivery import DEAD, DISCARDED, READY, REPLAYED, RUNNING, WAITING, Attempt, State
from harn.store.lists import DeadGroup, DeliveryFilter, IDeliveryLists, ListedDelivery, Slice, WholeDelivery
from harn.store.sqlite.deliveries import STATE
from harn.store.sqlite.executor import Idea, reads
from harn.store.sqlite.settling import NAMES, STATES

MOST_BYTES = 16 << 20
"""Bodies of one slice."""
RETRY = "retry"
"""The reason of what waits for its next attempt."""
BLOCK = 1024
"""Deliveries of a block of an index, as its definition has it."""
MOST_BLOCKS = 256
"""Blocks that one statement looks at."""
PROBED = 2000
"""Rows up to which two indices are compared."""

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
_OF_THESE = " WHERE d.trigger_id = coalesce(?, d.trigger_id) AND d.kind = coalesce(?, d.kind)"
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

# `likely` keeps SQLite from looking an index up by the term that only allows its use, and from sorting then.
_WITHIN = " AND id < ? AND id >= ? ORDER BY id DESC LIMIT ?"
_ALL = "SELECT id FROM deliveries WHERE 1" + _WITHIN
_IN_BLOCKS = (
    "SELECT d.id FROM json_each(?) AS block CROSS JOIN deliveries d INDEXED BY deliveries_by_{}"
    " WHERE d.id / 1024 = block.value AND d.{} = ? AND d.id < ? AND d.id >= ?"
)
_OF_TRIGGER, _OF_KIND = _IN_BLOCKS.format("trigger", "trigger_id"), _IN_BLOCKS.format("kind", "kind")
_FAILED_OF_TRIGGER = (
    "SELECT id FROM deliveries INDEXED BY deliveries_failed WHERE (state = 3 OR ended_as > 4)"
    " AND trigger_id = ? AND state = ? AND ended_as = ?" + _WITHIN
)
_UNFINISHED_OF_TRIGGER = (
    "SELECT id FROM deliveries INDEXED BY deliveries_unfinished WHERE likely(state < 2)"
    " AND trigger_id = ? AND version = ? AND state = ?" + _WITHIN
)
_EXCEPTIONS = (
    "SELECT id FROM deliveries INDEXED BY deliveries_exceptions WHERE (state = 1 OR state = 3 OR ended_as > 0)"
    " AND state = ? AND ended_as = ?" + _WITHIN
)
_READY_OF_OWNER = "SELECT id FROM deliveries INDEXED BY deliveries_ready WHERE state = 0 AND owner = ?" + _WITHIN
_DONE = "SELECT id FROM deliveries WHERE state = 2 AND ended_as = 0" + _WITHIN
# One step in the index for each, where DISTINCT would read all of it.
_VERSIONS = (
    "WITH RECURSIVE found (version) AS ("
    " SELECT min(version) FROM deliveries INDEXED BY deliveries_unfinished WHERE state < 2 AND trigger_id = ?1"
    " UNION ALL SELECT (SELECT min(version) FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state < 2 AND trigger_id = ?1 AND version > found.version) FROM found WHERE found.version IS NOT NULL)"
    " SELECT version FROM found WHERE version IS NOT NULL"
)
_OWNERS = (
    "WITH RECURSIVE found (owner) AS ("
    " SELECT min(owner) FROM deliveries INDEXED BY deliveries_ready WHERE state = 0"
    " UNION ALL SELECT (SELECT min(owner) FROM deliveries INDEXED BY deliveries_ready"
    " WHERE state = 0 AND owner > found.owner) FROM found WHERE found.owner IS NOT NULL)"
    " SELECT owner FROM found WHERE owner IS NOT NULL"
)
_NEXT = "SELECT id, received_at FROM deliveries WHERE id >= ? ORDER BY id LIMIT 1"
_ENDS = "SELECT (SELECT min(id) FROM deliveries), (SELECT max(id) FROM deliveries)"

_GROUPS = (
    "SELECT trigger_id, reason, error_class, count(*), min(settled_at), max(settled_at), max(id)"
    " FROM deliveries INDEXED BY deliveries_dead_groups WHERE state = 3{} GROUP BY trigger_id, reason, error_class"
)
_EXAMPLE = "SELECT event_id FROM deliveries WHERE id = ?"

Running = Mapping[int, Collection[int]]
"""By server the ids of the deliveries that it has noted to run."""


@frozen
class Stream:
    """A statement that ends in `_WITHIN`, and its values before those."""

    statement: str
    values: tuple[Any, ...] = ()

    def ids(self, connection: sqlite3.Connection, below: int, lowest: int, most: int) -> Iterator[int]:
        """Return ids from just under ``below`` down to ``lowest``, at most so many."""
        for (number,) in connection.execute(self.statement, (*self.values, below, lowest, most)):
            yield number


@frozen
class Blocks:
    """
    The ids in an index that is in order within blocks of `BLOCK` deliveries.

    :ivar statement: a form of `_IN_BLOCKS`; ``value``: what it looks for.
    """

    statement: str
    value: str

    def ids(self, connection: sqlite3.Connection, below: int, lowest: int, most: int) -> Iterator[int]:
        """Return ids as `Stream.ids` does: of a block, then of twice as many, and so on."""
        first, last = connection.execute(_ENDS).fetchone()
        if last is None:
            return
        block, end = min(below - 1, last) // BLOCK, max(lowest, first) // BLOCK
        size, given = 1, 0
        while block >= end and given < most:
            numbers = range(block, max(block - size, end - 1), -1)
            values = (json.dumps(list(numbers)), self.value, below, lowest)
            found = sorted((number for (number,) in connection.execute(self.statement, values)), reverse=True)
            yield from found[: most - given]
            given += len(found)
            block -= size
            size = min(size * 2, MOST_BLOCKS)


Ids = Stream | Blocks
_INDEXED = frozenset((READY, WAITING, DEAD, DISCARDED, REPLAYED))
"""States of which the deliveries of one trigger have an index."""


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
        ids = _candidates(connection, chosen, running, below, lowest, rows)
        found: list[ListedDelivery] = []
        size, looked_at = 0, below
        values = (json.dumps(ids), chosen.trigger, chosen.kind)
        for row in connection.execute(_LISTED_WITH_EVENT if events else _LISTED, values):
            if len(found) == limit or size > MOST_BYTES:
                return Slice(deliveries=tuple(found), before=looked_at)
            looked_at = row[0]
            delivery = _listed(row, running)
            if _is_chosen(delivery, chosen):
                found.append(delivery)
                size += len(delivery.body)
        return Slice(deliveries=tuple(found), before=ids[-1] if len(ids) == rows else None)

    @reads
    def whole(self, connection: sqlite3.Connection, event_id: str) -> Sequence[WholeDelivery]:
        """See `IDeliveryLists.whole`."""
        running = _running(self)
        return [
            WholeDelivery(
                delivery=_listed(row, running),
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
    """Return what runs; nothing does where no server has the store open."""
    return {} if lists is None or lists.nothing_runs else lists._executor.notes.read()


def _candidates(
    connection: sqlite3.Connection,
    chosen: DeliveryFilter,
    running: Running,
    below: int,
    lowest: int,
    most: int,
) -> list[int]:
    """Return the ids of the next rows to look at, at most so many: each that is chosen is among them."""
    if chosen.states == {RUNNING}:
        ids = sorted({number for numbers in running.values() for number in numbers}, reverse=True)
        return [number for number in ids if lowest <= number < below][:most]
    streams = _narrowest(connection, chosen, below, lowest)
    merged: Iterable[int] = heapq.merge(*(each.ids(connection, below, lowest, most) for each in streams), reverse=True)
    return list(islice(merged, most))


def _narrowest(connection: sqlite3.Connection, chosen: DeliveryFilter, below: int, lowest: int) -> Sequence[Ids]:
    """Return the streams that have every chosen row, out of those indices that can give them the ones with fewest."""
    states = {state for each in chosen.states for state in ((READY, WAITING) if each is RUNNING else (each,))}
    choices: list[Sequence[Ids]] = []
    if chosen.trigger is not None:
        choices.append(_of_trigger(connection, chosen.trigger, states))
    if states:
        choices.append(_of_states(connection, states))
    if chosen.kind is not None:
        choices.append((Blocks(_OF_KIND, chosen.kind),))
    if not choices:
        return (Stream(_ALL),)
    if len(choices) == 1:
        return choices[0]
    return min(choices, key=lambda streams: _probe(connection, streams, below, lowest))


def _probe(connection: sqlite3.Connection, streams: Sequence[Ids], below: int, lowest: int) -> int:
    """Count the rows of streams, up to `PROBED`; what reads the table itself counts as all of it."""
    if any(isinstance(each, Stream) and each.statement == _DONE for each in streams):
        return PROBED + 1
    count = 0
    for each in streams:
        count += sum(1 for _ in each.ids(connection, below, lowest, PROBED - count))
        if count >= PROBED:
            break
    return count


def _of_trigger(connection: sqlite3.Connection, trigger: str, states: Collection[State]) -> Sequence[Ids]:
    """Return streams of one trigger: of its states where each has an index, else of all that it has."""
    if not states or not _INDEXED.issuperset(states):
        return (Blocks(_OF_TRIGGER, trigger),)
    streams: list[Ids] = []
    for state in states:
        number, ended_as = STATES[state]
        if state in (READY, WAITING):
            versions = connection.execute(_VERSIONS, (trigger,)).fetchall()
            streams += (Stream(_UNFINISHED_OF_TRIGGER, (trigger, version, number)) for (version,) in versions)
        else:
            streams.append(Stream(_FAILED_OF_TRIGGER, (trigger, number, ended_as)))
    return streams


def _of_states(connection: sqlite3.Connection, states: Collection[State]) -> Sequence[Ids]:
    streams: list[Ids] = []
    for state in states:
        number, ended_as = STATES[state]
        if state is READY:
            streams += (Stream(_READY_OF_OWNER, (owner,)) for (owner,) in connection.execute(_OWNERS))
        elif state is State.DONE:
            streams.append(Stream(_DONE))
        else:
            streams.append(Stream(_EXCEPTIONS, (number, ended_as)))
    return streams


def _is_chosen(delivery: ListedDelivery, chosen: DeliveryFilter) -> bool:
    """Return whether a row that is of the right trigger and kind is in the list."""
    is_of_state = not chosen.states or delivery.state in chosen.states
    return is_of_state and (chosen.since is None or delivery.received_at >= chosen.since)


def first_since(connection: sqlite3.Connection, since: float) -> int:
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


def _listed(row: Sequence[Any], running: Running) -> ListedDelivery:
    """Read one row of `_COLUMNS`, with or without its event."""
    state = NAMES[row[6]]
    reason = row[9]
    if state in (READY, WAITING) and row[0] in running.get(row[7], ()):
        state = RUNNING
    elif state is WAITING:
        reason = RETRY
    return ListedDelivery(
        delivery_id=row[0],
        event_id=row[1],
        trigger_id=row[2],
        version=row[3],
        provider=row[4],
        kind=row[5],
        state=state,
        attempts=row[8],
        reason=reason,
        error_class=row[10],
        error=row[11],
        received_at=row[12],
        due_at=row[13],
        ended_at=row[14],
        died_at=row[15],
        replay_of=row[16],
        replayed_as=row[17],
        envelope=row[18] if len(row) > 18 else b"",
        body=row[19] if len(row) > 19 else b"",
    )


def _attempts(connection: sqlite3.Connection, delivery_id: int) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            number=row[0],
            version=row[1],
            started_at=row[2],
            completed_at=row[3],
            outcome=row[4],
            error_class=row[5],
            error=row[6],
            traceback=row[7],
            output=row[8],
        )
        for row in connection.execute(_ATTEMPTS, (delivery_id,))
    )
