"""Which ticks of a schedule are to be fired at a moment. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from harn.connectors.providers.cron import LATEST, SKIP, CronSettings
from harn.connectors.schedule import Schedule

MOST = 100
"""Ticks of one trigger that are fired together; the others follow when these are durable."""
DAY = 86400.0


class TickSpan(Struct, frozen=True, kw_only=True):
    """
    The span of time whose ticks are looked for.

    :ivar after: all ticks up to this time are fired or passed over (seconds, Unix).
    :ivar until: the last time at which a tick is due (seconds, Unix).
    :ivar on_time_from: a tick at this time or earlier was missed (seconds, Unix).
    """

    after: float
    until: float
    on_time_from: float


class Owed(Struct, frozen=True, kw_only=True):
    """
    The ticks to be fired, in order, the late ones first.

    :ivar late: the number of ticks that were missed.
    :ivar covered: when they are fired, all ticks up to this time are fired or passed over (seconds, Unix).
    :ivar passed_over: the first missed tick that is not fired; None if all are fired.
    """

    ticks: tuple[float, ...] = ()
    late: int = 0
    covered: float
    passed_over: float | None = None


def owed(schedule: Schedule, span: TickSpan, mode: str, most: int = MOST) -> Owed:
    """
    Return the ticks to fire.

    :param mode: what happens to missed ticks: ``skip``, ``latest`` (only the last one is fired) or ``all``.
    """
    ticks: list[float] = []
    at, passed_over = span.after, None
    missed_until = min(span.on_time_from, span.until)
    first = schedule.following(at)
    if first is not None and first <= missed_until and mode in (SKIP, LATEST):
        newest = schedule.preceding(missed_until) if mode == LATEST else None
        if newest is None:
            at, passed_over = missed_until, first
        else:
            ticks.append(newest)
            at, passed_over = newest, first if newest > first else None
    while len(ticks) < most:
        following = schedule.following(at)
        if following is None or following > span.until:
            at = max(at, span.until)
            break
        ticks.append(following)
        at = following
    late = sum(1 for tick in ticks if tick <= missed_until)
    return Owed(ticks=tuple(ticks), late=late, covered=at, passed_over=passed_over)


class TickRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    The record of a schedule in the store.

    :ivar covered: all ticks up to this time were fired or passed over (seconds, Unix).
    :ivar fired: the last tick that was fired; None for none.
    :ivar schedule: the trigger's schedule at that time, with ``timezone``.
    :ivar removed_at: when its trigger was removed (seconds, Unix); None while it is there.
    """

    covered: float
    fired: float | None = None
    schedule: str
    timezone: str
    removed_at: float | None = None

    @classmethod
    def read(cls, value: Any) -> TickRecord | None:
        """Read the stored form; None for anything else."""
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError:
            return None


def begins_at(record: TickRecord | None, settings: CronSettings, now: float, since: float, delay: float = 0.0) -> float:
    """
    Return the time (seconds, Unix) from which ticks are looked for when a server starts or a trigger comes back.

    :param since: ticks from this time on are on time: ``now``, or earlier if it takes the place of another program.
    :param delay: by how many seconds each tick is later than its time: such a tick may be due still.
    """
    if record is None or (record.schedule, record.timezone) != (settings.schedule, settings.timezone):
        return since
    if record.covered > now:
        # The clock was set back since: what has fired does not fire again. A clock that was days ahead was wrong.
        return since if record.fired is None or record.fired - now > DAY else max(record.fired, since)
    return max(record.covered, since - delay) if settings.catchup_mode == SKIP else record.covered
