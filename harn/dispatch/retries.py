"""
Waiting retries: when a retry is due, its row is made ready in the store, and its version's queue counts it.

One timer waits for the earliest retry. Due times are times of the wall clock; if that is set back, they are moved back
as far, so that no retry is delayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import BackSteps, WallTime
from harn.dispatch.queues import Queues
from harn.dispatch.timers import INTERVAL, Wakeups, Writes
from harn.errors import EventLogUnavailable
from harn.store.deliveries import DueDelivery, IDeliveries
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")

BATCH = 1000
"""The most rows that one durable unit makes ready."""


class Retries:
    """
    Makes retries ready when they are due.

    :param wall: the clock for due times.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        deliveries: IDeliveries,
        registry: Registry,
        queues: Queues,
        wakeups: Wakeups,
        writes: Writes,
    ) -> None:
        self._wall = wall
        self._back_steps = BackSteps(clock, wall)
        self._deliveries = deliveries
        self._registry = registry
        self._queues = queues
        self._wakeups = wakeups
        self._writes = writes
        self._next_at: float | None = None
        self._is_busy = self._is_held = False
        self._open = True

    def waits(self, trigger_id: str, due_at: float) -> None:
        """Count a delivery that waits for a retry until ``due_at`` (seconds, Unix)."""
        self._registry.retry_waits(trigger_id)
        self.expect(due_at)

    def expect(self, due_at: float) -> None:
        """Look for due retries at ``due_at`` (seconds, Unix), or earlier if an earlier one is expected."""
        if self._open:
            self._next_at = due_at if self._next_at is None else min(self._next_at, due_at)
            self._wakeups.notice(due_at)

    def hold(self) -> None:
        """Make no retries ready until `resume`, because the rows being taken over are not counted yet."""
        self._is_held = True

    def resume(self, next_due: float | None) -> None:
        """End `hold`; the earliest retry that was taken over is due at ``next_due`` (seconds, Unix; None for none)."""
        self._is_held = False
        if next_due is not None:
            self.expect(next_due)
        if self._next_at is not None:
            self._wakeups.notice(self._next_at)

    def clear(self) -> None:
        """Discard all expected retries, because other servers have taken them over."""
        self._next_at = None

    def stop(self) -> None:
        """Make no more retries ready."""
        self._open = False
        self._next_at = None

    def follow_wall_clock(self) -> None:
        """
        Move the due times of waiting retries back by as much as the wall clock was set back, so that none is delayed.

        Called before a due time is computed, so that the order of writes shows which ones were computed earlier.
        """
        back = self._back_steps.look()
        if back:
            log.warn("the wall clock was set back by {seconds:.0f} s; retries keep their delays", seconds=back)
            advancing = self._writes.insist("following the wall clock", partial(self._deliveries.advance_due, back))
            advancing.addCallback(lambda _: self.expect(self._wall.seconds()))

    def look(self) -> Deferred[None] | None:
        """
        Begin to make the due retries ready.

        :return: fires when they are counted; None if none is due, or this is in progress.
        """
        if self._next_at is None or self._is_busy or self._is_held or not self._open:
            return None
        self.follow_wall_clock()
        now = self._wall.seconds()
        if now < self._next_at:
            self._wakeups.notice(self._next_at)
            return None
        self._is_busy, self._next_at = True, None
        return self._deliveries.due(now, BATCH).addCallbacks(
            self._became_ready, self._failed, callbackArgs=(now,), errbackArgs=(now,)
        )

    def _failed(self, failure: Failure, now: float) -> None:
        self._is_busy = False
        self._expect_again(now)
        self._wakeups.wake_within(INTERVAL)
        failure.trap(EventLogUnavailable)

    def _expect_again(self, at: float) -> None:
        if self._open:
            self._next_at = at if self._next_at is None else min(self._next_at, at)

    def _became_ready(self, due: Sequence[DueDelivery], now: float) -> None:
        self._is_busy = False
        for (trigger_id, version), count in Counter((each.trigger_id, each.version) for each in due).items():
            self._queues.became_ready(trigger_id, version, count)
            self._registry.retries_end(trigger_id, count)
        if len(due) == BATCH:
            self.expect(now)
        else:
            self._look_ahead(now)

    def _look_ahead(self, now: float) -> None:
        """Find and expect the earliest retry that was not due at ``now`` (seconds, Unix)."""

        def found(due_at: float | None) -> None:
            if due_at is not None:
                self.expect(due_at)

        def not_found(failure: Failure) -> None:
            self._expect_again(now)
            self._wakeups.wake_within(INTERVAL)
            failure.trap(EventLogUnavailable)

        self._deliveries.next_due(now).addCallbacks(found, not_found).addErrback(
            lambda failure: log.failure("looking for the next retry failed", failure=failure)
        )
