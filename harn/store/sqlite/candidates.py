"""
Candidates of a list of deliveries: ids, the newest first, merged from one stream for each range of an index it needs.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from msgspec import Struct

from harn.model.delivery import DEAD, DISCARDED, READY, REPLAYED, RUNNING, WAITING, State
from harn.store.deliveries import DeliveryFilter, stored_states
from harn.store.holds import Holds
from harn.store.lists import MOST_HELD
from harn.store.rows import STATES, Running

BLOCK = 1024
"""Deliveries of a block of an index; the same number as in the index's definition."""
MOST_BLOCKS = 256
"""Blocks that one statement looks at."""
PROBED = 2000
"""Rows up to which two indices are compared."""

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
NEXT = "SELECT id, received_at FROM deliveries WHERE id >= ? ORDER BY id LIMIT 1"
"""An id or the next above it, and when that delivery came."""
ENDS = "SELECT (SELECT min(id) FROM deliveries), (SELECT max(id) FROM deliveries)"
"""The lowest and the highest id."""


class Stream(Struct, frozen=True):
    """A statement that ends in `_WITHIN`, and its values before those."""

    statement: str
    values: tuple[Any, ...] = ()

    def ids(self, connection: sqlite3.Connection, below: int, lowest: int, most: int) -> Iterator[int]:
        """Return ids from just under ``below`` down to ``lowest``, at most so many."""
        for (number,) in connection.execute(self.statement, (*self.values, below, lowest, most)):
            yield number


class Blocks(Struct, frozen=True):
    """
    The ids in an index that is in order within blocks of `BLOCK` deliveries.

    :ivar statement: a form of `_IN_BLOCKS`.
    :ivar value: what it looks for.
    """

    statement: str
    value: str

    def ids(self, connection: sqlite3.Connection, below: int, lowest: int, most: int) -> Iterator[int]:
        """Return ids as `Stream.ids` does: of a block, then of twice as many, and so on."""
        first, last = connection.execute(ENDS).fetchone()
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


def candidates(
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
    choices: list[Sequence[Ids]] = []
    if chosen.trigger is not None:
        choices.append(_of_trigger(connection, chosen.trigger, chosen))
    if chosen.states:
        choices.append(_of_states(connection, chosen.states, chosen.holds))
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


def _of_trigger(connection: sqlite3.Connection, trigger: str, chosen: DeliveryFilter) -> Sequence[Ids]:
    """Return streams of one trigger: of its states where each has an index, else of all that it has."""
    states = stored_states(chosen.states, chosen.holds.of(trigger) is not None)
    if not chosen.states or not _INDEXED.issuperset(states):
        return (Blocks(_OF_TRIGGER, trigger),)
    return _of_indexed(connection, trigger, states)


def _of_indexed(connection: sqlite3.Connection, trigger: str, states: Collection[State]) -> Sequence[Ids]:
    streams: list[Ids] = []
    for state in states:
        number, ended_as = STATES[state]
        if state in (READY, WAITING):
            versions = connection.execute(_VERSIONS, (trigger,)).fetchall()
            streams += (Stream(_UNFINISHED_OF_TRIGGER, (trigger, version, number)) for (version,) in versions)
        else:
            streams.append(Stream(_FAILED_OF_TRIGGER, (trigger, number, ended_as)))
    return streams


def _of_states(connection: sqlite3.Connection, states: Collection[State], holds: Holds) -> Sequence[Ids]:
    streams: list[Ids] = []
    stored = stored_states(states, holds.of_all is not None)
    if WAITING in states and READY not in stored:
        if len(holds.by_trigger) > MOST_HELD:
            stored.add(READY)
        else:
            for trigger in holds.by_trigger:
                streams += _of_indexed(connection, trigger, (READY,))
    for state in stored:
        number, ended_as = STATES[state]
        if state is READY:
            streams += (Stream(_READY_OF_OWNER, (owner,)) for (owner,) in connection.execute(_OWNERS))
        elif state is State.DONE:
            streams.append(Stream(_DONE))
        else:
            streams.append(Stream(_EXCEPTIONS, (number, ended_as)))
    return streams
