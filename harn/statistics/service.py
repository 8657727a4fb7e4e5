"""The service behind the operations on figures."""

from __future__ import annotations

from contextlib import suppress

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from harn.clocks import WallTime, rfc3339
from harn.errors import EventLogUnavailable
from harn.observability.counts import DELIVERY_SECONDS
from harn.observability.metrics import Metrics
from harn.statistics.backlogs import Backlogs
from harn.statistics.figures import Figures
from harn.statistics.operations import WINDOW, Activity, ShowStats, Stats, TriggerActivity, describe_stats
from harn.statistics.totals import TriggerTotals
from harn.statistics.window import Gathered, newest, slices
from harn.store.statistics import IStatistics
from harn.triggers.registry import Registry


@frozen(kw_only=True)
class StatisticsService:
    """Reads windows of the store slice by slice, and describes what the server has in hand."""

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
        attempts, deliveries = await self.store.attempts_since(since), await self.store.deliveries_since(since)
        gathered = Gathered()
        for span in slices(newest(attempts)):
            gathered.add_attempts(*await self.store.attempts(span, since))
        for span in slices(newest(deliveries)):
            gathered.add_accepted(await self.store.accepted(span, since))
        ended = await self.store.died(since), await self.store.refused(since)
        handlers = await self.store.handlers(tuple(gathered.attempts))
        complete = newest(attempts) == attempts and newest(deliveries) == deliveries
        return describe_stats(wanted, until, gathered, handlers, ended, self.registry.active, complete=complete)

    async def activity(self) -> Activity:
        """Return what each trigger does now."""
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
