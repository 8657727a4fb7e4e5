"""
Times at which something is due: a cron schedule in a time zone, or a fixed interval; and the checks of both. Pure.

A cron schedule is read as the wall clock of its zone shows it. Where clocks go forward, a local time that does not come
is not due. Where they go back, a local time that comes twice is due at the first of both, if the schedule names minute
and hour; one whose minute or hour begins with ``*`` continues through both, as every so many minutes means. The times
of a schedule are strictly increasing over each change of its zone.

Source for the hour that comes twice: cron(8) of Vixie cron, "Special considerations".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from hashlib import sha256
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim
from msgspec import Struct

from harn.manifest.diagnostics import nearest, quote
from harn.manifest.interfaces import SettingProblem
from harn.model.quantities import parse_duration

LONGEST_EXPRESSION = 200
"""Characters of a schedule."""
UTC = "UTC"
_SECOND = timedelta(seconds=1)
_NOT_NAMED = frozenset(("localtime", "Factory", "posixrules"))
"""Zones that are others on each machine."""
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Schedule(Protocol):
    """The times at which something is due."""

    def following(self, after: float) -> float | None:
        """Return the first time after one (both seconds, Unix); None for never again."""

    def preceding(self, at: float) -> float | None:
        """Return the last time up to one, itself included; None for none."""


class CronSchedule(Struct, frozen=True):
    """
    A cron schedule.

    :ivar expression: five fields (minute, hour, day of month, month, day of week), or six with seconds first.
    :ivar timezone: an IANA name.
    """

    expression: str
    timezone: str = UTC

    def following(self, after: float) -> float | None:
        """See `Schedule.following`."""
        return _following(self.expression, self.timezone, math.floor(after))

    def preceding(self, at: float) -> float | None:
        """See `Schedule.preceding`."""
        zone = ZoneInfo(self.timezone)
        local = datetime.fromtimestamp(math.floor(at), zone)
        begins = [local.replace(tzinfo=None, fold=0) + _SECOND]
        if local.fold:  # the first pass of later minutes was before
            begins.append(_end_of_first_pass(math.floor(at), zone))
        found = (_last_before(self.expression, zone, begin, at) for begin in begins)
        return max((each for each in found if each is not None), default=None)


def _last_before(expression: str, zone: ZoneInfo, begin: datetime, at: float) -> float | None:
    """Return the last time up to ``at`` whose local time is before ``begin``."""
    for moment in CronSim(expression, begin, reverse=True):
        found = [each for each in _times_of(expression, moment, zone) if each <= at]
        if found:
            return found[-1]
    return None


@lru_cache(maxsize=4096)  # triggers often have the same schedule
def _following(expression: str, timezone: str, after: int) -> float | None:
    zone = ZoneInfo(timezone)
    local = datetime.fromtimestamp(after, zone)
    found = _first_after(expression, zone, local.replace(tzinfo=None, fold=0), after)
    again = local.replace(fold=1).timestamp()
    if again <= after or not goes_through(expression):
        return found
    # It is in the first pass of an hour that comes twice: earlier minutes of the second pass may come next.
    begin = datetime.fromtimestamp(_change_between(after, int(again), zone), zone).replace(tzinfo=None, fold=0)
    second = _first_after(expression, zone, begin - _SECOND, after)
    return min((each for each in (found, second) if each is not None), default=None)


def _first_after(expression: str, zone: ZoneInfo, begin: datetime, after: int) -> float | None:
    """Return the first time over ``after`` whose local time is after ``begin``."""
    for moment in CronSim(expression, begin):
        for found in _times_of(expression, moment, zone):
            if found > after:
                return found
    return None


def goes_through(expression: str) -> bool:
    """Return whether a schedule is due in both passes of an hour that comes twice."""
    minute, hour = expression.split()[-5:-3]
    return minute.startswith("*") or hour.startswith("*")


def _times_of(expression: str, local: datetime, zone: ZoneInfo) -> list[float]:
    """Return when clocks show a local time (seconds, Unix): none where they skip it, two where both passes count."""
    first = local.replace(tzinfo=zone).timestamp()
    if datetime.fromtimestamp(first, zone).replace(tzinfo=None, fold=0) != local:
        return []
    second = local.replace(tzinfo=zone, fold=1).timestamp()
    return [first, second] if second > first and goes_through(expression) else [first]


def _change_between(before: int, after: int, zone: ZoneInfo) -> int:
    """Return the first second with another offset than ``before`` has; ``after`` has that other one."""
    offset = datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def _end_of_first_pass(at: int, zone: ZoneInfo) -> datetime:
    """Return the local time at which clocks went back, for a time in the second pass."""
    first = int(datetime.fromtimestamp(at, zone).replace(fold=0).timestamp())
    changed = _change_between(first, at, zone)
    return datetime.fromtimestamp(changed - 1, zone).replace(tzinfo=None, fold=0) + _SECOND


class IntervalSchedule(Struct, frozen=True):
    """Every so many seconds, counted from 1970, so that a restart changes nothing."""

    seconds: float

    def following(self, after: float) -> float | None:
        """See `Schedule.following`."""
        count = math.floor(after / self.seconds) + 1
        while count * self.seconds <= after:
            count += 1
        return count * self.seconds

    def preceding(self, at: float) -> float | None:
        """See `Schedule.preceding`."""
        count = math.floor(at / self.seconds)
        while count * self.seconds > at:
            count -= 1
        return count * self.seconds


def delay_of(trigger_id: str, jitter: float) -> float:
    """
    Return by how many seconds a trigger is later than its schedule says: from 0 to below ``jitter``.

    It is the same each time and after each restart, and differs between triggers, whose load it spreads.
    """
    share = int.from_bytes(sha256(trigger_id.encode("utf-8")).digest()[:6], "big") / 2**48
    return share * jitter


def check_schedule(expression: str, key: str = "schedule") -> Sequence[SettingProblem]:
    """Return the fault of a cron schedule."""
    example = 'write five fields, for example "0 9 * * 1-5", or six with seconds first'
    if len(expression) > LONGEST_EXPRESSION:
        return [SettingProblem(key=key, message=f"must have at most {LONGEST_EXPRESSION} characters", hint=example)]
    shown = quote(expression)
    same = _NAMED.get(expression.strip().lower())
    if same is not None:
        return [SettingProblem(key=key, message=f"{shown} is not supported", hint=f'write "{same}"')]
    count = len(expression.split())
    if count not in (5, 6):
        return [SettingProblem(key=key, message=f"must have five or six fields, got {count}: {shown}", hint=example)]
    try:
        moments = CronSim(expression, datetime(2000, 1, 1))
    except Exception as error:  # of its own, and Python's for numbers of thousands of digits
        said = str(error).removeprefix("Bad ")
        return [SettingProblem(key=key, message=f"{shown} is not a cron schedule: wrong {said}", hint=example)]
    if next(moments, None) is None:
        return [SettingProblem(key=key, message=f"{shown} never comes", hint="write a day that its months have")]
    return []


def check_timezone(name: str, key: str = "timezone") -> Sequence[SettingProblem]:
    """Return the fault of a time zone."""
    hint = 'write an IANA name, for example "Europe/Berlin", or "UTC"'
    known = _zones()
    if known.get(name.lower()) == name:
        return []
    meant = known.get(name.lower()) or nearest(name, sorted(known.values()))
    if meant is not None:
        hint = f"did you mean {quote(meant)}?"
    elif any(sign in name for sign in "+-") or name.upper().startswith(("UTC", "GMT")):
        hint = 'offsets have no rules for summer time; write an IANA name, for example "Europe/Berlin"'
    return [SettingProblem(key=key, message=f"{quote(name)} is not a time zone", hint=hint)]


@cache  # each call of Python's searches the file system
def _zones() -> dict[str, str]:
    """Return the names of all zones, by their names in lower case."""
    return {name.lower(): name for name in (*available_timezones() - _NOT_NAMED, UTC)}


def seconds_of(text: str, key: str, low: float = 0.0) -> tuple[float, Sequence[SettingProblem]]:
    """Return the seconds of a duration of at least ``low``, and what is wrong with it."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        return 0.0, [SettingProblem(key=key, message=message, hint=hint)]
    if seconds < low:
        return 0.0, [SettingProblem(key=key, message=f"must be at least {low:g}s, got {quote(text)}")]
    return seconds, []
