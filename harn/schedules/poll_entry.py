"""The polls of one trigger: its settings, its cursor, and the call of its function."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock

from harn.connectors.providers.poll import PollSettings
from harn.connectors.schedule import Schedule, delay_of
from harn.manifest.model import TriggerSpec
from harn.schedules.cursors import CursorRecord
from harn.schedules.upcoming import Timed
from harn.triggers.binding import BindingVersion
from harn.vm.interfaces import Call

PAUSE = 5.0
"""Seconds until a call is made again that was interrupted by something else, or could not be kept."""
LONGEST_PAUSE = 900.0
"""Seconds of the longest wait after failures."""


@define(eq=False)
class PollEntry:
    """
    The polls of one trigger.

    :ivar record: the stored cursor; None until it is read.
    :ivar polled_at: when the last successful call ended (seconds, Unix).
    :ivar running: the call under way, until what it returned is written.
    :ivar asking: the part of ``running`` that may be interrupted: until the function has returned.
    :ivar lock: held while the cursor is set, so that no call begins meanwhile.
    :ivar unkept: the number of calls in a row whose results could not be written.
    :ivar failed: the number of calls that failed.
    :ivar calls: the number of calls that ended.
    """

    trigger_id: str
    settings: PollSettings
    after: float
    record: CursorRecord | None = None
    polled_at: float | None = None
    running: Deferred[Any] | None = None
    asking: Deferred[Any] | None = None
    lock: DeferredLock = field(factory=DeferredLock)
    unkept: int = 0
    failed: int = 0
    calls: int = 0
    times: Schedule = field(init=False)
    delay: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.apply(self.settings)

    def apply(self, settings: PollSettings) -> None:
        """Use new settings."""
        self.settings = settings
        self.times = settings.times()
        self.delay = delay_of(self.trigger_id, settings.longest_delay())

    @property
    def failures(self) -> int:
        """Return how many calls in a row failed."""
        return 0 if self.record is None or self.record.failure is None else self.record.failure.count

    def timed(self) -> Timed:
        """Return the schedule, to list its next ticks."""
        return timed_of(self.trigger_id, self.settings, self.after)

    def cut_off(self) -> None:
        """Interrupt the call of the function. A result that is there already is written."""
        if self.asking is not None:
            self.asking.cancel()

    def over(self) -> Deferred[None]:
        """Return a Deferred that fires when no call is under way."""
        ended: Deferred[None] = Deferred()
        if self.running is None:
            ended.callback(None)
        else:
            self.running.addBoth(lambda _: ended.callback(None))
        return ended


def timed_of(trigger_id: str, settings: PollSettings, after: float) -> Timed:
    """Return the schedule of a trigger, with its ticks after ``after`` (seconds, Unix)."""
    return Timed(
        trigger_id=trigger_id,
        times=settings.times(),
        delay=delay_of(trigger_id, settings.longest_delay()),
        after=after,
        schedule=settings.schedule or f"every {settings.every}",
        timezone=settings.timezone,
    )


def wait_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return min(LONGEST_PAUSE, PAUSE * 2.0 ** min(max(failures - 1, 0), 20))


def call_of(binding: BindingVersion, cursor: bytes, attempt: int) -> Call:
    """Return the call of a trigger's function."""
    spec: TriggerSpec = binding.spec
    return Call(
        binding=binding.key,
        trigger_id=spec.id,
        event_id="poll",
        handler=spec.poll,
        predicate=None,
        envelope=b"",
        body=cursor,
        attempt=attempt,
        timeout=spec.timeout,
        secrets=spec.handler_secrets,
    )
