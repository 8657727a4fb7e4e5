"""The heartbeat of this server's row, which is also the probe that ends a time without an event log."""

from __future__ import annotations

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Interface

from harn.clocks import WallTime
from harn.errors import EventLogGone, EventLogUnavailable

log = Logger(namespace="harn.store")

INTERVAL = 5.0
"""Seconds between two heartbeats."""
LAPSE = 3 * INTERVAL
"""Seconds without a heartbeat after which a server counts as gone."""


class IHeartbeat(Interface):
    """A store that keeps one row for each server, which shows whether that is alive."""

    def heartbeat(now: float) -> Deferred[None]:
        """Renew this server's row; also the cheap probe that ends a time of unavailability."""


class HeartbeatService(TimerService):
    """
    At start, then every ``interval`` seconds of ``clock``, renew this server's row.

    :param wall: gives what is written into the row; ``clock`` if None.
    """

    def __init__(
        self, clock: IReactorTime, store: IHeartbeat, interval: float = INTERVAL, wall: WallTime | None = None
    ) -> None:
        TimerService.__init__(self, interval, lambda: Deferred.fromCoroutine(self.beat()))
        self.clock: IReactorTime = clock
        self._wall: WallTime = wall or clock
        self._store = store
        self._missed = 0

    async def beat(self) -> None:
        """Renew once; the first of a row of misses is logged, and the end of the row."""
        try:
            await self._store.heartbeat(self._wall.seconds())
        except EventLogGone:
            pass  # logged once, by who found it; only a restart ends it
        except EventLogUnavailable as error:
            self._missed += 1
            if self._missed == 1:
                log.error("event log away, trying again: {error}", error=str(error))
        except Exception:
            log.failure("heartbeat failed, trying again")
        else:
            if self._missed:
                log.info("event log is back after {missed} missed heartbeats", missed=self._missed)
            self._missed = 0
