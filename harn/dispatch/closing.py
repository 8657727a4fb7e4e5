"""
Closing a version: it begins no further delivery, and the live version of its trigger takes over its queue.

A version is closed at the deadline of its drain, or when it is rolled back; after a rollback its dead letters are
redriven too. If the trigger was removed, or an operator cancels the drain, the deliveries of the version become dead
letters: those in memory one by one, the others in one unit of the store. That unit excludes the deliveries in memory,
and until it is on disk, no delivery of these queues is read or begun. Since the store writes its units in order, the
unit covers every delivery that became ready before the unit is reported as written. The record of closed versions keeps
each version while deliveries name it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from msgspec import Struct
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.dispatch.queue import Queue
from harn.dispatch.queues import Queues
from harn.dispatch.scheduler import Scheduler
from harn.dispatch.settlements import cancelled_letter
from harn.dispatch.settler import Settler
from harn.dispatch.timers import Writes
from harn.lifecycle import DeadLettered, Lifecycle, Redriven, VersionClosed
from harn.model.delivery import RETRY_EXHAUSTED, DeadLetter, Settlement
from harn.store.checkpoints import ICheckpoints
from harn.store.deliveries import REMOVED, GivenUp
from harn.store.interfaces import IStore
from harn.triggers.binding import BindingVersion, Stage
from harn.triggers.registry import Registry

NAME = "closed_versions"
"""The name of the checkpoint: the numbers of the closed versions, by trigger id."""


class ClosedVersions:
    """The stored record of closed versions."""

    def __init__(self, checkpoints: ICheckpoints) -> None:
        self._checkpoints = checkpoints
        self._closed: dict[str, set[int]] = {}
        self._waiting: list[Deferred[None]] = []
        self._is_saving = False

    async def load(self, unfinished: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        """
        Read the record of an earlier server; return the versions (trigger id, number) in it.

        :param unfinished: the versions that unfinished deliveries name; others are dropped from the record.
        :raises EventLogUnavailable: the record cannot be read.
        """
        found: Mapping[str, Any] = await self._checkpoints.get(NAME) or {}
        closed = {(trigger_id, number) for trigger_id, numbers in found.items() for number in numbers}
        for trigger_id, number in closed.intersection(unfinished):
            self._closed.setdefault(trigger_id, set()).add(number)
        return closed

    async def remove(self, trigger_id: str, version: int) -> None:
        """
        Remove a version from the record, because deliveries run on it again.

        :raises EventLogUnavailable: the change is not on disk.
        """
        self._closed.get(trigger_id, set()).discard(version)
        await self._save()

    async def add(self, trigger_id: str, version: int) -> None:
        """
        Add a version to the record.

        :raises EventLogUnavailable: the change is not on disk.
        """
        self._closed.setdefault(trigger_id, set()).add(version)
        await self._save()

    async def _save(self) -> None:
        """Write the record; all changes that come during a write, perhaps thousands, share the next one."""
        saved: Deferred[None] = Deferred()
        self._waiting.append(saved)
        if not self._is_saving:
            self._is_saving = True
            Deferred.fromCoroutine(self._save_all())
        await saved

    async def _save_all(self) -> None:
        """Write the record until no change waits to be written."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            kept = {each: sorted(numbers) for each, numbers in self._closed.items() if numbers}
            error: Exception | None = None
            try:
                await self._checkpoints.put(NAME, kept or None)
            except Exception as failed:
                error = failed
            for saved in waiting:
                if error is None:
                    saved.callback(None)
                else:
                    saved.errback(error)
        self._is_saving = False


log = Logger(namespace="harn.dispatch")

T = TypeVar("T")


class DeadLetterUnit(Struct, frozen=True):
    """
    The dead letters that one unit of the store made.

    :ivar is_whole: whether the unit covered all deliveries of these queues that were not in memory.
    """

    found: Sequence[GivenUp] = ()
    is_whole: bool = False

    @property
    def ready(self) -> int:
        """The number of dead letters that were ready to run before."""
        return sum(each.ready for each in self.found)

    @property
    def waiting(self) -> int:
        """The number of dead letters that waited for a retry before."""
        return sum(each.waiting for each in self.found)


class Closing:
    """Closes versions: at the deadline of a drain, after a rollback, or when a drain is cancelled."""

    def __init__(
        self,
        store: IStore,
        registry: Registry,
        lifecycle: Lifecycle,
        queues: Queues,
        scheduler: Scheduler,
        settler: Settler,
        writes: Writes,
    ) -> None:
        self._deliveries = store.deliveries
        self._registry = registry
        self._lifecycle = lifecycle
        self._queues = queues
        self._scheduler = scheduler
        self._settler = settler
        self._writes = writes
        self.closed = ClosedVersions(store.checkpoints)
        self._bad: WeakKeyDictionary[BindingVersion, float] = WeakKeyDictionary()
        self._cancelling: dict[BindingVersion, list[Deferred[int]]] = {}

    # At a deadline

    def move_on(self, binding: BindingVersion) -> Deferred[int]:
        """See `IVersionDeliveries.move_on`. If the trigger was removed, its deliveries become dead letters."""
        if binding.is_closed or binding.stage is Stage.TERMINATED:
            return succeed(0)
        binding.lease()
        self._queues.of(binding.id, binding.version)  # retries may wait for it, and nothing else
        binding.become(Stage.CLOSED)
        self._lifecycle.emit(VersionClosed(binding.id, binding.key, cancelled=False))
        return Deferred.fromCoroutine(self._move_on(binding)).addBoth(_release, binding)

    async def _move_on(self, binding: BindingVersion) -> int:
        if not self._is_gone(binding):
            moved = 0
            for queue in self._queues.held_by(binding):
                moved += queue.unbegun
                self._reopen(queue)
            await self._note_closed(binding)
            return moved
        for queue in self._queues.held_by(binding):
            self._unload(queue)
        return await self._give_up(binding, REMOVED)

    # After a rollback

    def move_and_redrive(self, binding: BindingVersion, since: float) -> Deferred[int]:
        """
        Move the deliveries that a draining version has not begun to the live version, and redrive its dead letters.

        A delivery that used up its attempts on the version at ``since`` or later begins again with its first attempt.
        So does a delivery that still runs on it, if that fails its last attempt. If the trigger was removed, this does
        the same as `move_on`.

        :param since: seconds, Unix.
        :return: fires with the number of moved and redriven deliveries, once they are on disk.
        """
        moving = self.move_on(binding)
        if self._is_gone(binding):
            return moving
        self._bad[binding] = since
        return gatherResults([moving, self._redrive(binding, since)]).addCallback(sum)

    def died(self, binding: BindingVersion, settlement: Settlement) -> Deferred[int] | None:
        """Redrive a delivery that used up its attempts on a version after its rollback; return None if it did not."""
        since = self._bad.get(binding)
        if since is None or settlement.dead is None or settlement.dead.reason != RETRY_EXHAUSTED:
            return None
        return self._redrive(binding, since)

    def _redrive(self, binding: BindingVersion, since: float) -> Deferred[int]:
        def write() -> Deferred[int]:
            target = self._registry.active.get(binding.id)
            if target is None:
                return succeed(0)  # the trigger was removed: its dead letters stay
            target.lease()  # so that it does not end before they are counted
            writing = self._deliveries.redrive(binding.id, binding.version, target.version, since)
            return writing.addCallback(counted, target).addBoth(_release, target)

        def counted(count: int, target: BindingVersion) -> int:
            self._queues.became_ready(target.id, target.version, count)
            self._lifecycle.emit(Redriven(binding.id, binding.key, count))
            return count

        return self._writes.insist(f"redriving dead letters of {binding.key}", write)

    # Cancelling a drain

    def cancel(self, binding: BindingVersion) -> Deferred[int]:
        """
        Dead-letter the queued and running deliveries of a draining version, and the retries of a removed trigger.

        The calls of running handlers are interrupted. If the trigger still exists, its waiting retries are kept and run
        on its newest version.

        :return: fires with the number of deliveries that became dead letters, once they are on disk.
        """
        done: Deferred[int] = Deferred()
        waiters = self._cancelling.get(binding)
        if waiters is not None:
            waiters.append(done)
            return done
        self._cancelling[binding] = [done]
        self._settler.cancelled[binding] = 0
        binding.lease()
        self._queues.of(binding.id, binding.version)  # retries may wait for it, and nothing else
        if not binding.is_cancelled:
            binding.become(Stage.CANCELLED)
            self._lifecycle.emit(VersionClosed(binding.id, binding.key, cancelled=True))
        Deferred.fromCoroutine(self._cancel(binding)).addBoth(self._cancelled, binding)
        return done

    def _cancelled(self, result: int | Failure, binding: BindingVersion) -> None:
        for waiter in self._cancelling.pop(binding):
            waiter.callback(result)
        binding.release()

    async def _cancel(self, binding: BindingVersion) -> int:
        queues = [queue for queue in self._queues.held_by(binding) if not queue.is_leaving]
        for queue in queues:
            self._end_unbegun(queue)
        for delivery in list(self._scheduler.running.values()):
            if delivery.binding is binding and delivery.calling is not None:
                delivery.calling.cancel()
        count = 0
        if queues:
            count = await self._give_up(binding, cancelled_letter(binding.key, "before it was done"))
            if not self._is_gone(binding):
                await self._note_closed(binding)
        return count + self._settler.cancelled.pop(binding)

    def _end_unbegun(self, queue: Queue) -> None:
        """Dead-letter the unbegun deliveries in memory of a cancelled version; keep the retries of a live trigger."""
        assert queue.holder is not None
        for delivery in self._scheduler.unload(queue):
            if delivery.attempts and self._spares_retries(queue.holder):
                queue.put_back(delivery)
                continue
            delivery.binding = queue.holder
            self._settler.give_up(delivery)

    # Dead letters

    def give_up_orphans(self) -> Sequence[Deferred[int]]:
        """Dead-letter the deliveries that no version can run: they came late, or an earlier server left them."""
        giving_up: list[Deferred[int]] = []
        while self._queues.orphans:
            queue, _ = self._queues.orphans.popitem()
            if not queue.is_leaving and not self._queues.reopen(queue):
                giving_up.append(Deferred.fromCoroutine(self._give_up_orphan(queue)))
            elif queue.small or queue.large:
                self._scheduler.enlist(queue.share)
        return giving_up

    async def _give_up_orphan(self, queue: Queue) -> int:
        holder, trigger_id = queue.holder, queue.share.trigger_id
        dead = REMOVED
        if holder is not None and holder.is_cancelled:
            dead = cancelled_letter(holder.key, "before it was begun")
        self._unload(queue)
        self._leaving([queue], True)

        def write() -> Deferred[DeadLetterUnit]:
            if self._registry.for_queued(trigger_id, queue.version) is not None:
                return succeed(DeadLetterUnit())  # the trigger came back
            writing = self._deliveries.dead_letter(trigger_id, queue.version, dead, tuple(queue.share.in_hand))
            return writing.addCallback(partial(DeadLetterUnit, is_whole=True))

        unit = await self._writes.insist(f"giving up deliveries of {trigger_id}", write)
        return self._given_up([queue], trigger_id, holder, dead, unit)

    async def _give_up(self, binding: BindingVersion, dead: DeadLetter) -> int:
        """Dead-letter the stored deliveries of a closed version, or of the trigger if that was its last version."""
        queues = self._queues.held_by(binding)
        is_last = self._is_gone(binding) and self._registry.for_queued(binding.id, 0) is None
        if is_last:
            queues = list(dict.fromkeys((*queues, *self._queues.of_trigger(binding.id))))
        versions = [None] if is_last else [*dict.fromkeys((binding.version, *(queue.version for queue in queues)))]
        queues = [queue for queue in queues if not queue.is_leaving]
        self._leaving(queues, True)
        count = 0
        for version in versions:
            unit = await self._writes.insist(
                f"closing {binding.key}", partial(self._dead_letter, binding, version, dead)
            )
            of_it = [queue for queue in queues if version in (None, queue.version)]
            count += self._given_up(of_it, binding.id, binding, dead, unit)
        if is_last and self._is_gone(binding):
            self._registry.retries_end(binding.id, None)
        return count

    def _dead_letter(self, binding: BindingVersion, version: int | None, dead: DeadLetter) -> Deferred[DeadLetterUnit]:
        """Write a unit of `_give_up`, as the trigger is now: since then, it may have been removed or added again."""
        is_gone = self._is_gone(binding)
        if not is_gone and not binding.is_cancelled:
            return succeed(DeadLetterUnit())
        if version is None and not is_gone:
            version = binding.version
        in_hand, tried = self._queues.in_hand(binding.id), not self._spares_retries(binding)
        writing = self._deliveries.dead_letter(binding.id, version, dead, in_hand, waiting=is_gone, tried=tried)
        return writing.addCallback(partial(DeadLetterUnit, is_whole=is_gone))

    def _given_up(
        self,
        queues: Sequence[Queue],
        trigger_id: str,
        binding: BindingVersion | None,
        dead: DeadLetter,
        unit: DeadLetterUnit,
    ) -> int:
        """Count the new dead letters; let the newest version, if there is one, run the rest of the queues."""
        for each in unit.found:
            key = None if binding is None else binding.key
            self._lifecycle.emit(DeadLettered(trigger_id, each.provider, key, dead.reason, each.ready + each.waiting))
        left = unit.ready
        for queue in queues:
            died = queue.stored if unit.is_whole else min(left, queue.stored)
            left -= died
            queue.stored -= died
            if queue.holder is not None:
                queue.holder.release(died)
        if unit.waiting:
            self._registry.retries_end(trigger_id, unit.waiting)
        self._leaving(queues, False)
        for queue in queues:
            self._reopen(queue)
            self._queues.note(queue)
            self._queues.tidy(queue)
        return unit.ready + unit.waiting

    def _leaving(self, queues: Sequence[Queue], is_leaving: bool) -> None:
        for queue in queues:
            queue.is_leaving = is_leaving
            queue.is_outdated = queue.is_reading
            self._queues.hungry.pop(queue, None)

    def _reopen(self, queue: Queue) -> None:
        if self._queues.reopen(queue):
            self._scheduler.enlist(queue.share)

    def _unload(self, queue: Queue) -> None:
        """Remove the unbegun deliveries of a queue from memory; their rows stay in the store."""
        for delivery in self._scheduler.unload(queue):
            queue.put_back(delivery)

    def _spares_retries(self, binding: BindingVersion) -> bool:
        """Return whether the retries of a cancelled version run on the live version."""
        live = self._registry.active.get(binding.id)
        return live is not None and live.spec.retry.version != "pinned"

    def _is_gone(self, binding: BindingVersion) -> bool:
        return binding.id not in self._registry.active

    async def _note_closed(self, binding: BindingVersion) -> None:
        """Record that the version is closed, for the next server."""
        await self._writes.insist(f"closing {binding.key}", partial(self.closed.add, binding.id, binding.version))


def _release(result: T, binding: BindingVersion) -> T:
    binding.release()
    return result
