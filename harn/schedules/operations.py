"""Operations on schedules: what is due next, and how the polls among them go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct, structs
from msgspec.structs import replace

from harn.clocks import rfc3339
from harn.errors import RouteUnknown
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.schedules.cursor_operations import PollInfo, describe_poll, set_cursor, show_cursor
from harn.schedules.upcoming import Timed, upcoming

if TYPE_CHECKING:
    from harn.schedules.poll_entry import PollEntry
    from harn.schedules.polls import Polls
    from harn.schedules.service import Schedules

MOST = 1000
MOST_NAMED = 10
EARLIER = 0.001
"""Seconds by which a time is earlier than another one, so that the other one comes after it."""


class ListSchedule(Parameters, frozen=True, kw_only=True):
    """The trigger, and the number of firings."""

    limit: Annotated[int, Meta(ge=1, le=MOST, description="So many at most.")] = 20
    trigger: Annotated[str, Meta(min_length=1, description="Only of this trigger.")] | None = None


class FiringInfo(Result, frozen=True, kw_only=True):
    """One firing to come."""

    trigger_id: str
    at: Annotated[str, Meta(description="When it is due.")]
    local_at: Annotated[str, Meta(description="The same in the zone of its schedule.")]
    tick_at: Annotated[str, Meta(description="The time of the schedule: earlier where the trigger has a jitter.")]
    schedule: str
    timezone: str
    last_fired_at: Annotated[str | None, Meta(description="The last tick that was fired.")] = None
    missed: Annotated[
        int, Meta(description="How many times ticks were missed and passed over since the server started.")
    ] = 0


class ScheduleList(Result, frozen=True, kw_only=True):
    """The next firings, in order; ``more``: there are more than these."""

    firings: tuple[FiringInfo, ...]
    more: bool
    polls: Annotated[
        tuple[PollInfo, ...], Meta(description="Of the triggers of these firings, those that poll; failing ones first.")
    ] = ()


class TimedTriggers(Struct, frozen=True):
    """The triggers of a server that time starts."""

    schedules: Schedules
    polls: Polls

    def timed(self) -> dict[str, Timed]:
        """Return the next tick of each."""
        found = {entry.trigger_id: entry.timed() for entry in self.schedules.entries.values()}
        return found | {entry.trigger_id: self._timed_poll(entry) for entry in self.polls.entries.values()}

    def _timed_poll(self, entry: PollEntry) -> Timed:
        """Return the next tick of a poll; after failures, the first one that is not before its next call."""
        timed, at = entry.timed(), self.polls.next_of(entry.trigger_id)
        if not entry.failures or at is None:
            return timed
        return replace(timed, after=max(timed.after, at - entry.delay - EARLIER))

    def missed(self) -> dict[str, int]:
        """Return how many times each schedule passed over ticks that it had missed."""
        return {entry.trigger_id: entry.missed for entry in self.schedules.entries.values() if entry.missed}

    async def poll(self, trigger_id: str) -> PollInfo:
        """
        Return one that polls.

        :raises RouteUnknown: there is none of that id.
        :raises EventLogUnavailable: its record cannot be read.
        """
        entry = self.polls.entry(trigger_id)
        records = await self.polls.records([trigger_id])
        return describe_poll(trigger_id, records[trigger_id], entry.polled_at)

    async def polled(self, trigger_ids: Iterable[str]) -> tuple[PollInfo, ...]:
        """
        Return those of these that poll, failing ones first.

        :raises EventLogUnavailable: the records cannot be read.
        """
        records, entries = await self.polls.records(trigger_ids), self.polls.entries
        return sort_polls(describe_poll(each, record, entries[each].polled_at) for each, record in records.items())

    def fired(self) -> dict[str, float]:
        """Return when each fired last, or ended its last call (seconds, Unix)."""
        found = {entry.trigger_id: entry.fired for entry in self.schedules.entries.values()}
        found |= {entry.trigger_id: entry.polled_at for entry in self.polls.entries.values()}
        return {trigger_id: at for trigger_id, at in found.items() if at is not None}


@operation("schedule.list", role=Role.READ, route=Get("/schedule"), example={"limit": 10})
async def list_schedule(triggers: TimedTriggers, caller: Caller, wanted: ListSchedule) -> ScheduleList:
    """
    List the next firings of all triggers with a schedule, in order.

    :raises RouteUnknown: the trigger has no schedule.
    """
    found = describe(triggers.timed(), triggers.fired(), wanted, triggers.missed())
    return structs.replace(found, polls=await triggers.polled(firing_triggers(found)))


def firing_triggers(found: ScheduleList) -> list[str]:
    """Return the triggers of the firings, each once."""
    return list(dict.fromkeys(each.trigger_id for each in found.firings))


def sort_polls(polls: Iterable[PollInfo]) -> tuple[PollInfo, ...]:
    """Return polls with those that fail first."""
    return tuple(sorted(polls, key=lambda each: (-each.failures, each.trigger_id)))


def describe(
    timed: Mapping[str, Timed],
    fired: Mapping[str, float],
    wanted: ListSchedule,
    missed: Mapping[str, int] = MappingProxyType({}),
) -> ScheduleList:
    """
    Return the next ticks.

    :param timed: by trigger id.
    :param fired: the last tick that each fired (seconds, Unix).
    :param missed: how many times each passed over ticks.
    :raises RouteUnknown: the trigger has no schedule.
    """
    chosen: Iterable[Timed] = timed.values()
    if wanted.trigger is not None:
        if wanted.trigger not in timed:
            known = ", ".join(sorted(timed)[:MOST_NAMED]) or "none"
            raise RouteUnknown(f"there is no schedule of a trigger {wanted.trigger!r}; triggers with one: {known}")
        chosen = [timed[wanted.trigger]]
    coming = list(islice(upcoming(chosen), wanted.limit + 1))
    firings = []
    for each in coming[: wanted.limit]:
        schedule = timed[each.trigger_id]
        last = fired.get(each.trigger_id)
        firings.append(
            FiringInfo(
                trigger_id=each.trigger_id,
                at=rfc3339(each.at),
                local_at=datetime.fromtimestamp(each.at, ZoneInfo(schedule.timezone)).isoformat(timespec="seconds"),
                tick_at=rfc3339(each.tick_at),
                schedule=schedule.schedule,
                timezone=schedule.timezone,
                last_fired_at=None if last is None else rfc3339(last),
                missed=missed.get(each.trigger_id, 0),
            )
        )
    return ScheduleList(firings=tuple(firings), more=len(coming) > wanted.limit)


OPERATIONS = (list_schedule, show_cursor, set_cursor)
"""The operations of `TimedTriggers`."""
