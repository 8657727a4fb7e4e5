"""
Totals of triggers over restarts: what the store has, and what this server has counted since.

A delivery costs nothing here: `harn.observability.subscribers` counts it. Every few seconds, and at the end, what has
been counted meanwhile is added to the store in one unit. What a crash loses of it, the next server counts again from
the deliveries' rows; only refused requests of those seconds, which leave no row, are lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set

from msgspec import Struct
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.errors import EventLogUnavailable
from harn.observability.counts import TriggerCounts
from harn.observability.metrics import Metrics
from harn.statistics.figures import added
from harn.store.statistics import ITotals, RefusedCount, TriggerTotal

log = Logger(namespace="harn.statistics")

INTERVAL = 5.0
"""Seconds between two additions to the store."""
REREAD = 60.0
"""Seconds after which the store is asked again: a server that has handed over to this one adds its last counts."""
SLICE = 20_000
"""Deliveries that one unit counts: some 20 ms of the writer's time."""
PAUSE = 0.1
"""Seconds between two slices."""
RECENT = 20_000
"""Attempts before this server that are searched for a trigger's last success and failure."""


class Flushed(Struct, frozen=True):
    """A trigger's counts, ``counts``, and the values of them that the store has."""

    counts: TriggerCounts
    accepted: int = 0
    refusals: Mapping[str, int] = {}
    last_success: float | None = None
    last_failure: float | None = None

    @classmethod
    def now(cls, counts: TriggerCounts) -> Flushed:
        """Make one of the present values."""
        refusals = dict(counts.refusals) if counts.refusals else {}
        return cls(counts, counts.accepted, refusals, counts.last_success, counts.last_failure)

    def gained(self) -> TriggerTotal | None:
        """Return the counts since then; None if there are none."""
        counts = self.counts
        refused = sum(counts.refusals.values()) - sum(self.refusals.values()) if counts.refusals else 0
        success = counts.last_success if counts.last_success != self.last_success else None
        failure = counts.last_failure if counts.last_failure != self.last_failure else None
        accepted = counts.accepted - self.accepted
        if not accepted and not refused and success is None and failure is None:
            return None
        return TriggerTotal(
            trigger_id=counts.trigger_id,
            accepted=accepted,
            refused=refused,
            last_success=success,
            last_failure=failure,
        )

    def refused(self, minute: int) -> list[RefusedCount]:
        """Return the requests refused since then."""
        before = self.refusals
        return [
            RefusedCount(
                trigger_id=self.counts.trigger_id, minute=minute, reason=reason, count=count - before.get(reason, 0)
            )
            for reason, count in self.counts.refusals.items()
            if count > before.get(reason, 0)
        ]


class TriggerTotals:
    """
    The totals; a `harn.statistics.figures.TotalSource`.

    :param takes_over: another server still runs, and adds what it counts itself.
    """

    def __init__(
        self, clock: IReactorTime, wall: WallTime, store: ITotals, metrics: Metrics, *, takes_over: bool = False
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._store = store
        self._metrics = metrics
        self._stored: Mapping[str, TriggerTotal] = {}
        self._flushed: dict[str, Flushed] = {}
        self._adding: Set[str] = frozenset()
        self._until: int | None = None
        self._is_complete = takes_over
        self._is_closing = False
        self._read_at = float("-inf")
        self._lock = DeferredLock()
        self._loading: Deferred[None] | None = None
        self._is_loading = False

    def of(self, trigger_id: str) -> TriggerTotal:
        """Return the totals of a trigger, up to now."""
        stored = self._stored.get(trigger_id) or TriggerTotal(trigger_id=trigger_id)
        counts = self._metrics.triggers.get(trigger_id)
        if counts is None or (trigger_id not in self._metrics.touched and trigger_id not in self._adding):
            return stored
        flushed = self._flushed.get(trigger_id)
        gained = (Flushed(counts) if flushed is None or flushed.counts is not counts else flushed).gained()
        return stored if gained is None else added(stored, gained)

    def has(self, trigger_id: str) -> bool:
        """See `harn.statistics.figures.TotalSource.has`."""
        return trigger_id in self._stored or trigger_id in self._metrics.touched or trigger_id in self._adding

    def begin(self) -> None:
        """
        Read the stored totals, and count deliveries that a crash left out; called once the store is open, before it
        accepts.
        """
        if not self._is_loading:
            self._is_loading = True
            self._loading = Deferred.fromCoroutine(self._load())
            self._loading.addErrback(lambda failure: log.failure("totals cannot be read", failure))

    def leave_to_others(self) -> None:
        """Count nothing that was left out before: the servers that live add their counts themselves."""
        self._is_complete = True

    async def flush(self) -> None:
        """Add to the store what was counted since the last time; an unavailable event log costs this turn alone."""
        await self._lock.acquire()
        try:
            await self._flush()
        except EventLogUnavailable as error:
            log.warn("totals of triggers cannot be written yet: {error}", error=str(error))
        finally:
            self._lock.release()

    async def close(self) -> None:
        """Add the last counts."""
        self._is_closing = True
        if self._loading is not None:
            await self._loading
        await self.flush()

    async def _load(self) -> None:
        try:
            if self._until is None:
                highest, ours = await self._store.highest(), self._metrics.first_delivery_id
                self._until = highest if ours is None else min(highest, ours - 1)
            self._stored = await self._store.totals()
            await self._store.add(tuple((await self._store.latest_attempts(RECENT)).values()), (), 0)
            while not self._is_complete and not self._is_closing:
                self._is_complete = await self._store.count_on(self._until, SLICE) < SLICE
                if not self._is_complete:
                    await deferLater(self._clock, PAUSE)
            self._stored = await self._store.totals()
        except EventLogUnavailable as error:
            log.warn("totals of triggers cannot be read yet: {error}", error=str(error))
            self._is_loading = False

    async def _flush(self) -> None:
        if not self._is_complete and not self._is_closing:
            self.begin()  # again, if it failed
            return
        self._adding = self._metrics.touched.copy()
        self._metrics.touched.clear()
        try:
            await self._add(self._adding)
        except BaseException:
            self._metrics.touched |= self._adding
            raise
        finally:
            self._adding = frozenset()

    async def _add(self, touched: Collection[str]) -> None:
        """Add to the store what was counted of these triggers since the last time."""
        taken: dict[str, Flushed] = {}
        totals: list[TriggerTotal] = []
        refused: list[RefusedCount] = []
        minute = int(self._wall.seconds() // 60.0)
        for since in self._since(touched):
            gained = since.gained()
            if gained is not None:
                totals.append(gained if self._is_complete else without_accepted(gained))
                refused += since.refused(minute)
                taken[since.counts.trigger_id] = Flushed.now(since.counts)
        if totals:
            await self._store.add(totals, refused, self._metrics.last_delivery_id if self._is_complete else 0)
            self._added(totals, taken, touched)
        if self._clock.seconds() >= self._read_at + REREAD and totals:
            self._read_at = self._clock.seconds()
            self._stored = await self._store.totals()

    def _since(self, touched: Collection[str]) -> Iterator[Flushed]:
        """
        Yield the earlier flushed counts of these triggers, first those whose trigger is gone or came back with new
        ones.
        """
        triggers = self._metrics.triggers
        for trigger_id in touched:
            counts, flushed = triggers.get(trigger_id), self._flushed.get(trigger_id)
            if flushed is not None and flushed.counts is not counts:
                yield flushed
                flushed = None
            if counts is not None:
                yield Flushed(counts) if flushed is None else flushed

    def _added(self, totals: list[TriggerTotal], taken: Mapping[str, Flushed], touched: Collection[str]) -> None:
        stored = dict(self._stored)
        for each in totals:
            before = stored.get(each.trigger_id)
            stored[each.trigger_id] = each if before is None else added(before, each)
        self._stored = stored
        self._flushed.update(taken)
        for trigger_id in touched:
            flushed = self._flushed.get(trigger_id)
            if flushed is not None and self._metrics.triggers.get(trigger_id) is not flushed.counts:
                del self._flushed[trigger_id]


def without_accepted(total: TriggerTotal) -> TriggerTotal:
    """
    Return the part that can be added while earlier deliveries are not all counted; the next start counts the rest.
    """
    return TriggerTotal(
        trigger_id=total.trigger_id,
        refused=total.refused,
        last_success=total.last_success,
        last_failure=total.last_failure,
    )


class TotalsFlusher(TimerService):
    """Adds to the store every `INTERVAL` seconds."""

    def __init__(self, clock: IReactorTime, totals: TriggerTotals) -> None:
        super().__init__(INTERVAL, lambda: Deferred.fromCoroutine(totals.flush()))  # type: ignore[no-untyped-call]
        self.clock: IReactorTime = clock
