"""
Rows of deliveries and attempts: their columns as every dialect writes and reads them.

A state of a delivery is two numbers in a row, ``state`` and ``ended_as``, of which the greater one is its name's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from harn.model import delivery as model
from harn.model.delivery import LARGE_BODY, RUNNING, Attempt, Settlement, StoredDelivery
from harn.store.deliveries import Backlog, DeliveryFilter, ListedDelivery

READY, WAITING, DONE, DEAD = range(4)
"""``deliveries.state``. Statements name these numbers: a partial index is used only by a query that does, too."""
SKIPPED, DISCARDED, REPLAYED = range(4, 7)
"""``deliveries.ended_as``, of rows whose ``state`` is `DONE`; 0 where ``state`` says it all."""

STATES = {
    model.READY: (READY, 0),
    model.WAITING: (WAITING, 0),
    model.DONE: (DONE, 0),
    model.DEAD: (DEAD, 0),
    model.SKIPPED: (DONE, SKIPPED),
    model.DISCARDED: (DONE, DISCARDED),
    model.REPLAYED: (DONE, REPLAYED),
}
"""For each state of a delivery in a store: ``state`` and ``ended_as``."""
NAMES = (model.READY, model.WAITING, model.DONE, model.DEAD, model.SKIPPED, model.DISCARDED, model.REPLAYED)
"""The state by the greater of ``state`` and ``ended_as``."""

RETRY = "retry"
"""The reason of what waits for its next attempt."""

Running = Mapping[int, Collection[int]]
"""By server the ids of the deliveries that it has noted to run."""


def settlement_row(settlement: Settlement, at: float, dead_number: int) -> tuple[Any, ...]:
    """
    Return the columns of a delivery that change when it is settled, its id first.

    :param dead_number: the number of the dead letter, if it is one.
    """
    state, ended_as = STATES[settlement.state]
    dead = settlement.dead
    reason, error_class, error = (None, None, None) if dead is None else (dead.reason, dead.error_class, dead.error)
    return (
        settlement.delivery_id,
        state,
        settlement.version,
        settlement.attempts,
        settlement.passed,
        settlement.due_at,
        at if state >= DONE else None,
        dead_number if state == DEAD else None,
        reason,
        error_class,
        error,
        settlement.result,
        ended_as,
        settlement.skip_reason,
    )


def attempt_row(number: int, delivery_id: int, attempt: Attempt) -> tuple[Any, ...]:
    """Return the columns of a new attempt, its number among all first."""
    return (
        number,
        delivery_id,
        attempt.number,
        attempt.version,
        attempt.started_at,
        attempt.completed_at,
        attempt.outcome,
        attempt.error_class,
        attempt.error,
        attempt.traceback,
        attempt.output,
    )


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Read an attempt, with or without what it raised and printed."""
    number, version, started_at, completed_at, outcome, error_class, error = row[:7]
    traceback, output = row[7:] or (None, None)
    return Attempt(
        number=number,
        version=version,
        started_at=started_at,
        completed_at=completed_at,
        outcome=outcome,
        error_class=error_class,
        error=error,
        traceback=traceback,
        output=output,
    )


def stored(row: Sequence[Any]) -> StoredDelivery:
    """Read a delivery with its event: the columns of a `StoredDelivery`, in order, the state as `NAMES` counts it."""
    return StoredDelivery(
        delivery_id=row[0],
        event_id=row[1],
        trigger_id=row[2],
        version=row[3],
        provider=row[4],
        kind=row[5],
        state=NAMES[row[6]],
        attempts=row[7],
        passed=bool(row[8]),
        crashes=row[9],
        due_at=row[10],
        received_at=row[11],
        replay_of=row[12],
        envelope=row[13],
        body=row[14],
    )


def light(row: Sequence[Any]) -> StoredDelivery:
    """Read the same, and after it the bytes of the body, which is empty where it is large."""
    size, delivery = row[15], stored(row)
    return delivery if size <= LARGE_BODY else replace(delivery, left_out=size)


def up_to(rows: Iterable[StoredDelivery], max_bytes: int) -> list[StoredDelivery]:
    """Return rows until their bodies would be more than ``max_bytes``, at least one."""
    taken: list[StoredDelivery] = []
    size = 0
    for row in rows:
        size += len(row.body)
        if taken and size > max_bytes:
            break
        taken.append(row)
    return taken


def count(row: Sequence[Any]) -> Backlog:
    """Read trigger id, version, and how many deliveries are ready and wait."""
    trigger_id, version, ready, waiting = row
    return Backlog(trigger_id=trigger_id, version=version, ready=ready, waiting=waiting)


def listed(row: Sequence[Any], running: Running) -> ListedDelivery:
    """
    Read a delivery of a list: its columns, in order, with its server after its state; then, where asked for, its event.

    :param running: by server the ids of the deliveries that it has noted to run.
    """
    state = NAMES[row[6]]
    reason = row[9]
    if state in (model.READY, model.WAITING) and row[0] in running.get(row[7], ()):
        state = RUNNING
    elif state is model.WAITING:
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


def is_chosen(delivery: ListedDelivery, chosen: DeliveryFilter) -> bool:
    """Return whether a row that is of the right trigger and kind is in the list."""
    is_of_state = not chosen.states or delivery.state in chosen.states
    return is_of_state and (chosen.since is None or delivery.received_at >= chosen.since)
