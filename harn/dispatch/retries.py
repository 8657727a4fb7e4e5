"""
Waiting retries: when its time comes, a row becomes ready in the store, and counts in its version's queue from then on.

One timer serves the earliest. Due times are of the wall clock; when that is set back, retries keep their delays.
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
"""Rows that become ready in one unit."""


class Retries:
    """
    Makes retries ready.

    :param wall: the clock of due times.
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
        """Look at ``due_at`` (seconds, Unix), or earlier if something earlier is expected."""
        if self._open:
            self._next_at = due_at if self._next_at is None else min(self._next_at, due_at)
            self._wakeups.notice(due_at)

    def hold(self) -> None:
        """Make nothing ready until `resume`: what is being taken over is not counted yet."""
        self._is_held = True

    def resume(self, next_due: float | None) -> None:
        """End `hold`; ``next_due`` (seconds, Unix) is when the earliest retry that was taken over is due."""
        self._is_held = False
        if next_due is not None:
            self.expect(next_due)
        if self._next_at is not None:
            self._wakeups.notice(self._next_at)

    def clear(self) -> None:
        """Expect nothing that was expected: other servers have taken over what waits."""
        self._next_at = None

    def stop(self) -> None:
        """Make nothing ready any more."""
        self._open = False
        self._next_at = None

    def follow_wall_clock(self) -> None:
        """
        Make the retries that wait due earlier by as much as the wall clock was set back, if it was: none is delayed.

        Called before a due time is computed, so that the order of writes shows which were computed before the step.
        """
        back = self._back_steps.look()
        if back:
            log.warn("the wall clock was set back by {seconds:.0f} s; retries keep their delays", seconds=back)
            advancing = self._writes.insist("following the wall clock", partial(self._deliveries.advance_due, back))
            advancing.addCallback(lambda _: self.expect(self._wall.seconds()))

    def look(self) -> Deferred[None] | None:
        """
        Begin to make ready what is due.

        :return: fires when it is counted; None when nothing is due, or this is under way.
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
        """Expect the earliest retry that was not due yet at ``now``."""

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
