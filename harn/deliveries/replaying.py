"""
Replays: recorded events are accepted again, as new deliveries of the newest versions of their triggers.

Filter and dedupe key are not evaluated again; the predicate is, with the first attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import frozen

from harn.clocks import WallTime
from harn.deliveries.rules import gone
from harn.dispatch.dispatcher import Dispatcher
from harn.lifecycle import Accepted, DeadLettersEnded, Lifecycle
from harn.model.delivery import REPLAYED, NewDelivery, StoredDelivery
from harn.model.references import new_event_id
from harn.store.jobs import IJobs, ItemOutcome, PendingItem, ReplayOrder, Replays
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

MOST_BYTES = 4 * 1024 * 1024
"""Bodies that one slice copies, but for a single one that is larger."""


@frozen(kw_only=True, eq=False)
class Replayer:
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

        Not to be cancelled: what is on disk must be handed to the dispatcher.

        :param job_id: whose items they are.
        :raises EventLogUnavailable: nothing was done.
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
        """Submit the new deliveries to the dispatcher, and release the leases of what was not replayed."""
        ended = Counter(
            (targets[each.replayed_as].id, targets[each.replayed_as].spec.provider)
            for each in done.outcomes
            if each.replayed_as is not None and each.delivery_id in done.dead
        )
        new = {row.event_id: row for row in done.deliveries}
        for event_id, binding in targets.items():
            row = new.get(event_id)
            if row is None:
                binding.release()
                continue
            self.lifecycle.emit(Accepted(binding.key, row.delivery_id, accepted(row)))
            self.dispatcher.submit_row(row, binding)
        self.dispatcher.turn()
        for (trigger_id, provider), count in ended.items():
            self.lifecycle.emit(DeadLettersEnded(trigger_id, provider, REPLAYED, count))


def accepted(row: StoredDelivery) -> NewDelivery:
    """Return what was accepted, as subscribers see it; without its body if that is large."""
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
