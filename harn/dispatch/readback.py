"""
Reading rows back from the store: ready rows that were not in memory, and retries that are due.

A ready row has its lease already, taken when it was accepted; a retry takes one now, on the version that it runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import BackSteps, WallTime
from harn.dispatch.attempt import removed
from harn.dispatch.delivery import Delivery
from harn.dispatch.leaving import Leavings
from harn.dispatch.second_tries import INTERVAL, SecondTries
from harn.dispatch.wakeups import Wakeups
from harn.dispatch.window import MAX_BYTES, MAX_DELIVERIES, Window
from harn.errors import EventLogUnavailable
from harn.lifecycle import DeadLettered, Lifecycle
from harn.model.delivery import BINDING_REMOVED, WAITING, StoredDelivery
from harn.store.deliveries import IDeliveries
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")

DUE_BATCH = 256
"""Due retries read at once."""


class ReadBack:
    """
    Brings rows back into the window.

    :param leavings: of which nothing is brought back.
    :param pump: called when something has come.
    :param wall: the clock of due times; ``clock`` if None.
    :param fits: see `Window`.
    :ivar window: what it brings them into.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deliveries: IDeliveries,
        registry: Registry,
        lifecycle: Lifecycle,
        second_tries: SecondTries,
        leavings: Leavings,
        pump: Callable[[], None],
        max_deliveries: int = MAX_DELIVERIES,
        max_bytes: int = MAX_BYTES,
        wall: WallTime | None = None,
        fits: Callable[[Delivery], bool] = lambda _: True,
    ) -> None:
        self._wall: WallTime = wall or clock
        self._back_steps = BackSteps(clock, self._wall)
        self._deliveries = deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._second_tries = second_tries
        self._leavings = leavings
        self._pump = pump
        self.window = Window(clock, deliveries, self._admit, pump, second_tries, max_deliveries, max_bytes, fits)
        self._wakeups = Wakeups(clock, self._wall, self._wake)
        self._due: set[int] = set()
        self._reading_due = self._due_outdated = False
        self._passed_over = False  # ready rows that were leaving
        self._left_waiting: set[int] = set()  # due retries that were
        self._held = False
        self._open = True

    def hold(self) -> None:
        """Pause reading back until `resume`."""
        self._held = True
        self.window.hold()

    def resume(self, next_due: float | None) -> None:
        """Read back what the store holds, whatever its age; ``next_due`` (seconds, Unix) is of the earliest retry."""
        self._held = False
        self.window.start_over()
        if next_due is not None:
            self._wakeups.notice(next_due)

    def waits(self, trigger_id: str, due_at: float) -> None:
        """Record a delivery that waits for a retry until ``due_at`` (seconds, Unix)."""
        self._registry.retry_waits(trigger_id)
        self._wakeups.notice(due_at)

    def follow_wall_clock(self) -> None:
        """
        Make the retries that wait due earlier by as much as the wall clock was set back, if it was: none is delayed.

        Called before a due time is computed, so that the order of writes shows which were computed before the step.
        """
        back = self._back_steps.look()
        if back:
            log.warn("the wall clock was set back by {seconds:.0f} s; retries keep their delays", seconds=back)
            self._advance_due(back)

    def _advance_due(self, seconds: float) -> None:
        def not_advanced(failure: Failure) -> None:
            self._second_tries.add(partial(self._advance_due, seconds))
            failure.trap(EventLogUnavailable)

        self._deliveries.advance_due(seconds).addCallbacks(
            lambda _: self._wakeups.wake_within(0.0), not_advanced
        ).addErrback(lambda failure: log.failure("following the wall clock failed", failure=failure))

    def settled(self, delivery_id: int, *, in_hand: bool) -> None:
        """
        Record that a delivery's new state is on disk.

        :param in_hand: memory keeps it: it is ready for its next attempt.
        """
        self._due.discard(delivery_id)
        if not in_hand:
            self.window.let_go(delivery_id)

    @property
    def held(self) -> set[int]:
        """Ids of all deliveries that memory answers for: whoever changes many rows at once leaves these alone."""
        return self.window.in_hand | self._due

    def left(self) -> None:
        """Record that rows have left a version in the store: what is being read may show them as they were."""
        self.window.read_again()
        self._due_outdated = self._reading_due
        if self._passed_over:
            self._passed_over = False
            self.window.look_through()
        if self._left_waiting:
            self._left_waiting.clear()
            self._wakeups.wake_within(0.0)

    def stop_retries(self) -> None:
        """Stop reading due retries."""
        self._open = False
        self._wakeups.stop()

    def close(self) -> None:
        """Stop reading back."""
        self.stop_retries()
        self.window.close()

    # Ready rows

    def _admit(self, row: StoredDelivery) -> Delivery | None:
        if self._leavings.holds(row, self._registry):
            self._passed_over = True
            return None
        if row.delivery_id in self._due:
            return None  # it is being given up already
        binding = self._holder(row)
        if binding is None:
            if self._leavings.may_hold(row.trigger_id):
                self._passed_over = True
            else:
                self._give_up(row)
            return None
        binding.stored -= 1
        return Delivery.stored(row, binding)

    def _holder(self, row: StoredDelivery) -> BindingVersion | None:
        """
        Find the version that holds a lease for a ready row.

        That is the row's own; or, if that was moved on or could not be revived, one that took its leases over: a later
        one, or the live one, which is the earlier after an aborted ramp.
        """
        own = self._registry.get(row.trigger_id, row.version)
        if own is not None and own.stored > 0:
            return own
        if (own is None or own.is_closed) and self._leavings.may_hold(row.trigger_id):
            return None
        newest = self._registry.newest(row.trigger_id)
        for other in self._registry.versions(row.trigger_id):
            if other.stored > 0 and (other.version > row.version or other is newest):
                return other
        if own is not None and not own.is_closed:
            return own  # committed just now, and the news of it is under way
        if newest is None or newest.is_closed:
            return None
        newest.lease()
        newest.stored += 1
        return newest

    # Due retries

    def _wake(self) -> None:
        if self._reading_due or not self._open:
            return
        self.follow_wall_clock()
        if self._held:
            self._wakeups.wake_within(INTERVAL)
            return
        now = self._wall.seconds()
        limit = min(DUE_BATCH, self.window.room)
        if not limit:
            self._wakeups.wake_within(INTERVAL)
            return
        self._reading_due = True
        # A copy: the store may read it on another thread.
        self._deliveries.due(now, limit, (*self._due, *self._left_waiting)).addCallbacks(
            self._woken, self._not_woken, callbackArgs=(now, limit)
        ).addErrback(lambda failure: log.failure("taking up due retries failed", failure=failure))

    def _not_woken(self, failure: Failure) -> None:
        self._reading_due = self._due_outdated = False
        self._wakeups.wake_within(INTERVAL)
        failure.trap(EventLogUnavailable)

    def _woken(self, rows: Sequence[StoredDelivery], now: float, limit: int) -> None:
        self._reading_due = False
        outdated, self._due_outdated = self._due_outdated, False
        if not self._open:
            return
        if self._held or outdated:
            self._wake()
            return
        for row in rows:
            if row.delivery_id in self.window.in_hand:
                continue
            if self._leavings.holds(row, self._registry):
                self._left_waiting.add(row.delivery_id)
                continue
            self._due.add(row.delivery_id)
            binding = self._registry.for_retry(row.trigger_id, self._registry.get(row.trigger_id, row.version))
            if binding is None:
                self._give_up(row)
                continue
            binding.lease()
            self._registry.retry_is_due(row.trigger_id)
            self.window.push(Delivery.stored(row, binding))
        self._pump()
        if len(rows) == limit:
            self._wake()
        else:
            self._look_ahead(now)

    def _look_ahead(self, now: float) -> None:
        """Set the timer for the earliest retry that was not due yet when the last ones were read, at ``now``."""

        def found(due_at: float | None) -> None:
            if due_at is not None:
                self._wakeups.notice(due_at)

        def not_found(failure: Failure) -> None:
            self._wakeups.wake_within(INTERVAL)
            failure.trap(EventLogUnavailable)

        self._deliveries.next_due(now).addCallbacks(found, not_found).addErrback(
            lambda failure: log.failure("looking for the next retry failed", failure=failure)
        )

    # Rows that nothing is left for

    def _give_up(self, row: StoredDelivery) -> None:
        """Dead-letter a row of a trigger of which no version is left."""
        self._due.add(row.delivery_id)

        def given_up(_: None) -> None:
            self.settled(row.delivery_id, in_hand=False)
            if row.state == WAITING:
                self._registry.retry_is_due(row.trigger_id)
            self._lifecycle.emit(DeadLettered(row.trigger_id, row.provider, None, BINDING_REMOVED, 1))

        def not_given_up(failure: Failure) -> None:
            self._second_tries.add(partial(self._give_up, row))
            failure.trap(EventLogUnavailable)

        settlement = removed(row.delivery_id, row.trigger_id, row.version, row.attempts, passed=row.passed)
        self._deliveries.settle(settlement).addCallbacks(given_up, not_given_up).addErrback(
            lambda failure: log.failure("giving a delivery up failed", failure=failure)
        )
