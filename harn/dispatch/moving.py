"""
Moving on: what a version has not begun goes to the trigger's live version, or, when there is none, to the dead letters.

This happens at a drain's deadline; and when a version is rolled back, together with the dead letters that it made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.dispatch.attempt import cancelled, removed
from harn.dispatch.delivery import Delivery
from harn.dispatch.leaving import Leaving, Leavings
from harn.dispatch.readback import ReadBack
from harn.dispatch.second_tries import SecondTries
from harn.lifecycle import DeadLettered, Lifecycle, Redriven, VersionClosed
from harn.model.delivery import BINDING_REMOVED, RETRY_EXHAUSTED, Settlement
from harn.store.deliveries import IDeliveries
from harn.triggers.binding import BindingVersion, Stage
from harn.triggers.registry import Registry

log = Logger(namespace="harn.dispatch")


def hand_to(delivery: Delivery, target: BindingVersion) -> None:
    """Reassign a delivery in memory, which does not run, to another version."""
    target.lease()
    old, delivery.binding = delivery.binding, target
    old.release()


def given_up(delivery: Delivery) -> Settlement:
    """Settle a delivery that no version may run any more."""
    binding = delivery.binding
    if binding.is_cancelled:
        return cancelled(delivery)
    return removed(delivery.delivery_id, binding.id, binding.version, delivery.attempts, passed=delivery.passed)


def _close(binding: BindingVersion, target: BindingVersion | None) -> None:
    """Close a version: it begins nothing more. Without a target its trigger was removed. An ended one stays so."""
    if binding.stage is Stage.TERMINATED:
        return
    if binding.is_cancelled:
        binding.become(Stage.DISCARDED if target is None else Stage.CANCELLED)
    else:
        binding.become(Stage.ABANDONED if target is None else Stage.CLOSED)


class Moves:
    """
    Moves versions on.

    :param busy: gives the ids of deliveries that run, are being settled, or are to run again.
    :param settle: makes an outcome durable.
    """

    def __init__(
        self,
        wall: WallTime,
        deliveries: IDeliveries,
        registry: Registry,
        lifecycle: Lifecycle,
        readback: ReadBack,
        leavings: Leavings,
        second_tries: SecondTries,
        busy: Callable[[], Collection[int]],
        settle: Callable[[Delivery, Settlement], None],
    ) -> None:
        self._wall = wall
        self._deliveries = deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._readback = readback
        self._leavings = leavings
        self._second_tries = second_tries
        self._busy = busy
        self._settle = settle
        self._judged: WeakKeyDictionary[BindingVersion, float] = WeakKeyDictionary()

    def move_on(self, binding: BindingVersion) -> Deferred[int]:
        """See `harn.dispatch.dispatcher.Dispatcher.move_on`."""
        if binding.is_closed:
            return succeed(0)  # it has nothing more to give
        target = self._registry.active.get(binding.id)
        _close(binding, target)
        self._lifecycle.emit(VersionClosed(binding.id, binding.key, cancelled=False))
        leaving = self._leavings.begin(binding)
        dead: list[Delivery] = []
        if target is None:
            dead = self._readback.window.remove(lambda delivery: delivery.binding is binding)
            for delivery in dead:
                self._settle(delivery, given_up(delivery))
        else:
            self._leavings.aim(leaving, target)
            for delivery in self._readback.window:
                if delivery.binding is binding:
                    hand_to(delivery, target)
        return Deferred.fromCoroutine(self._move(leaving, len(dead)))

    async def _move(self, leaving: Leaving, dead: int) -> int:
        binding = leaving.binding
        await self._leavings.arrived(binding)
        count = await self._second_tries.insist(f"moving {binding.key} on", partial(self._write_move, leaving))
        self._leavings.written(leaving)
        if leaving.target is None:
            provider = binding.spec.provider
            self._lifecycle.emit(DeadLettered(binding.id, provider, binding.key, BINDING_REMOVED, count))
            self._registry.retries_died(binding, count - leaving.stored)
        elif leaving.joined:
            self._readback.window.look_through()  # the trigger came back: they are to be found
        self._readback.left()
        self._leavings.end(leaving)
        return dead + count

    def _write_move(self, leaving: Leaving) -> Deferred[int]:
        binding, target = leaving.binding, leaving.target
        if target is None:
            target = self._registry.active.get(binding.id)
            _close(binding, target)
            if target is not None:
                self._leavings.aim(leaving, target)
        if target is None:
            to_version, excluding = None, tuple(self._readback.held)
        else:
            to_version, excluding = target.version, tuple(self._busy())
        return self._deliveries.reassign(binding.id, binding.version, to_version, self._wall.seconds(), excluding)

    def accepted(self, delivery: Delivery) -> bool:
        """
        Reassign a delivery that was just submitted, of a version whose deliveries were moved.

        :return: False if that is not its dispatcher's any more: it leaves with others in the store, or was given up.
        """
        target, leaving = self._leavings.follow(delivery.binding)
        if target is not delivery.binding:
            hand_to(delivery, target)
        if leaving is not None:
            self._readback.window.announce(delivery.delivery_id)
            leaving.stored += 1
            leaving.joined = True
            return False
        return not target.is_closed or self.moved_along(delivery)

    def moved_along(self, delivery: Delivery) -> bool:
        """
        Reassign a delivery of a moved version; return False if that was abandoned, and the delivery is dead-lettered.
        """
        binding = delivery.binding
        target = None if binding.is_abandoned else self._registry.for_retry(binding.id, binding)
        if target is None:
            self._settle(delivery, given_up(delivery))
            return False
        hand_to(delivery, target)
        return True

    # Versions that were rolled back

    def take_back(self, binding: BindingVersion, since: float) -> Deferred[int]:
        """See `harn.dispatch.dispatcher.Dispatcher.take_back`."""
        moving = self.move_on(binding)
        if binding.id not in self._registry.active:
            return moving
        self._judged[binding] = since
        taking = Deferred.fromCoroutine(self._take_back(binding, since))
        return gatherResults([moving, taking]).addCallback(sum)

    def settled(self, binding: BindingVersion, settlement: Settlement) -> None:
        """Redrive a delivery that a bad version has used up since: it was running when that was decided."""
        since = self._judged.get(binding)
        if since is None or settlement.dead is None or settlement.dead.reason != RETRY_EXHAUSTED:
            return
        Deferred.fromCoroutine(self._take_back(binding, since)).addErrback(
            lambda failure: log.failure("redriving dead letters of {binding} failed", failure, binding=binding.key)
        )

    async def _take_back(self, binding: BindingVersion, since: float) -> int:
        def write() -> Deferred[int]:
            target = self._registry.active.get(binding.id)
            if target is None:
                return succeed(0)  # the trigger was removed: they stay dead letters
            target.lease()  # its rows may be read before they are counted
            return self._deliveries.redrive(binding.id, binding.version, target.version, since).addBoth(told, target)

        def told(result: int | Failure, target: BindingVersion) -> int | Failure:
            if not isinstance(result, Failure):
                self._leavings.hold_stored(target, result)
                self._lifecycle.emit(Redriven(binding.id, binding.key, result))
            target.release()
            return result

        count = await self._second_tries.insist(f"redriving dead letters of {binding.key}", write)
        if count:
            self._readback.window.look_through()
        return count
