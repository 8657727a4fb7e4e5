"""The figures of a trigger that an inspection shows, put together from where each is counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import field, frozen

from harn.store.statistics import TriggerBacklog, TriggerTotal


class TotalSource(Protocol):
    """Something that has totals by trigger id."""

    def of(self, trigger_id: str) -> TriggerTotal:
        """Return the totals of a trigger; all are 0 where nothing ever happened to it."""


@frozen
class TriggerFigures:
    """
    The figures of a trigger, over reloads and restarts.

    :ivar accepted: deliveries accepted; ``refused``: requests that were never events.
    :ivar running: handlers that run now; ``waiting``: deliveries that wait for a due time, or are held;
        ``dead``: dead letters now.
    :ivar last_success: seconds, Unix, or None; so are ``last_failure`` and ``next_due``, of what waits.
    """

    accepted: int = 0
    running: int = 0
    waiting: int = 0
    dead: int = 0
    refused: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    next_due: float | None = None


class StoredTotals:
    """Totals as they were read from a store."""

    def __init__(self, totals: Mapping[str, TriggerTotal] = {}, uncounted: Mapping[str, int] = {}) -> None:
        """
        Keep totals.

        :param uncounted: deliveries by trigger id that they do not count yet.
        """
        self._totals = totals
        self._uncounted = uncounted

    def of(self, trigger_id: str) -> TriggerTotal:
        """See `TotalSource.of`."""
        found = self._totals.get(trigger_id)
        more = self._uncounted.get(trigger_id, 0)
        if found is None:
            return TriggerTotal(trigger_id=trigger_id, accepted=more)
        return added(found, TriggerTotal(trigger_id=trigger_id, accepted=more)) if more else found


@frozen(kw_only=True)
class Figures:
    """The figures of every trigger at one moment; each mapping is by trigger id."""

    totals: TotalSource = field(factory=StoredTotals)
    running: Mapping[str, int] = field(factory=dict)
    waiting: Mapping[str, int] = field(factory=dict)
    dead: Mapping[str, int] = field(factory=dict)
    backlogs: Mapping[str, TriggerBacklog] = field(factory=dict)

    def of(self, trigger_id: str) -> TriggerFigures:
        """Return those of one trigger."""
        total = self.totals.of(trigger_id)
        backlog = self.backlogs.get(trigger_id)
        return TriggerFigures(
            total.accepted,
            self.running.get(trigger_id, 0),
            self.waiting.get(trigger_id, 0),
            self.dead.get(trigger_id, 0),
            total.refused,
            total.last_success,
            total.last_failure,
            None if backlog is None else backlog.next_due,
        )


def added(total: TriggerTotal, more: TriggerTotal) -> TriggerTotal:
    """Return the sum of two totals of a trigger, with the later times."""
    return TriggerTotal(
        trigger_id=total.trigger_id,
        accepted=total.accepted + more.accepted,
        refused=total.refused + more.refused,
        last_success=later(total.last_success, more.last_success),
        last_failure=later(total.last_failure, more.last_failure),
    )


def later(one: float | None, other: float | None) -> float | None:
    """Return the later of two times that may be None."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
