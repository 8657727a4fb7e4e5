"""Lists of deliveries: each is read from its candidates, whose ids `harn.store.sqlite.candidates` finds by indices."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from harn.store.deliveries import DeliveryFilter, IDeliveryLists
from harn.store.lists import ATTEMPT_COLUMNS, DeliveryListsHalf, ListStatements, listed_columns
from harn.store.rows import Running
from harn.store.sqlite.candidates import ENDS, NEXT, candidates
from harn.store.sqlite.deliveries import STATE

_COLUMNS = listed_columns(STATE)
_WITH_EVENT = _COLUMNS + ", e.envelope, e.body"
_EVENT = " CROSS JOIN events e ON e.id = d.id"
# In the order of the ids. The conditions are looked at before any further column is read.
_LISTED = (
    "SELECT {} FROM json_each(?) AS chosen CROSS JOIN deliveries d ON d.id = chosen.value{}"
    " WHERE d.trigger_id = coalesce(?, d.trigger_id) AND d.kind = coalesce(?, d.kind)"
    " AND NOT (d.state = 0 AND d.trigger_id IN (SELECT value FROM json_each(?)))"
)
_GROUPS = (
    "SELECT g.trigger_id, g.reason, g.error_class, g.count, g.first, g.last, d.event_id FROM"
    " (SELECT trigger_id, reason, error_class, count(*) AS count, min(settled_at) AS first, max(settled_at) AS last,"
    " max(id) AS newest FROM deliveries INDEXED BY deliveries_dead_groups WHERE state = 3{}"
    " GROUP BY trigger_id, reason, error_class) AS g CROSS JOIN deliveries d ON d.id = g.newest"
)


@implementer(IDeliveryLists)
class SQLiteDeliveryLists(DeliveryListsHalf):
    """`IDeliveryLists` on SQLite."""

    sql = ListStatements(
        listed=_LISTED.format(_COLUMNS, ""),
        listed_with_event=_LISTED.format(_WITH_EVENT, _EVENT),
        whole=(
            "SELECT " + _WITH_EVENT + ", d.result FROM deliveries d JOIN events e ON e.id = d.id"
            " WHERE d.event_id = ? ORDER BY d.id"
        ),
        attempts="SELECT " + ATTEMPT_COLUMNS + ", traceback, output FROM attempts WHERE delivery_id = ? ORDER BY id",
        place="SELECT min(id) FROM deliveries WHERE event_id = ?",
        groups=_GROUPS.format(""),
        groups_of=_GROUPS.format(" AND trigger_id = ?"),
        ends=ENDS,
        next=NEXT,
    )

    def _candidates(
        self, connection: Any, chosen: DeliveryFilter, running: Running, below: int, lowest: int, most: int
    ) -> list[int]:
        return candidates(connection, chosen, running, below, lowest, most)
