"""
The services of alerts.

`AlertService` goes on from what an earlier server left, and keeps the state of alerts for the next. `LatenessService`
looks for deliveries that have been ready for too long.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.alerts.board import Board
from harn.alerts.keeping import Keeper
from harn.alerts.model import AlertRecord, Subject
from harn.alerts.runner import Runner
from harn.alerts.watching import Watcher
from harn.clocks import WallTime
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable
from harn.manifest.alerts import LATE
from harn.store.statistics import ITotals
from harn.waiting import backoff, retry

log = Logger(namespace="harn.alerts")

INTERVAL = 1.0
"""Seconds between two looks at the clock."""
SHARE = 0.1
"""Of the shortest time that an alert allows, between two looks at the store; see also `LONGEST`."""
KEEPING = 60.0
"""Seconds after which the times of silences are written again."""
LONGEST = 30.0
"""Seconds between two looks at the store, at most."""


class AlertService(Service):
    """
    Goes on from what an earlier server left once the first generation serves, and keeps everything at the end.

    :ivar board: every alert in force.
    """

    def __init__(
        self, clock: IReactorTime, wall: WallTime, board: Board, keeper: Keeper, runner: Runner, watcher: Watcher
    ) -> None:
        self._clock = clock
        self._wall = wall
        self.board = board
        self._keeper = keeper
        self.runner = runner
        self._watcher = watcher
        self._loading: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None

    def begin(self) -> None:
        """Called when the server's first generation serves: read what an earlier server left, and begin. Once."""
        if self._loading is None and self._stopping is None:
            self._loading = Deferred.fromCoroutine(self._load())
            self._loading.addErrback(self._not_begun)

    def hand_over(self) -> None:
        """Decide, send and keep nothing more: another program goes on with the alerts."""
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop(keep=False))

    def stopService(self) -> Deferred[None]:
        """End; fires when what was being sent is cut off, and everything is kept."""
        Service.stopService(self)
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop(keep=True))
        return self._stopping

    async def _stop(self, *, keep: bool) -> None:
        if self._loading is not None:
            self._loading.cancel()
        await self.runner.stop(keep=keep)

    def _not_begun(self, failure: Failure) -> None:
        if self._stopping is None:
            log.failure("alerts cannot begin", failure)

    async def _load(self) -> None:
        records = await retry(self._clock, self._keeper.load, EventLogUnavailable, backoff(1.0, 30.0))
        now = self._wall.seconds()
        for entry in self.board:
            record = records.pop(entry.rule.key, None)
            if record is None:
                continue
            if entry.silence is not None and record.silence is not None:
                downtime = max(0.0, now - record.saved_at)
                entry.silence.restore(record.silence, downtime, now)
            self.board.restore(entry, record.state, now)
        await self._drop(records)
        self.runner.start()
        self._watcher.begin()

    async def _drop(self, records: Mapping[str, AlertRecord]) -> None:
        """Remove what is left of alerts that are not in force any more."""
        for record in records.values():
            if record.state.pending:
                log.warn(
                    "alert {name} is not in the manifest any more: {count} of its messages are not sent",
                    name=record.name,
                    count=len(record.state.pending),
                )
        await self._keeper.remove(list(records))


class LatenessService(TimerService):
    """Looks for late deliveries every second; without an alert on lateness that costs a look at a table."""

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        totals: ITotals,
        dispatcher: Dispatcher,
        board: Board,
        runner: Runner,
    ) -> None:
        TimerService.__init__(self, INTERVAL, lambda: Deferred.fromCoroutine(self.look()))
        self.clock = clock
        self._clock = clock
        self._wall = wall
        self._totals = totals
        self._dispatcher = dispatcher
        self._board = board
        self._runner = runner
        self._next_at = self._keep_at = 0.0

    async def look(self) -> None:
        """Look once, and write down silences now and then."""
        if self._clock.seconds() >= self._keep_at:
            self._keep_at = self._clock.seconds() + KEEPING
            self._runner.keep_silences()
        await self._look_for_late()

    async def _look_for_late(self) -> None:
        """Look once, if it is time; a store that cannot be read costs this turn alone."""
        alerts = self._board.concerned(LATE, None)
        if not alerts or self._clock.seconds() < self._next_at:
            return
        shortest = min(entry.rule.spec.within for entry in alerts)
        self._next_at = self._clock.seconds() + min(LONGEST, shortest * SHARE)
        try:
            found = await self._totals.backlogs(self._wall.seconds(), tuple(self._dispatcher.in_progress))
        except EventLogUnavailable as error:
            log.debug("lateness cannot be looked for: {why}", why=str(error))
            return
        now = self._wall.seconds()
        since = {each.trigger_id: each.oldest_ready for each in found.values() if each.oldest_ready is not None}
        for entry in self._board.concerned(LATE, None):
            within = entry.rule.spec.within
            late = {
                trigger_id: Subject(trigger_id=trigger_id, since=at)
                for trigger_id, at in since.items()
                if now >= at + within and entry.rule.covers(trigger_id)
            }
            self._board.replace_subjects(entry, late, now)
        if self._board.changed:
            self._runner.run()
