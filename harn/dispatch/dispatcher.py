"""
The dispatcher: runs accepted deliveries, so many at once, and makes what comes of each durable.

It decides nothing about an outcome (`harn.dispatch.attempt` does) and holds no durable state (the store does): its
memory can be lost at any moment and is rebuilt by the next server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.clocks import WallTime
from harn.dispatch.attempt import failed, succeeded
from harn.dispatch.bodies import RunningBodies
from harn.dispatch.cancelling import Cancels
from harn.dispatch.counting import workload
from harn.dispatch.delivery import Delivery
from harn.dispatch.leaving import Leavings
from harn.dispatch.moving import Moves, given_up, hand_to
from harn.dispatch.readback import ReadBack
from harn.dispatch.second_tries import SecondTries
from harn.dispatch.window import MAX_BYTES, MAX_DELIVERIES
from harn.errors import AttemptFailed, CallInterrupted, EventLogGone, EventLogUnavailable
from harn.lifecycle import Begun, Lifecycle
from harn.model.delivery import READY, WAITING, Settlement, Workload
from harn.model.outgoing import Returned
from harn.store.deliveries import IDeliveries
from harn.triggers.binding import BindingVersion, Target
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")

UNSETTLED_LIMIT = 1024
"""Outcomes not yet on disk beyond which nothing new is begun."""
DEATHS_UNTIL_ALONE = 2
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""
Seconds before a call that was interrupted again is made once more; the first time it is made at once. A destination
that refuses everything must not spin the reactor.
"""


@frozen
class Outcome:
    """The state of one delivery after it was settled, for its watchers."""

    delivery: Delivery
    settlement: Settlement


@implementer(IVersionDeliveries)
class Dispatcher:
    """
    Runs deliveries.

    :ivar in_progress: by id, the deliveries whose handler runs now.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deliveries: IDeliveries,
        registry: Registry,
        lifecycle: Lifecycle,
        random: Callable[[], float],
        max_outstanding: int = 64,
        max_deliveries: int = MAX_DELIVERIES,
        max_bytes: int = MAX_BYTES,
        wall: WallTime | None = None,
    ) -> None:
        """
        :param max_deliveries: most that wait in memory; ``max_bytes``: most bytes of theirs, and of large ones running.
        :param wall: stamps attempts, and is the clock of due times; ``clock`` if None.
        """
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._deliveries = deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._random = random
        self.max_outstanding = max_outstanding
        self.in_progress: dict[int, Delivery] = {}
        self._unsettled: dict[int, Delivery] = {}
        self._returning: dict[int, tuple[Delivery, IDelayedCall]] = {}
        self._second_tries = SecondTries(clock)
        self._leavings = Leavings()
        self._bodies = RunningBodies(deliveries, max_bytes)
        bounds = max_deliveries, max_bytes, self._wall, self._bodies.fits
        self._readback = ReadBack(
            clock, deliveries, registry, lifecycle, self._second_tries, self._leavings, self._pump, *bounds
        )
        self._window = self._readback.window
        shared = (self._wall, deliveries, registry, lifecycle, self._readback, self._leavings, self._second_tries)
        self._moves = Moves(*shared, self._busy, self._settle)
        self._cancels = Cancels(*shared, self._end_held, self._settle)
        self._watchers: dict[str, list[Deferred[Outcome]]] = {}
        self._idle: Deferred[None] | None = None
        self._open = True
        self._pumping = False
        self._left: int | None = None

    # What others ask of it

    def submit(self, delivery: Delivery) -> None:
        """Queue a delivery that has just become durable; it holds a lease on its binding."""
        if not delivery.binding.is_closed:
            self._window.offer(delivery)
        elif self._moves.accepted(delivery):
            self._window.offer_late(delivery)
        self._pump()
        if delivery.large and delivery.delivery_id not in self.in_progress:
            delivery.let_go_of_body()

    def hold(self) -> None:
        """Read no rows back until `resume`: while rows are taken over, their leases are missing."""
        self._readback.hold()

    def resume(self, next_due: float | None) -> None:
        """Run what the store holds of earlier servers. The leases of ready rows are taken already."""
        self._readback.resume(next_due)
        self._pump()

    def apply(self, max_outstanding: int, max_bytes: int | None = None) -> None:
        """Change how many handlers run at once, and the bounds in bytes if given; what runs is not disturbed."""
        self.max_outstanding = max_outstanding
        if max_bytes is not None:
            self._bodies.max_bytes = self._window.max_bytes = max_bytes
        self._pump()

    def watch(self, event_id: str) -> Deferred[Outcome]:
        """Fire when the event's delivery is next settled: done, dead, or waiting for a retry."""

        def give_up(watcher: Deferred[Outcome]) -> None:
            watchers = self._watchers[event_id]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[event_id]

        watcher: Deferred[Outcome] = Deferred(give_up)
        self._watchers.setdefault(event_id, []).append(watcher)
        return watcher

    @property
    def queued(self) -> int:
        """Number of deliveries that wait in memory for a free place."""
        return len(self._window)

    @property
    def bytes_in_hand(self) -> int:
        """Bytes of deliveries in memory: of those that wait here, and of those that run."""
        return self._window.bytes + self._bodies.bytes

    def drain(self, max_items: int) -> Deferred[None]:
        """
        Begin at most ``max_items`` more, then nothing; fire when nothing runs and every outcome is on disk.

        What was not begun stays in the store, for the next server.
        """
        self._left = max_items if self._left is None else 0
        idle = self._idle = Deferred()
        self._readback.stop_retries()
        self._pump()
        self._check_idle()
        return idle

    def close(self) -> None:
        """Begin nothing more; what runs is the interpreters' to end."""
        self._open = False
        self._readback.close()
        self._second_tries.close()
        for _, call in self._returning.values():
            call.cancel()
        self._returning.clear()

    def workload(self, bindings: Iterable[BindingVersion]) -> Mapping[BindingVersion, Workload]:
        """Return what each of these versions has in hand; cost grows with what memory holds."""
        returning = (delivery for delivery, _ in self._returning.values())
        return workload(bindings, self.in_progress.values(), chain(self._window, returning))

    def move_on(self, binding: BindingVersion) -> Deferred[int]:
        """See `IVersionDeliveries.move_on`; without a newest version, to the dead letters. It is moved once."""
        done = self._moves.move_on(binding)
        self._pump()
        return done

    def take_back(self, binding: BindingVersion, since: float) -> Deferred[int]:
        """
        Return unstarted and finally failed deliveries of a draining version to the trigger's live version.

        What has used up its attempts on it at ``since`` (seconds, Unix) or later is tried again from the start; what it
        still runs too, should that fail for good. When the trigger is gone: as `move_on`.

        :return: how many deliveries that are, when it is on disk.
        """
        done = self._moves.take_back(binding, since)
        self._pump()
        return done

    def cancel(self, binding: BindingVersion) -> Deferred[int]:
        """
        Dead-letter the deliveries of a draining version, queued or running, and the retries of a removed trigger.

        Running handlers are cut off. While the trigger exists, its waiting retries run on its newest version, and stay.

        :return: fires with the number of deliveries that became dead letters, once they are on disk.
        """
        done = self._cancels.cancel(binding)
        self._pump()
        return done

    def _end_held(self, binding: BindingVersion) -> None:
        """Cancel the deliveries of a cancelled version in memory; those being settled, when that is done."""
        held = self._window.remove(lambda delivery: delivery.binding is binding)
        for delivery, again in list(self._returning.values()):
            if delivery.binding is binding:
                again.cancel()
                del self._returning[delivery.delivery_id]
                held.append(delivery)
        running = [delivery for delivery in self.in_progress.values() if delivery.binding is binding]
        for delivery in held:
            self._cancels.give_up(delivery)
        for delivery in running:
            if delivery.calling is not None:
                delivery.calling.cancel()

    def _busy(self) -> tuple[int, ...]:
        return (*self.in_progress, *self._unsettled, *self._returning)

    # Beginning

    def _pump(self) -> None:
        if self._pumping:  # called by something that it began; it goes on where it is
            return
        self._pumping = True
        try:
            while (
                self._open
                and not self._window.is_empty
                and len(self.in_progress) < self.max_outstanding
                and len(self._unsettled) < UNSETTLED_LIMIT
                and (self._left is None or self._left > 0)
            ):
                delivery = self._window.pop(self.in_progress)
                if delivery is None:
                    break
                self._left = None if self._left is None else self._left - 1
                self._begin(delivery)
        finally:
            self._pumping = False

    def _begin(self, delivery: Delivery) -> None:
        if delivery.binding.is_closed and not self._moves.moved_along(delivery):
            return
        binding = delivery.binding
        destination = binding.destination
        if destination is None:
            self._settle(delivery, given_up(delivery))
            return
        destination.retain()
        self.in_progress[delivery.delivery_id] = delivery
        began_at = self._clock.seconds()
        self._bodies.begin(delivery)
        alone = delivery.deaths >= DEATHS_UNTIL_ALONE
        is_taken_up = delivery.is_read_back or delivery.body is None
        noted = self._deliveries.begins(delivery.delivery_id, is_taken_up)
        self._lifecycle.emit(Begun(binding.id, binding.key, delivery.delivery_id))
        if is_taken_up:
            # It may be what killed an earlier server: should it do so again, that is to be known.
            ready = noted.addCallback(lambda _: self._bodies.read(delivery))
            calling = ready.addCallback(lambda _: destination.begin(delivery.outgoing(), alone=alone))
        else:
            calling = destination.begin(delivery.outgoing(), alone=alone)
        delivery.calling = calling
        calling.addCallbacks(
            self._returned,
            self._raised,
            callbackArgs=(delivery, destination, began_at),
            errbackArgs=(delivery, destination, began_at),
        ).addErrback(lambda failure: log.failure("settling failed", failure=failure))

    def _returned(self, returned: Returned, delivery: Delivery, destination: Target, began_at: float) -> None:
        self._ended(delivery, destination)
        self._settle(delivery, succeeded(delivery, *self._stamps(began_at), returned.result))
        self._pump()

    def _raised(self, failure: Failure, delivery: Delivery, destination: Target, began_at: float) -> None:
        self._ended(delivery, destination)
        error = failure.value
        if delivery.binding.is_cancelled:
            self._cancels.give_up(delivery, running=True)  # nothing of it runs on: it was cut off just now
        elif isinstance(error, CallInterrupted):
            self._interrupted(delivery, error)
        else:
            if not isinstance(error, AttemptFailed):
                log.failure("an attempt failed in an unexpected way", failure=failure)
                error = AttemptFailed(f"{type(error).__name__}: {error}")
            gone = self._registry.for_retry(delivery.binding.id, delivery.binding) is None
            self._readback.follow_wall_clock()
            started_at, now = self._stamps(began_at)
            self._settle(delivery, failed(delivery, started_at, now, error, self._random, gone=gone))
        self._pump()

    def _stamps(self, began_at: float) -> tuple[float, float]:
        """Return when an attempt began and ended (seconds, Unix), as far apart as it took: the wall clock may jump."""
        now = self._wall.seconds()
        return now - (self._clock.seconds() - began_at), now

    def _ended(self, delivery: Delivery, destination: Target) -> None:
        del self.in_progress[delivery.delivery_id]
        self._deliveries.ended(delivery.delivery_id)
        self._bodies.end(delivery)
        delivery.calling = None
        destination.release()

    def _interrupted(self, delivery: Delivery, error: CallInterrupted) -> None:
        """Begin it again soon: that did not count as an attempt."""
        pause = 0.0
        if delivery.interruptions:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(delivery.interruptions - 1, 10))
        delivery.interruptions += 1
        delivery.deaths += error.suspect
        if self._open:
            again = self._clock.callLater(pause, self._give_back, delivery)
            self._returning[delivery.delivery_id] = delivery, again

    def _give_back(self, delivery: Delivery) -> None:
        del self._returning[delivery.delivery_id]
        self._window.push_first(delivery)
        self._pump()
        self._check_idle()

    # Ending

    def _settle(self, delivery: Delivery, settlement: Settlement) -> None:
        self._unsettled[delivery.delivery_id] = delivery
        self._deliveries.settle(settlement).addCallbacks(
            self._settled,
            self._not_settled,
            callbackArgs=(delivery, settlement),
            errbackArgs=(delivery, settlement),
        ).addErrback(lambda failure: log.failure("settling failed, trying again", failure=failure))

    def _not_settled(self, failure: Failure, delivery: Delivery, settlement: Settlement) -> None:
        self._second_tries.add(partial(self._settle, delivery, settlement))
        self._left = 0 if failure.check(EventLogGone) else self._left  # the restart that it needs runs it all again
        failure.trap(EventLogUnavailable)

    def _settled(self, _: None, delivery: Delivery, settlement: Settlement) -> None:
        del self._unsettled[delivery.delivery_id]
        binding = delivery.binding
        settled = delivery.settled(settlement)
        delivery.attempts = settlement.attempts
        delivery.passed = settlement.passed
        goes_on = settlement.state in (READY, WAITING)
        is_over = goes_on and binding.is_cancelled and self._registry.for_retry(binding.id, binding) is None
        self._readback.settled(delivery.delivery_id, in_hand=settlement.state == READY or is_over)
        if is_over:
            self._cancels.give_up(delivery)
        elif settlement.state == READY:
            self._retry_now(delivery)
        else:
            if settlement.state == WAITING and settlement.due_at is not None:
                self._readback.waits(binding.id, settlement.due_at)
            self._moves.settled(binding, settlement)
        self._lifecycle.emit(settled)
        if not is_over and settlement.state != READY:
            binding.release()
            for watcher in self._watchers.pop(delivery.event_id, ()):
                watcher.callback(Outcome(delivery, settlement))
        self._pump()
        self._check_idle()

    def _retry_now(self, delivery: Delivery) -> None:
        target = self._registry.for_retry(delivery.binding.id, delivery.binding)
        if target is not None and target is not delivery.binding:
            hand_to(delivery, target)
        self._window.push(delivery)

    def _check_idle(self) -> None:
        if self._idle is None or self.in_progress or self._unsettled or self._returning:
            return
        if self._open and self._left and len(self._window):
            return
        self._left = 0
        idle, self._idle = self._idle, None
        idle.callback(None)
