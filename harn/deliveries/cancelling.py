"""Cancels: what waits or is ready ends as skipped, what runs is cut off; on this server, or where none runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import frozen
from twisted.internet.defer import FirstError, gatherResults

from harn.clocks import WallTime
from harn.deliveries.listing import DeliveryReader
from harn.deliveries.rules import describe_state, is_cancelled
from harn.dispatch.dispatcher import Dispatcher
from harn.store.jobs import GONE, IJobs, ItemOutcome, PendingItem


@frozen(kw_only=True, eq=False)
class Canceller:
    """
    Cancels deliveries.

    :ivar dispatcher: of the server; None where none runs.
    """

    wall: WallTime
    store: IJobs
    reader: DeliveryReader
    dispatcher: Dispatcher | None

    async def cancel(self, items: Sequence[PendingItem], job_id: int | None = None) -> Sequence[ItemOutcome]:
        """
        Cancel deliveries; return the outcomes.

        :param job_id: whose items they are.
        :raises EventLogUnavailable: what is in the store alone stays as it was.
        """
        done = await self._cancel([each for each in items if each.trigger_id])
        job = None if job_id is None else await self.store.get(job_id)
        since = float("inf") if job is None else job.created_at
        outcomes = [
            ItemOutcome(delivery_id=each.delivery_id, event_id=each.event_id)
            if each.delivery_id in done
            else await self._left(each, since)
            for each in items
        ]
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

    async def _left(self, item: PendingItem, since: float) -> ItemOutcome:
        """
        Return the outcome of one that was not cancelled now, by its state.

        :param since: seconds, Unix: when its job began. What was cancelled after that was so by an earlier server.
        """
        reason: str | None = GONE
        if item.trigger_id:
            delivery = (await self.reader.whole(item.event_id)).delivery
            is_ours = is_cancelled(delivery) and delivery.ended_at is not None and delivery.ended_at >= since
            reason = None if is_ours else f"it is {describe_state(delivery)}"
        return ItemOutcome(delivery_id=item.delivery_id, event_id=item.event_id, reason=reason)
