"""
Changes of deliveries by operators: replay, cancel and discard, of a slice of a job or of one delivery.

A replay accepts a recorded event again, as a new delivery of the newest version of its trigger. The predicate is
evaluated again, with the first attempt; filter and dedupe key are not. A cancel ends a waiting or ready delivery as
skipped, and interrupts a running one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from twisted.internet.defer import FirstError, gatherResults

from harn.clocks import WallTime
from harn.deliveries.elsewhere import Elsewhere
from harn.deliveries.selection import DeliveryReader, describe_state, gone, is_cancelled, refusal
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import WrongState
from harn.lifecycle import Accepted, AcceptedDelivery, DeadLettersEnded, Lifecycle
from harn.model.delivery import DISCARDED, REPLAYED, NewDelivery, StoredDelivery
from harn.model.references import new_event_id
from harn.store.deliveries import ListedDelivery
from harn.store.jobs import CANCEL, GONE, REPLAY, IJobs, ItemOutcome, PendingItem, ReplayOrder, Replays
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

MOST_BYTES = 4 * 1024 * 1024
"""The most bytes of bodies that one slice of a replay copies, unless a single body is larger."""


class ReplaySource(Protocol):
    """A source of replays: the `Replayer` of a server, or the `OfflineReplayer` of `harn.deliveries.bulk`."""

    def has_trigger(self, trigger_id: str) -> bool:
        """Return whether a trigger is in the live generation."""

    async def replay(self, items: Sequence[PendingItem], job_id: int | None = None) -> Sequence[ItemOutcome]:
        """See `Replayer.replay`."""


class Changer(Struct, frozen=True, kw_only=True, eq=False):
    """Changes deliveries of this server."""

    wall: WallTime
    store: IJobs
    reader: DeliveryReader
    replayer: ReplaySource
    canceller: Canceller
    lifecycle: Lifecycle

    async def change(
        self, operation: str, items: Sequence[PendingItem], job_id: int | None = None
    ) -> Sequence[ItemOutcome]:
        """
        Run an operation on deliveries; return the outcomes of those that were processed, at least one.

        :param job_id: the job whose items they are; None without one.
        :raises EventLogUnavailable: the store is unavailable; items of a job stay pending.
        """
        if operation == REPLAY:
            return await self.replayer.replay(items, job_id)
        if operation == CANCEL:
            return await self.canceller.cancel(items, job_id)
        return await self._discard(items, job_id)

    async def change_one(self, operation: str, event_id: str, *, dry_run: bool) -> ItemOutcome:
        """
        Run an operation on one delivery.

        :param dry_run: whether to check only that the operation is possible.
        :raises DeliveryUnknown: no delivery of this event is in the store.
        :raises WrongState: its state does not allow the operation; the message names the state.
        """
        delivery = (await self.reader.whole(event_id)).delivery
        why = refusal(operation, delivery)
        if why is not None:
            raise WrongState(f"{event_id}: {why}")
        if dry_run:
            return ItemOutcome(delivery_id=delivery.delivery_id, event_id=event_id)
        (outcome,) = await self.change(operation, [item_of(delivery)])
        if outcome.reason is not None:
            now = (await self.reader.whole(event_id)).delivery
            why = refusal(operation, now)
            if why is not None:
                raise WrongState(f"{event_id}: {why}")
        return outcome

    async def _discard(self, items: Sequence[PendingItem], job_id: int | None) -> Sequence[ItemOutcome]:
        found = await self.store.discard([each.delivery_id for each in items], self.wall.seconds(), job_id)
        outcomes: Sequence[ItemOutcome] = found
        known = {each.delivery_id: (each.trigger_id, each.provider) for each in items}
        ended = Counter(known[each.delivery_id] for each in outcomes if each.reason is None)
        for (trigger_id, provider), count in ended.items():
            self.lifecycle.emit(DeadLettersEnded(trigger_id, provider, DISCARDED, count))
        return outcomes


def item_of(delivery: ListedDelivery) -> PendingItem:
    """Return a delivery as an item."""
    return PendingItem(
        delivery_id=delivery.delivery_id,
        event_id=delivery.event_id,
        trigger_id=delivery.trigger_id,
        provider=delivery.provider,
    )


class Canceller(Struct, frozen=True, kw_only=True, eq=False):
    """
    Cancels deliveries.

    :ivar dispatcher: the dispatcher of the server; None without a running server.
    :ivar elsewhere: cancels deliveries of other servers on the same store.
    """

    wall: WallTime
    store: IJobs
    reader: DeliveryReader
    dispatcher: Dispatcher | None
    elsewhere: Elsewhere | None = None

    async def cancel(self, items: Sequence[PendingItem], job_id: int | None = None) -> Sequence[ItemOutcome]:
        """
        Cancel deliveries; return the outcomes.

        :param job_id: the job whose items they are; None without one.
        :raises EventLogUnavailable: the store is unavailable; deliveries that are in the store alone are not changed.
        """
        kept = [each for each in items if each.trigger_id]
        others = await self._of_others(kept)
        done = await self._cancel([each for each in kept if each.delivery_id not in others])
        left = await self._cancel_elsewhere([each for each in kept if each.delivery_id in others])
        job = None if job_id is None else await self.store.get(job_id)
        since = float("inf") if job is None else job.created_at
        outcomes: list[ItemOutcome] = []
        for each in items:
            if each.delivery_id in done or each.delivery_id in left:
                why = left.get(each.delivery_id)
                outcomes.append(ItemOutcome(delivery_id=each.delivery_id, event_id=each.event_id, reason=why))
            else:
                outcomes.append(await self._left(each, 0.0 if each.delivery_id in others else since))
        if job_id is not None:
            await self.store.note(job_id, outcomes)
        return outcomes

    async def _cancel(self, items: Sequence[PendingItem]) -> Collection[int]:
        if self.dispatcher is None:
            ended = await self.store.cancel([each.delivery_id for each in items], self.wall.seconds(), of_all=True)
            return set(ended)
        cancel = self.dispatcher.cancel_delivery
        try:
            done = await gatherResults([cancel(each.event_id, each.delivery_id) for each in items], consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        return {each.delivery_id for each, is_cancelled in zip(items, done, strict=True) if is_cancelled}

    async def _of_others(self, items: Sequence[PendingItem]) -> Collection[int]:
        """Return which of these deliveries other servers have."""
        return () if self.elsewhere is None else await self.elsewhere.of_others([each.delivery_id for each in items])

    async def _cancel_elsewhere(self, items: Sequence[PendingItem]) -> Mapping[int, str]:
        """Request other servers to cancel deliveries; return by id why a delivery has not ended."""
        if self.elsewhere is None or not items:
            return {}
        return await self.elsewhere.cancel({each.delivery_id: each.event_id for each in items})

    async def _left(self, item: PendingItem, since: float) -> ItemOutcome:
        """
        Return the outcome of a delivery that this call did not cancel, by its state.

        :param since: when its job began (seconds, Unix). A delivery cancelled after that was cancelled by an earlier
            server for the same job.
        """
        reason: str | None = GONE
        if item.trigger_id:
            delivery = (await self.reader.whole(item.event_id)).delivery
            is_ours = is_cancelled(delivery) and delivery.ended_at is not None and delivery.ended_at >= since
            reason = None if is_ours else f"it is {describe_state(delivery)}"
        return ItemOutcome(delivery_id=item.delivery_id, event_id=item.event_id, reason=reason)


class Replayer(Struct, frozen=True, kw_only=True, eq=False):
    """Replays deliveries on this server."""

    wall: WallTime
    store: IJobs
    registry: Registry
    dispatcher: Dispatcher
    lifecycle: Lifecycle

    def has_trigger(self, trigger_id: str) -> bool:
        """Return whether a trigger is in the live generation."""
        return trigger_id in self.registry.active

    async def replay(self, items: Sequence[PendingItem], job_id: int | None = None) -> Sequence[ItemOutcome]:
        """
        Replay deliveries; return the outcomes of those that fitted into one slice, at least one.

        Callers must not cancel it, as new deliveries on disk must be passed to the dispatcher.

        :param job_id: the job whose items they are; None without one.
        :raises EventLogUnavailable: the store is unavailable; nothing was changed.
        """
        active = self.registry.active
        left = tuple(
            ItemOutcome(delivery_id=each.delivery_id, event_id=each.event_id, reason=gone(each.trigger_id))
            for each in items
            if each.trigger_id and each.trigger_id not in active
        )
        if left and job_id is not None:
            await self.store.note(job_id, left)
        now = self.wall.seconds()
        orders: list[ReplayOrder] = []
        targets: dict[str, BindingVersion] = {}
        for each in items:
            binding = active.get(each.trigger_id)
            if binding is None and each.trigger_id:
                continue
            event_id = new_event_id(now)
            version = 0 if binding is None else binding.version  # of one that retention has removed, and that is left
            orders.append(ReplayOrder(delivery_id=each.delivery_id, event_id=event_id, version=version))
            if binding is not None:
                targets[event_id] = binding
                binding.lease()
        if not orders:
            return left
        try:
            done = await self.store.replay(orders, now, MOST_BYTES, job_id)
        except BaseException:
            for binding in targets.values():
                binding.release()
            raise
        self._begin(done, targets)
        return (*done.outcomes, *left)

    def _begin(self, done: Replays, targets: Mapping[str, BindingVersion]) -> None:
        """Submit the new deliveries to the dispatcher, and release the leases of those that were not replayed."""
        ended = Counter(
            (targets[each.replayed_as].id, targets[each.replayed_as].spec.provider)
            for each in done.outcomes
            if each.replayed_as is not None and each.delivery_id in done.dead
        )
        new = {row.event_id: row for row in done.deliveries}
        replays: list[tuple[StoredDelivery, BindingVersion]] = []
        for event_id, binding in targets.items():
            row = new.get(event_id)
            if row is None:
                binding.release()
                continue
            replays.append((row, binding))
        replays.sort(key=lambda replay: replay[0].delivery_id)
        if replays:
            emitted = [AcceptedDelivery(binding.key, row.delivery_id, accepted(row)) for row, binding in replays]
            self.lifecycle.emit(Accepted.of(emitted))
        for row, binding in replays:
            self.dispatcher.submit_row(row, binding)
        self.dispatcher.turn()
        for (trigger_id, provider), count in ended.items():
            self.lifecycle.emit(DeadLettersEnded(trigger_id, provider, REPLAYED, count))


def accepted(row: StoredDelivery) -> NewDelivery:
    """Return the new delivery for subscribers of `Accepted`, without its body if that is large."""
    return NewDelivery(
        event_id=row.event_id,
        trigger_id=row.trigger_id,
        version=row.version,
        provider=row.provider,
        kind=row.kind,
        envelope=row.envelope,
        body=row.body,
        received_at=row.received_at,
        replay_of=row.replay_of,
    )
