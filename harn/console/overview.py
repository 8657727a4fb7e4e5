"""The state of the server and of some of its triggers, read at most so often, however many browsers look at it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, field, frozen
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from harn.console.desk import Desk, Visit

FRESH = 1.0
"""Seconds for which what was read is shown again."""
SHARE = 20.0
"""It is read again only after so many times the time that reading took: 5 % of the reactor's at most. The first reading
does not count: it may have had to import modules."""
MOST_KEPT = 32
"""Readings that are kept, each of other triggers; above it, the one that was used longest ago is dropped."""


class TriggerRow(Struct, frozen=True, kw_only=True):
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


@frozen(kw_only=True)
class Overview:
    """
    A result of the operation ``inspect``, with its triggers in their order.

    :ivar rows: those that were asked for.
    """

    inspected: Any = field(repr=False)
    rows: tuple[TriggerRow, ...] = field(repr=False)


@define
class _Kept:
    """A reading, and when it may be read again (seconds of the clock)."""

    overview: Overview
    again_at: float


Wanted = tuple[tuple[str, Any], ...]


@define(eq=False)
class Overviews:
    """Reads overviews, and keeps each for a moment."""

    clock: IReactorTime
    _kept: OrderedDict[Wanted, _Kept] = field(factory=OrderedDict, init=False)
    _has_read: bool = field(default=False, init=False)

    async def read(self, desk: Desk, visit: Visit, *, fresh: bool = False, **wanted: Any) -> Overview:
        """
        Return an overview.

        :param fresh: read it whatever it costs, as after an action of the user.
        :param wanted: parameters of ``inspect``: which triggers.
        """
        key, began = tuple(sorted(wanted.items())), self.clock.seconds()
        kept = self._kept.get(key)
        if kept is not None and began < kept.again_at and not fresh:
            self._kept.move_to_end(key)
            return kept.overview
        inspected = await desk.named(visit, "inspect", recent=0, **wanted)
        ended, is_first, self._has_read = self.clock.seconds(), not self._has_read, True
        overview = Overview(inspected=inspected, rows=tuple(rows_of(inspected.triggers)))
        again_at = ended + max(FRESH, 0.0 if is_first else SHARE * (ended - began))
        self._kept[key] = _Kept(overview, again_at)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return overview


def rows_of(versions: Iterable[Any]) -> Iterator[TriggerRow]:
    """Yield one row for each trigger, in the order of the first of its versions."""
    found: dict[str, list[Any]] = {}
    for each in versions:
        found.setdefault(each.id, []).append(each)
    for trigger_id, own in found.items():
        newest_first = sorted(own, key=lambda each: -each.version)
        yield TriggerRow(id=trigger_id, versions=tuple(newest_first))
