"""The background work of alerts: deliveries that have been ready for too long, and records of silences."""

from __future__ import annotations

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.alerts.board import Board
from harn.alerts.model import Subject
from harn.alerts.runner import Runner
from harn.clocks import WallTime
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable
from harn.manifest.alerts import LATE
from harn.store.totals import ITotals

log = Logger(namespace="harn.alerts")

INTERVAL = 1.0
"""Seconds between two looks at the clock."""
SHARE = 0.1
"""Of the shortest time that an alert allows, between two looks at the store; see also `LONGEST`."""
KEEPING = 60.0
"""Seconds after which the times of silences are written again."""
LONGEST = 30.0
"""Seconds between two looks at the store, at most."""


class LatenessService(TimerService):
    """Looks again and again; without an alert on lateness it costs a look at a table."""

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
            self._board.stand(entry, late, now)
        if self._board.changed:
            self._runner.run()
