"""Retention: in the background, and in small slices, remove rows that no policy keeps."""

from __future__ import annotations

from msgspec import Struct
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import Interface

from harn.clocks import WallTime
from harn.errors import EventLogUnavailable

log = Logger(namespace="harn.store")

INTERVAL = 60.0
"""Seconds between two sweeps."""

SLICE = 200
"""Rows of one slice: a few milliseconds of the store's time."""

PAGES = 128
"""Pages of the database that are given back in one slice: half a MiB that may have to be moved."""

PAUSE = 0.02
"""Seconds between two slices, for what waits behind them."""


class RetentionPolicy(Struct, frozen=True, kw_only=True):
    """
    The limits of background trimming.

    :ivar events: seconds that finished deliveries and log records are kept.
    :ivar dead: seconds that dead letters are kept.
    :ivar max_bytes: when the data is larger, the oldest finished deliveries go first; None for no limit.
    :ivar generations: how many adopted generations are kept with their content.
    :ivar kept: numbers of further ones.
    :ivar versions: binding versions (trigger id, number) that are kept beside those.
    :ivar triggers: ids of the triggers that are served; empty where that is not known, as before the first generation.
    """

    events: float
    dead: float
    max_bytes: int | None = None
    generations: int = 20
    kept: tuple[int, ...] = ()
    versions: tuple[tuple[str, int], ...] = ()
    triggers: tuple[str, ...] = ()


class IRetention(Interface):
    """A store whose old rows can be removed."""

    def trim(policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        """
        Remove up to ``limit`` rows that the policy does not keep: old events, expired claims, old generations, the
        bundles and manifests that no other names, and the totals of triggers that are not served and have no rows any
        more; return how many. The newest adopted generation is always kept, and so is of each trigger the newest
        version, and the newest of a generation that was adopted.
        """

    def shrink(pages: int) -> Deferred[int]:
        """
        Return up to ``pages`` pages that `trim` has emptied to the file system; give the number of those.

        0 once so few are free that what comes next may need them, and where the database cannot.
        """

    def settle_log() -> Deferred[None]:
        """Move the log into the database itself, as far as no reader needs it: its file gets its size."""


class IRetentionRules(Interface):
    """The source of the policy of retention, which a reload may change."""

    def policy() -> RetentionPolicy:
        """Return the policy in force: the next slice is trimmed by it."""


class RetentionService(TimerService):
    """
    At start, then every ``interval`` seconds, trim until nothing is left to trim, and give back what that freed.

    :param rules: asked before each slice, since a reload may change the policy.
    :param wall: gives the age of rows; ``clock`` if None.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: IRetention,
        rules: IRetentionRules,
        interval: float = INTERVAL,
        wall: WallTime | None = None,
    ) -> None:
        TimerService.__init__(self, interval, lambda: Deferred.fromCoroutine(self.sweep()))
        self.clock: IReactorTime = clock
        self._wall: WallTime = wall or clock
        self._store = store
        self._rules = rules
        self._stopping = False

    def startService(self) -> None:
        """Begin the first sweep."""
        self._stopping = False
        TimerService.startService(self)

    def stopService(self) -> Deferred[None] | None:
        """End after the slice that is under way."""
        self._stopping = True
        stopped: Deferred[None] | None = TimerService.stopService(self)
        return stopped

    async def sweep(self) -> None:
        """Trim slice by slice; an unavailable event log costs this turn alone. Stopping ends it early."""
        try:
            while not self._stopping and await self._store.trim(self._rules.policy(), self._wall.seconds(), SLICE):
                if not self._stopping:
                    await deferLater(self.clock, PAUSE)
            await self._shrink()
        except EventLogUnavailable as error:
            log.warn("retention is skipped this time: {error}", error=str(error))
        except Exception:
            log.failure("retention failed, trying again in {interval} s", interval=self.step)

    async def _shrink(self) -> None:
        given_back = 0
        while not self._stopping and (pages := await self._store.shrink(PAGES)):
            given_back += pages
            if not self._stopping:
                await deferLater(self.clock, PAUSE)
        if given_back and not self._stopping:
            await self._store.settle_log()
            log.info("the event log gave back {pages} pages that nothing used", pages=given_back)
