"""
Time: the two clocks of a server, and RFC 3339 for what people and events read.

The reactor's time is monotonic (`use_monotonic_time`): deadlines, intervals, rates and durations are measured by it,
and steps of the system's clock do not affect them. The wall clock (`WallTime`) is passed only to code that needs the
time of day: for stamps, for the freshness of signatures, and for due times that outlive the process.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Protocol

LONGEST_SLEEP = 60.0
"""Seconds of the reactor's time after which a due time of the wall clock is compared with it again."""
LEAST_STEP = 1.0
"""The least number of seconds that the wall clock must go back in one jump to count as a step."""


class WallTime(Protocol):
    """A source of the time of day. It may jump, forward or back, from one call to the next."""

    def seconds(self) -> float:
        """Return the time of day (seconds, Unix)."""


class SteadyTime(Protocol):
    """A clock that never goes back: the reactor, or `SteadyClock`."""

    def seconds(self) -> float:
        """Return the seconds since some moment."""


class SteadyClock:
    """The system's monotonic clock, for what runs without a reactor, or beside it in a thread."""

    def seconds(self) -> float:
        """Return the system's monotonic time (seconds)."""
        return time.monotonic()


class WallClock:
    """The system's wall clock."""

    def seconds(self) -> float:
        """Return the system's time of day (seconds, Unix)."""
        return time.time()


def use_monotonic_time(reactor: Any) -> None:
    """
    Make the time of ``reactor``, which Twisted takes from the wall clock, monotonic.

    Call it where the reactor is imported, before harn schedules anything. Calls scheduled before that, for example by
    another service of the same ``twistd``, keep their remaining delay.
    """
    if reactor.seconds is time.monotonic:
        return
    ahead = reactor.seconds() - time.monotonic()
    for call in reactor.getDelayedCalls():  # all move by the same distance, so that their order stays
        call.time -= ahead
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic


class BackSteps:
    """Detects when the wall clock is set back."""

    def __init__(self, clock: SteadyTime, wall: WallTime) -> None:
        self._clock = clock
        self._wall = wall
        self._ahead = wall.seconds() - clock.seconds()

    def look(self) -> float:
        """
        Return by how many seconds the wall clock was set back since the last look; 0.0 if it was not.

        Drift of a slowed clock between two looks does not count, and neither does a step forward.
        """
        ahead = self._wall.seconds() - self._clock.seconds()
        back, self._ahead = self._ahead - ahead, ahead
        return back if back >= LEAST_STEP else 0.0


def sleep_until(due_at: float, wall: WallTime) -> float:
    """
    Return for how many seconds to sleep until ``due_at`` (seconds, Unix), but at most `LONGEST_SLEEP`.

    The caller compares with the wall clock when it wakes, and may have to sleep again: so a step is noticed within that
    time.
    """
    return min(max(0.0, due_at - wall.seconds()), LONGEST_SLEEP)


_MILLISECONDS = tuple(f"{number:03d}Z" for number in range(1000))
"""The ends of times in RFC 3339, since each event has one."""


def rfc3339(seconds: float) -> str:
    """Write ``seconds`` (Unix) as RFC 3339 in UTC with milliseconds, for example ``2026-01-02T03:04:05.678Z``."""
    # As `datetime.fromtimestamp` does: to the nearest microsecond first, then down to the millisecond.
    second = int(seconds)
    microseconds = round((seconds - second) * 1e6)
    if not 0 <= microseconds < 1_000_000:
        carried, microseconds = divmod(microseconds, 1_000_000)
        second += carried
    return _up_to_second(second) + _MILLISECONDS[microseconds // 1000]


@lru_cache(maxsize=64)
def _up_to_second(seconds: int) -> str:
    """Return all of a time but its milliseconds; kept, as each event is stamped with the present second."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.")
