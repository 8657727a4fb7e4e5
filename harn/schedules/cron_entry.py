"""The schedule of one trigger: its settings, the last tick that was fired, and the ticks that are being written."""

from __future__ import annotations

from collections import deque

from attrs import define, field
from msgspec import Struct

from harn.connectors.interfaces import NormalizedEvent
from harn.connectors.providers.cron import CronSettings
from harn.connectors.schedule import CronSchedule, delay_of
from harn.model.delivery import Checkpoint
from harn.schedules.ticks import TickRecord
from harn.schedules.upcoming import Timed


class Firing(Struct, frozen=True):
    """
    Events of ticks that are being written, with the checkpoint that they were fired.

    :ivar covered: see `Owed.covered`.
    """

    events: tuple[NormalizedEvent, ...]
    checkpoint: Checkpoint
    covered: float
    fired: float


class Change(Struct, frozen=True):
    """Settings that replace a trigger's settings from the time ``at`` on (seconds, Unix)."""

    settings: CronSettings
    at: float


@define(eq=False)
class CronEntry:
    """
    The schedule of one trigger.

    :ivar covered: see `TickRecord.covered`.
    :ivar fired: see `TickRecord.covered`.
    :ivar since: a tick at this time or later is on time, unless the server is late by more than `GRACE`.
    :ivar firing: the events that must be written before any other tick fires; None if there are none.
    :ivar is_taken: True if the store has been asked to write ``firing``.
    :ivar missed: how often ticks were passed over since the server started.
    :ivar changes: later settings; each applies when all ticks before its time are fired, perhaps in several commits.
    """

    trigger_id: str
    settings: CronSettings
    covered: float
    since: float
    fired: float | None = None
    firing: Firing | None = None
    is_taken: bool = False
    missed: int = 0
    changes: deque[Change] = field(factory=deque)
    times: CronSchedule = field(init=False)
    delay: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.apply(self.settings)

    def apply(self, settings: CronSettings) -> None:
        """Use new settings."""
        self.settings = settings
        self.times = settings.times()
        self.delay = delay_of(self.trigger_id, settings.longest_delay())

    @property
    def newest(self) -> CronSettings:
        """Return the settings of the live trigger."""
        return self.changes[-1].settings if self.changes else self.settings

    def timed(self) -> Timed:
        """Return the schedule, to list its next ticks."""
        return timed_of(self.trigger_id, self.settings, self.covered)

    def record(self, covered: float, fired: float | None) -> TickRecord:
        """Return the record with these times."""
        return TickRecord(
            covered=covered, fired=fired, schedule=self.settings.schedule, timezone=self.settings.timezone
        )


def timed_of(trigger_id: str, settings: CronSettings, after: float) -> Timed:
    """Return the schedule of a trigger whose ticks up to ``after`` (seconds, Unix) are fired or passed over."""
    return Timed(
        trigger_id=trigger_id,
        times=settings.times(),
        delay=delay_of(trigger_id, settings.longest_delay()),
        after=after,
        schedule=settings.schedule,
        timezone=settings.timezone,
    )
