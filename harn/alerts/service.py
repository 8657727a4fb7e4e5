"""The life of alerts: they go on from what an earlier server left, and are kept for the next."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.alerts.board import Board
from harn.alerts.keeping import Keeper
from harn.alerts.records import AlertRecord
from harn.alerts.runner import Runner
from harn.alerts.watching import Watcher
from harn.clocks import WallTime
from harn.errors import EventLogUnavailable
from harn.waiting import backoff, retry

log = Logger(namespace="harn.alerts")


class AlertService(Service):
    """
    Begins and ends what alerts are made of.

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
                entry.silence.restore(record.silence.last, record.silence.silent, downtime, now)
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
