"""The state of the server by trigger, read at most so often, however many browsers look at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from harn.console.desk import Desk, Visit

FRESH = 1.0
"""Seconds for which what was read is shown again."""
SHARE = 20.0
"""It is read again only after so many times the time that reading took: 5 % of the reactor's at most. The first reading
does not count: it may have had to import modules."""


@frozen(kw_only=True)
class TriggerRow:
    """
    One trigger with its versions, the newest first.

    :ivar versions: rows of the operation ``inspect``; the figures of the trigger are the same in each.
    """

    id: str
    versions: tuple[Any, ...]

    @property
    def newest(self) -> Any:
        """Return the newest version, with the figures of the trigger."""
        return self.versions[0]

    @property
    def is_busy(self) -> bool:
        """Return whether anything runs or waits, or it is held up."""
        newest = self.newest
        is_held = newest.paused or newest.circuit not in (None, "closed")
        return bool(newest.running or newest.waiting or is_held or len(self.versions) > 1)


@frozen(kw_only=True)
class Overview:
    """
    The result of the operation ``inspect``, with its triggers by id.

    :ivar at: seconds, Unix.
    """

    at: float
    inspected: Any = field(repr=False)
    rows: Mapping[str, TriggerRow] = field(repr=False)

    def busy(self, most: int) -> list[TriggerRow]:
        """Return the triggers with most to do, at most so many."""
        found = [row for row in self.rows.values() if row.is_busy]
        return sorted(found, key=lambda row: (-row.newest.running - row.newest.waiting, row.id))[:most]


@define(eq=False)
class Overviews:
    """Reads and keeps the overview."""

    clock: IReactorTime
    _kept: Overview | None = field(default=None, init=False)
    _again_at: float = field(default=0.0, init=False)

    async def read(self, desk: Desk, visit: Visit, *, fresh: bool = False) -> Overview:
        """Return the overview; ``fresh``: whatever it costs, as after an action of the user."""
        began, is_first = self.clock.seconds(), self._kept is None
        if self._kept is not None and began < self._again_at and not fresh:
            return self._kept
        inspected = await desk.named(visit, "inspect")
        self._kept = Overview(at=desk.wall.seconds(), inspected=inspected, rows=dict(rows_of(inspected.triggers)))
        ended = self.clock.seconds()
        self._again_at = ended + max(FRESH, 0.0 if is_first else SHARE * (ended - began))
        return self._kept


def rows_of(versions: Any) -> Iterator[tuple[str, TriggerRow]]:
    """Yield one row for each trigger, by id."""
    found: dict[str, list[Any]] = {}
    for each in versions:
        found.setdefault(each.id, []).append(each)
    for trigger_id in sorted(found):
        newest_first = sorted(found[trigger_id], key=lambda each: -each.version)
        yield trigger_id, TriggerRow(id=trigger_id, versions=tuple(newest_first))
