"""
The lives of servers: the heartbeat of each one's row, and how a server takes over what those that are gone left.

The heartbeat is also the probe that ends a time without an event log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Interface

from harn.clocks import WallTime
from harn.errors import EventLogGone, EventLogUnavailable
from harn.model.delivery import RECOVERY_LIMIT, DeadLetter, StoredDelivery
from harn.store.deliveries import Backlog

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

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


class Recovery(Struct, frozen=True, kw_only=True):
    """
    The result of recovery: how many unfinished deliveries continue, and how many were given up at the limit.

    :ivar crashed: how many of both were running when their server crashed.
    :ivar backlog: those that continue, counted for each binding version.
    :ivar is_more: some are left, for the next call.
    """

    recovered: int
    dead: int
    crashed: int = 0
    backlog: tuple[Backlog, ...] = ()
    is_more: bool = False


def recovery_limit(limit: int) -> DeadLetter:
    """Return the dead letter of a delivery that was running at ``limit`` crashes of its server."""
    error = f"it was running at {limit} crashes of its server"
    return DeadLetter(reason=RECOVERY_LIMIT, error_class=RECOVERY_LIMIT, error=error)


class IRecovery(Interface):
    """Takes over what servers that are gone left unfinished; deliveries of servers that live stay theirs."""

    def recover(
        now: float,
        limit: int,
        received_before: float | None = None,
        leaving: int | None = None,
        gone: int | None = None,
    ) -> Deferred[Recovery]:
        """
        Take over unfinished deliveries of servers that are gone, as one unit (``owner``): all, or a slice of many.

        Those that ran when their server crashed count that (``crashes`` + 1), and become dead letters
        (``recovery_limit``) at ``limit``. A server is gone when its heartbeat has lapsed, or, where several servers may
        use the store, when it has ended or was fenced; where a lock keeps other servers off, also when it was not
        renewed since this one started. `close` drops its notes, so that a clean end counts as no crash.

        :param received_before: only those received earlier (seconds, Unix); None for all.
        :param leaving: the incarnation of a server that still runs and ends its deliveries: not those.
        :param gone: that of a server whose process is known to have ended: those in any case.
        """

    def keep_begun(trigger_id: str, version: int, to_version: int) -> Deferred[tuple[int, int]]:
        """
        Move those ready deliveries of a version to a later one that never ran when a server crashed, if any did.

        :return: how many stay, and how many were moved; if none stays, none is moved.
        """

    def unfinished(
        older_than: float, limit: int, leaving: int | None = None, gone: int | None = None
    ) -> Deferred[Sequence[StoredDelivery]]:
        """
        Return unfinished deliveries of servers that are gone, which wait for a `recover`, by id; without their bytes.

        :param older_than: only those received earlier (seconds, Unix).
        :param leaving: see `recover`.
        :param gone: see `recover`.
        """

    def count_unfinished(older_than: float, leaving: int | None = None, gone: int | None = None) -> Deferred[int]:
        """Count the deliveries that `unfinished` would list without a limit. Cost grows with their number."""
