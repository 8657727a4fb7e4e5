"""
Operations on figures, and the service behind them: statistics of a window of time, and what each trigger does now.

Imports nothing of Twisted: a command shows the statistics of a store without a server, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from harn.clocks import WallTime, rfc3339
from harn.errors import EventLogUnavailable, RouteUnknown
from harn.model.display import describe_unknown
from harn.observability.counts import DELIVERY_SECONDS
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters, Period
from harn.statistics.figures import LONGEST, AttemptTally, DurationCounts, Figures, Gathered, whole

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from harn.observability.metrics import Metrics
    from harn.statistics.gauges import Backlogs
    from harn.statistics.totals import TriggerTotals
    from harn.store.statistics import IStatistics
    from harn.triggers.registry import Registry

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

    handler: Annotated[str, Meta(description="As in the manifest; vN for a version without a record.")]
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
    complete: Annotated[
        bool,
        Meta(
            description="False when only a sample was read in time: counts are estimates then, and of a trigger with"
            " few deliveries it may have none."
        ),
    ]
    read_share: Annotated[float, Meta(description="How much of the window was read, 0 to 1.")]
    triggers: tuple[TriggerStats, ...]


@operation("stats", role=Role.READ, route=Get("/stats"), example={"window": "1h", "trigger": "gh"})
async def show_stats(statistics: StatisticsService, caller: Caller, wanted: ShowStats) -> Stats:
    """
    Show rates and percentiles of each trigger and handler within a window of time.

    :raises RouteUnknown: there is no such trigger.
    """
    return await statistics.stats(wanted)


class Ended(Struct, frozen=True):
    """By trigger id, how many deliveries became dead letters, and how many requests were refused, within a window."""

    died: Mapping[str, int]
    refused: Mapping[str, int]


def describe_stats(
    wanted: ShowStats,
    until: float,
    gathered: Gathered,
    handlers: Mapping[tuple[str, int], str],
    ended: Ended,
    known: Collection[str],
) -> Stats:
    """
    Return the statistics of a window that was read.

    :param until: seconds, Unix.
    :param handlers: by binding version (trigger id, number).
    :param known: ids of triggers in force, which are shown without events, too.
    :raises RouteUnknown: a trigger is wanted that is neither in force nor in the window.
    """
    window = wanted.window or WINDOW
    ids = sorted({*known, *gathered.trigger_ids(), *ended.died, *ended.refused})
    if wanted.trigger is not None:
        if wanted.trigger not in ids:
            raise RouteUnknown(describe_unknown(wanted.trigger, ids))
        ids = [wanted.trigger]
    share = gathered.read_share
    return Stats(
        window=window.text,
        since=rfc3339(until - window),
        until=rfc3339(until),
        complete=share >= 1.0,
        read_share=round(share, 3),
        triggers=tuple(_of_trigger(each, gathered, handlers, ended, window / 60.0) for each in ids),
    )


def _of_trigger(
    trigger_id: str, gathered: Gathered, handlers: Mapping[tuple[str, int], str], ended: Ended, minutes: float
) -> TriggerStats:
    tallies = gathered.by_handler(trigger_id, handlers)
    total = whole(list(tallies.values()))
    accepted = gathered.all_deliveries(gathered.accepted[trigger_id])
    return TriggerStats(
        id=trigger_id,
        accepted=accepted,
        accepted_per_minute=round(accepted / minutes, 3),
        succeeded=gathered.all_attempts(total.outcomes["success"]),
        failed=gathered.all_attempts(total.outcomes["failed"]),
        dead=ended.died.get(trigger_id, 0),
        skipped=gathered.all_deliveries(gathered.skipped[trigger_id]),
        refused=ended.refused.get(trigger_id, 0),
        handler_seconds=_percentiles(total.handler),
        accepted_to_done_seconds=_percentiles(total.done),
        handlers=tuple(_of_handler(name, tally, gathered) for name, tally in tallies.items()),
    )


def _of_handler(name: str, tally: AttemptTally, gathered: Gathered) -> HandlerStats:
    return HandlerStats(
        handler=name,
        succeeded=gathered.all_attempts(tally.outcomes["success"]),
        failed=gathered.all_attempts(tally.outcomes["failed"]),
        retry_after=gathered.all_attempts(tally.outcomes["retry_after"]),
        skipped=gathered.all_attempts(tally.outcomes["skipped"]),
        handler_seconds=_percentiles(tally.handler),
        accepted_to_done_seconds=_percentiles(tally.done),
    )


def _percentiles(durations: DurationCounts) -> Percentiles | None:
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
    """Show the activity of each trigger, with counts for rates."""
    return await statistics.activity()


OPERATIONS = (show_stats, show_activity)
"""Those of a `StatisticsService`."""


class StatisticsService(Struct, frozen=True, kw_only=True):
    """Reads windows of the store slice by slice, and describes the unfinished deliveries of the server."""

    clock: IReactorTime
    wall: WallTime
    store: IStatistics
    totals: TriggerTotals
    backlogs: Backlogs
    registry: Registry
    metrics: Metrics

    async def stats(self, wanted: ShowStats) -> Stats:
        """
        Return the statistics of a window.

        :raises RouteUnknown: there is no such trigger.
        :raises EventLogUnavailable: the store cannot be read.
        """
        until = self.wall.seconds()
        since = until - (wanted.window or WINDOW)
        await self.totals.flush()  # refused requests of the last seconds
        gathered = await self._gather(since)
        ended = Ended(await self.store.died(since), await self.store.refused(since))
        handlers = await self.store.handlers(tuple(gathered.attempts))
        return describe_stats(wanted, until, gathered, handlers, ended, self.registry.active)

    async def _gather(self, since: float) -> Gathered:
        gathered = Gathered(await self.store.attempts_since(since), await self.store.deliveries_since(since))
        began = self.clock.seconds()
        for part in gathered.parts():
            if part.share > 0.0 and self.clock.seconds() - began >= LONGEST:
                break
            if part.of_attempts:
                gathered.add_attempts(part, *await self.store.attempts(part.span, since))
            else:
                gathered.add_accepted(part, await self.store.accepted(part.span, since))
        return gathered

    async def activity(self) -> Activity:
        """Return the activity of each trigger."""
        with suppress(EventLogUnavailable):  # then it shows what was known a moment ago
            await self.backlogs.refresh()
        now, figures, ready = self.wall.seconds(), self.backlogs.figures(self.totals), self.backlogs.ready_now()
        return Activity(
            at=self.clock.seconds(),
            generation=self.metrics.generation,
            bounds=DELIVERY_SECONDS,
            triggers=tuple(
                self._activity_of(trigger_id, now, figures, ready[trigger_id])
                for trigger_id in sorted(self.metrics.triggers)
            ),
        )

    def _activity_of(self, trigger_id: str, now: float, of_all: Figures, ready: int) -> TriggerActivity:
        counts, figures = self.metrics.triggers[trigger_id], of_all.of(trigger_id)
        backlog = self.backlogs.oldest.get(trigger_id)
        since = None if backlog is None else backlog.oldest_ready
        return TriggerActivity(
            id=trigger_id,
            accepted=counts.accepted,
            succeeded=counts.dispatched_ok,
            failed=counts.dispatched_failed,
            running=figures.running,
            waiting=figures.waiting,
            ready=ready,
            dead=figures.dead,
            oldest_ready_seconds=None if since is None else max(0.0, round(now - since, 3)),
            next_due=None if figures.next_due is None else rfc3339(figures.next_due),
            handler_buckets=tuple(counts.handler_seconds.counts),
        )
