"""
Totals of triggers over restarts: the sum of the stored totals and of those that this server has counted since.

Deliveries cause no work here: `harn.observability.subscribers` counts them. Every `INTERVAL`, and when the server
stops, the new counts are added to the store in one unit. After a crash, the next server counts the deliveries that were
not added yet from their rows. Only the refused requests of these seconds are lost, as they have no rows.
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
"""Seconds after which totals are read again, as a server that has handed over to this one adds its last counts."""
SLICE = 20_000
"""Deliveries counted in one unit, which takes some 20 ms of the writer's time."""
PAUSE = 0.1
"""Seconds between two slices."""
RECENT = 20_000
"""Attempts of earlier servers that are searched for the last success and failure of each trigger."""


class Flushed(Struct, frozen=True):
    """
    The counts of a trigger, with their values when they were last added to the store.

    :ivar counts: the counts, which change.
    :ivar accepted: the number of accepted deliveries in the store.
    :ivar refusals: the numbers of refused requests in the store, by reason.
    :ivar last_success: the time of the last success in the store (seconds, Unix); None without one.
    :ivar last_failure: the time of the last failure in the store (seconds, Unix); None without one.
    """

    counts: TriggerCounts
    accepted: int = 0
    refusals: Mapping[str, int] = {}
    last_success: float | None = None
    last_failure: float | None = None

    @classmethod
    def now(cls, counts: TriggerCounts) -> Flushed:
        """Return the counts with their present values."""
        refusals = dict(counts.refusals) if counts.refusals else {}
        return cls(counts, counts.accepted, refusals, counts.last_success, counts.last_failure)

    def gained(self) -> TriggerTotal | None:
        """Return the counts that are not in the store; None if there are none."""
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
        """Return the refused requests that are not in the store."""
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
    The totals of all triggers; a `harn.statistics.figures.TotalSource`.

    :param takes_over: whether another server still runs, which adds its own counts.
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
        Read the stored totals, and count the deliveries that a crash left out.

        Called when the store is open, before the server accepts deliveries.
        """
        if not self._is_loading:
            self._is_loading = True
            self._loading = Deferred.fromCoroutine(self._load())
            self._loading.addErrback(lambda failure: log.failure("totals cannot be read", failure))

    def leave_to_others(self) -> None:
        """Stop counting deliveries of earlier servers: other servers on the store run, and add their own counts."""
        self._is_complete = True

    async def flush(self) -> None:
        """Add the new counts to the store; if the event log is unavailable, log that, and add them next time."""
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
            self.begin()  # begin again if reading failed
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
        """Add the new counts of these triggers to the store."""
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
        Yield the counts of these triggers with their stored values.

        If a trigger was removed, or added again with new counts, its former counts come first.
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
    Return a total without its accepted deliveries: while earlier ones are not all counted, the next start counts both.
    """
    return TriggerTotal(
        trigger_id=total.trigger_id,
        refused=total.refused,
        last_success=total.last_success,
        last_failure=total.last_failure,
    )


class TotalsFlusher(TimerService):
    """Adds the new counts to the store every `INTERVAL` seconds."""

    def __init__(self, clock: IReactorTime, totals: TriggerTotals) -> None:
        super().__init__(INTERVAL, lambda: Deferred.fromCoroutine(totals.flush()))  # type: ignore[no-untyped-call]
        self.clock: IReactorTime = clock
