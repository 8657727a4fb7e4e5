"""A page of the records of one of the server's own topics, the newest first."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from harn.console.desk import Desk, Visit

MOST_RECORDS = 20
MOST_LOOKS = 10
"""Times that a page looks further back: other topics use up numbers between its records."""
MOST_READ = 1000
"""Records that one request reads."""
_NEWEST = 10**15
"""A number that no record has yet: reading after it returns only the number of the newest."""


class Records(Struct, frozen=True, kw_only=True):
    """
    A page of records, the newest first.

    :ivar before: the number of the record that it comes before; None for the newest.
    :ivar older: ``before`` of the next page; None where there is none.
    """

    before: int | None
    newest_first: tuple[Any, ...]
    older: int | None


async def read_records(desk: Desk, visit: Visit, topic: str) -> Records:
    """Return the records before the one of the query, else the newest; a record may name thousands of triggers."""
    before = visit.number("before") or None
    first = before
    if first is None:
        first = (await desk.named(visit, "events.read", topic=topic, after=_NEWEST, limit=1)).latest + 1
    records: list[Any] = []
    span = MOST_RECORDS
    for _ in range(MOST_LOOKS):
        after = max(0, first - 1 - span)
        read = await desk.named(visit, "events.read", topic=topic, after=after, limit=span)
        records = [each for each in read.records if each.number < first] + records
        first, span = after + 1, min(2 * span, MOST_READ)
        if not after or len(records) >= MOST_RECORDS:
            break
    shown = records[-MOST_RECORDS:]
    if len(records) > len(shown):
        first = shown[0].number
    return Records(before=before, newest_first=tuple(reversed(shown)), older=first if first > 1 else None)
