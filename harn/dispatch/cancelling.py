"""
Cancelling a drain: what a version still holds is given up, in memory and in the store, what runs too.

What memory holds is settled one by one; the rest of its rows in one unit. Nothing is in both: that unit leaves alone
what memory answers for, and until it is on disk nothing of the version is read back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.dispatch.attempt import cancelled, cancelled_letter
from harn.dispatch.delivery import Delivery
from harn.dispatch.leaving import Leavings
from harn.dispatch.readback import ReadBack
from harn.dispatch.second_tries import SecondTries
from harn.lifecycle import DeadLettered, Lifecycle, VersionClosed
from harn.model.delivery import DRAIN_CANCELLED, Settlement
from harn.store.deliveries import IDeliveries
from harn.triggers.binding import BindingVersion, Stage
from harn.triggers.registry import Registry

T = TypeVar("T")


class Cancels:
    """
    Cancels drains.

    :param end_held: settles, or ends, all that memory holds of a cancelled version; calls `give_up` for each.
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
        end_held: Callable[[BindingVersion], None],
        settle: Callable[[Delivery, Settlement], None],
    ) -> None:
        self._wall = wall
        self._deliveries = deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._readback = readback
        self._leavings = leavings
        self._second_tries = second_tries
        self._end_held = end_held
        self._settle = settle
        self._counts: dict[BindingVersion, int] = {}
        self._waiters: dict[BindingVersion, list[Deferred[int]]] = {}

    def cancel(self, binding: BindingVersion) -> Deferred[int]:
        """See `harn.dispatch.dispatcher.Dispatcher.cancel`."""
        done: Deferred[int] = Deferred()
        waiters = self._waiters.get(binding)
        if waiters is not None:
            waiters.append(done)
            return done
        self._waiters[binding] = [done]
        self._counts[binding] = 0
        Deferred.fromCoroutine(self._cancel(binding)).addBoth(self._over, binding)
        return done

    def give_up(self, delivery: Delivery, *, running: bool = False) -> None:
        """Settle a delivery of a cancelled version; ``running``: its handler was cut off."""
        binding = delivery.binding
        if binding in self._counts:
            self._counts[binding] += 1
        self._settle(delivery, cancelled(delivery, running=running))

    def _over(self, result: int | Failure, binding: BindingVersion) -> None:
        for waiter in self._waiters.pop(binding):
            waiter.callback(result)

    async def _cancel(self, binding: BindingVersion) -> int:
        was_closed = binding.is_closed
        is_abandoned = binding.is_abandoned if was_closed else self._is_gone(binding)
        binding.become(Stage.DISCARDED if is_abandoned else Stage.CANCELLED)
        self._lifecycle.emit(VersionClosed(binding.id, binding.key, cancelled=True))
        if was_closed:
            # Deliveries that it had not begun were moved, or are dead.
            binding.lease()
            self._end_held(binding)
            binding.release()
            return self._counts.pop(binding)
        leaving = self._leavings.begin(binding)
        self._end_held(binding)
        await self._leavings.arrived(binding)
        buried, with_retries = await self._insist(binding, partial(self._bury, binding, binding.version))
        self._leavings.written(leaving)
        if with_retries:
            retries = buried - leaving.stored
            others = await self._bury_others(binding, retries)
            self._registry.retries_died(binding, retries + others)
            buried += others
        elif binding.id in self._registry.active and leaving.stored > buried:
            # It stood in for an earlier version, whose rows are the live one's now.
            self._leavings.hold_stored(self._registry.active[binding.id], leaving.stored - buried)
        self._lifecycle.emit(DeadLettered(binding.id, binding.spec.provider, binding.key, DRAIN_CANCELLED, buried))
        self._readback.left()
        self._leavings.end(leaving)
        return self._counts.pop(binding) + buried

    async def _bury_others(self, binding: BindingVersion, retries: int) -> int:
        """
        Dead-letter the waiting retries of ended versions of a removed trigger: they would have run on this version.

        :param retries: the number of this version's own retries; there is nothing to do if no others wait.
        :return: the number of deliveries that became dead letters.
        """
        if self._registry.newest(binding.id) is not binding or self._registry.waiting[binding.id] <= retries:
            return 0
        count = 0
        self._leavings.burying.add(binding.id)
        for entry in await self._insist(binding, self._deliveries.backlog):
            if entry.trigger_id == binding.id and self._registry.get(binding.id, entry.version) is None:
                count += (await self._insist(binding, partial(self._bury, binding, entry.version)))[0]
        self._leavings.burying.discard(binding.id)
        return count

    async def _insist(self, binding: BindingVersion, work: Callable[[], Deferred[T]]) -> T:
        return await self._second_tries.insist(f"cancelling the drain of {binding.key}", work)

    def _bury(self, binding: BindingVersion, version: int) -> Deferred[tuple[int, bool]]:
        """
        Dead-letter the rows of a version, and its waiting retries if its trigger was removed.

        :return: fires with the number of rows, and whether retries were among them.
        """
        is_gone = self._is_gone(binding)
        if version != binding.version and not is_gone:
            return succeed((0, False))  # it came back: they are its newest version's
        dead = cancelled_letter(binding.key, "before it was done")
        now, held = self._wall.seconds(), tuple(self._readback.held)
        burying = self._deliveries.dead_letter(binding.id, version, dead, now, held, is_gone)
        return burying.addCallback(lambda count: (count, is_gone))

    def _is_gone(self, binding: BindingVersion) -> bool:
        return binding.id not in self._registry.active
