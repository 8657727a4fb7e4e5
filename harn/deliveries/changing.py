"""Changes of deliveries by operators: replay, cancel and discard, of a slice of a job or of one delivery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from harn.clocks import WallTime
from harn.deliveries.cancelling import Canceller
from harn.deliveries.listing import DeliveryReader
from harn.deliveries.rules import refusal
from harn.errors import WrongState
from harn.lifecycle import DeadLettersEnded, Lifecycle
from harn.model.delivery import DISCARDED
from harn.store.jobs import CANCEL, REPLAY, IJobs, ItemOutcome, PendingItem
from harn.store.lists import ListedDelivery


class Replays(Protocol):
    """Replays deliveries: `harn.deliveries.replaying.Replayer` does, and where no server runs another."""

    def has_trigger(self, trigger_id: str) -> bool:
        """Return whether a trigger is in the live generation."""

    async def replay(self, items: Sequence[PendingItem], job_id: int | None = None) -> Sequence[ItemOutcome]:
        """See `Replayer.replay`."""


@frozen(kw_only=True, eq=False)
class Changer:
    """Changes deliveries of this server."""

    wall: WallTime
    store: IJobs
    reader: DeliveryReader
    replayer: Replays
    canceller: Canceller
    lifecycle: Lifecycle

    async def change(
        self, operation: str, items: Sequence[PendingItem], job_id: int | None = None
    ) -> Sequence[ItemOutcome]:
        """
        Run an operation on deliveries; return the outcomes of those that it came to, at least one.

        :param job_id: whose items they are.
        :raises EventLogUnavailable: those of a job stay pending.
        """
        if operation == REPLAY:
            return await self.replayer.replay(items, job_id)
        if operation == CANCEL:
            return await self.canceller.cancel(items, job_id)
        return await self._discard(items, job_id)

    async def change_one(self, operation: str, event_id: str, *, dry_run: bool) -> ItemOutcome:
        """
        Run an operation on one delivery; ``dry_run``: only check that it could be done.

        :raises DeliveryUnknown: there is none.
        :raises WrongState: it is in a state in which that cannot be done; says which.
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
