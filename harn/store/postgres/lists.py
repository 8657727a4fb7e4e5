"""Lists of deliveries: each slice looks at a bounded number of rows, found by an index that is in order of ids."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from harn.model.delivery import READY, RUNNING, WAITING, State
from harn.store.database import Connection
from harn.store.deliveries import DeliveryFilter, IDeliveryLists, stored_states
from harn.store.lists import ATTEMPT_COLUMNS, MOST_HELD, DeliveryListsHalf, ListStatements, listed_columns
from harn.store.postgres.deliveries import STATE
from harn.store.rows import NAMES, Running

_COLUMNS = listed_columns(STATE)
_WITH_EVENT = _COLUMNS + ", e.envelope, e.body"
_EVENT = " JOIN events e ON e.id = d.id"
_LISTED = (
    "SELECT {} FROM deliveries d{} WHERE d.id = ANY ($1::bigint[])"
    " AND d.trigger_id = coalesce($2::text, d.trigger_id) AND d.kind = coalesce($3::text, d.kind)"
    " AND NOT (d.state = 0 AND d.trigger_id = ANY ($4::text[])) ORDER BY d.id DESC"
)
_GROUPS = (
    "SELECT g.trigger_id, g.reason, g.error_class, g.count, g.first, g.last, d.event_id FROM"
    " (SELECT trigger_id, reason, error_class, count(*), min(settled_at) AS first, max(settled_at) AS last,"
    " max(id) AS newest FROM deliveries WHERE state = 3{} GROUP BY trigger_id, reason, error_class) AS g"
    " JOIN deliveries d ON d.id = g.newest"
)
# The states are asked for by the expression of the index, which has all rows but those that are done.
_CANDIDATES = "SELECT d.id FROM deliveries d WHERE d.id < $1::bigint AND d.id >= $2::bigint{} ORDER BY d.id DESC LIMIT "
_OF_TRIGGER = " AND d.trigger_id = ${}::text"
_OF_KIND = " AND d.kind = ${}::text"
_OF_STATES = " AND (" + STATE + " = ANY (${}::smallint[]){})"
_OR_READY_OF = " OR (d.state = 0 AND d.trigger_id = ANY (${}::text[]))"
_NOT_DONE = " AND (d.state <> 2 OR d.ended_as > 0)"
_AMONG = " AND d.id = ANY (${}::bigint[])"


@implementer(IDeliveryLists)
class PostgresDeliveryLists(DeliveryListsHalf):
    """`IDeliveryLists` on PostgreSQL."""

    sql = ListStatements(
        listed=_LISTED.format(_COLUMNS, ""),
        listed_with_event=_LISTED.format(_WITH_EVENT, _EVENT),
        whole=(
            "SELECT " + _WITH_EVENT + ", d.result FROM deliveries d JOIN events e ON e.id = d.id"
            " WHERE d.event_id = $1::text ORDER BY d.id"
        ),
        attempts=(
            "SELECT " + ATTEMPT_COLUMNS + ", traceback, output FROM attempts WHERE delivery_id = $1::bigint ORDER BY id"
        ),
        place="SELECT min(id) FROM deliveries WHERE event_id = $1::text",
        groups=_GROUPS.format(""),
        groups_of=_GROUPS.format(" AND trigger_id = $1::text"),
        ends="SELECT (SELECT min(id) FROM deliveries), (SELECT max(id) FROM deliveries)",
        next="SELECT id, received_at FROM deliveries WHERE id >= $1::bigint ORDER BY id LIMIT 1",
    )

    def _candidates(
        self, connection: Connection, chosen: DeliveryFilter, running: Running, below: int, lowest: int, most: int
    ) -> list[int]:
        return _candidates(connection, chosen, running, below, lowest, most)


def _candidates(
    connection: Connection, chosen: DeliveryFilter, running: Running, below: int, lowest: int, most: int
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
