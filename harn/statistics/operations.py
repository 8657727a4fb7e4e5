"""Operations on figures: statistics of a window of time, and the activity of each trigger now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from harn.clocks import rfc3339
from harn.errors import RouteUnknown
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.operations.values import Period
from harn.statistics.window import AttemptTally, Durations, Gathered, whole

if TYPE_CHECKING:
    from harn.statistics.service import StatisticsService

WINDOW = Period.parse("24h")


class ShowStats(Parameters, frozen=True, kw_only=True):
    """Which statistics."""

    window: Annotated[Period, Meta(description="Of the last DURATION; 24h by default.")] | None = None
    trigger: Annotated[str, Meta(description="Only of this trigger.")] | None = None


class Percentiles(Result, frozen=True, kw_only=True):
    """Percentiles of durations (seconds, to two digits)."""

    p50: float
    p90: float
    p99: float


class HandlerStats(Result, frozen=True, kw_only=True):
    """The attempts of one handler of a trigger."""

    handler: Annotated[str, Meta(description="As the manifest had it; vN of a version that is not recorded any more.")]
    succeeded: int
    failed: int
    retry_after: Annotated[int, Meta(description="Attempts that the handler ended by RetryAfter.")]
    skipped: Annotated[int, Meta(description="Attempts whose predicate refused the event.")]
    handler_seconds: Annotated[Percentiles | None, Meta(description="Of attempts that called it.")]
    accepted_to_done_seconds: Percentiles | None


class TriggerStats(Result, frozen=True, kw_only=True):
    """One trigger within the window."""

    id: str
    accepted: int
    accepted_per_minute: float
    succeeded: Annotated[int, Meta(description="Deliveries whose handler succeeded.")]
    failed: Annotated[int, Meta(description="Attempts that failed.")]
    dead: Annotated[int, Meta(description="Deliveries that became dead letters, whatever followed.")]
    skipped: Annotated[int, Meta(description="Of those accepted.")]
    refused: Annotated[int, Meta(description="Requests that were never events.")]
    handler_seconds: Percentiles | None
    accepted_to_done_seconds: Percentiles | None
    handlers: tuple[HandlerStats, ...]


class Stats(Result, frozen=True, kw_only=True):
    """Statistics of a window of time."""

    window: Annotated[str, Meta(description="For example 24h.")]
    since: str
    until: str
    complete: Annotated[bool, Meta(description="False when the window has more than was read: the newest million.")]
    triggers: tuple[TriggerStats, ...]


@operation("stats", role=Role.READ, route=Get("/stats"))
async def show_stats(statistics: StatisticsService, caller: Caller, wanted: ShowStats) -> Stats:
    """
    Show rates and percentiles of each trigger and handler within a window of time.

    :raises RouteUnknown: there is no such trigger.
    """
    return await statistics.stats(wanted)


def describe_stats(
    wanted: ShowStats,
    until: float,
    gathered: Gathered,
    handlers: Mapping[tuple[str, int], str],
    ended: tuple[Mapping[str, int], Mapping[str, int]],
    known: Collection[str],
    *,
    complete: bool,
) -> Stats:
    """
    Return what is shown of a window that was read.

    :param until: seconds, Unix.
    :param ended: by trigger id, deaths and refused requests.
    :param known: ids of triggers in force, which are shown without events, too.
    :raises RouteUnknown: a trigger is wanted that is neither in force nor in the window.
    """
    window = wanted.window or WINDOW
    minutes = window / 60.0
    died, refused = ended
    ids = sorted({*known, *gathered.trigger_ids(), *died, *refused})
    if wanted.trigger is not None:
        if wanted.trigger not in ids:
            raise RouteUnknown(f"there is no trigger {wanted.trigger!r}; there are: {', '.join(ids) or 'none'}")
        ids = [wanted.trigger]
    return Stats(
        window=window.text,
        since=rfc3339(until - window),
        until=rfc3339(until),
        complete=complete,
        triggers=tuple(
            _of_trigger(each, gathered, handlers, died.get(each, 0), refused.get(each, 0), minutes) for each in ids
        ),
    )


def _of_trigger(
    trigger_id: str,
    gathered: Gathered,
    handlers: Mapping[tuple[str, int], str],
    dead: int,
    refused: int,
    minutes: float,
) -> TriggerStats:
    tallies = gathered.by_handler(trigger_id, handlers)
    total = whole(list(tallies.values()))
    accepted = gathered.accepted[trigger_id]
    return TriggerStats(
        id=trigger_id,
        accepted=accepted,
        accepted_per_minute=round(accepted / minutes, 3),
        succeeded=total.outcomes["success"],
        failed=total.outcomes["failed"],
        dead=dead,
        skipped=gathered.skipped[trigger_id],
        refused=refused,
        handler_seconds=_percentiles(total.handler),
        accepted_to_done_seconds=_percentiles(total.done),
        handlers=tuple(_of_handler(name, tally) for name, tally in tallies.items()),
    )


def _of_handler(name: str, tally: AttemptTally) -> HandlerStats:
    return HandlerStats(
        handler=name,
        succeeded=tally.outcomes["success"],
        failed=tally.outcomes["failed"],
        retry_after=tally.outcomes["retry_after"],
        skipped=tally.outcomes["skipped"],
        handler_seconds=_percentiles(tally.handler),
        accepted_to_done_seconds=_percentiles(tally.done),
    )


def _percentiles(durations: Durations) -> Percentiles | None:
    p50, p90, p99 = (durations.percentile(share) for share in (0.5, 0.9, 0.99))
    return None if p50 is None or p90 is None or p99 is None else Percentiles(p50=p50, p90=p90, p99=p99)


class ShowActivity(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class TriggerActivity(Result, frozen=True, kw_only=True):
    """One trigger now; its counts are since the server's start."""

    id: str
    accepted: int
    succeeded: int
    failed: int
    running: int
    waiting: int
    ready: Annotated[int, Meta(description="Deliveries that could run now, and do not.")]
    dead: int
    oldest_ready_seconds: float | None
    next_due: str | None
    handler_buckets: Annotated[
        tuple[int, ...], Meta(description="Attempts by the time of their handler, one more number than bounds.")
    ]


class Activity(Result, frozen=True, kw_only=True):
    """The activity of each trigger at one moment."""

    at: Annotated[float, Meta(description="Seconds of a clock that is never set.")]
    generation: int
    bounds: Annotated[tuple[float, ...], Meta(description="Upper bounds of the buckets (seconds).")]
    triggers: tuple[TriggerActivity, ...]


@operation("activity", role=Role.READ, route=Get("/activity"))
async def show_activity(statistics: StatisticsService, caller: Caller, wanted: ShowActivity) -> Activity:
    """Show what each trigger does now, with counts for rates."""
    return await statistics.activity()


OPERATIONS = (show_stats, show_activity)
"""Those of a `StatisticsService`."""
