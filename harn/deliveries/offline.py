"""Changes of deliveries in a state directory on which no server runs: the next server does what is to be done."""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import frozen
from msgspec import to_builtins
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from harn.clocks import WallTime
from harn.deliveries.bulk import Bulk
from harn.deliveries.change_operations import ChangeMany, Done, answer
from harn.deliveries.changing import MOST_BYTES, Canceller, Changer
from harn.deliveries.job_runner import JobRunner
from harn.deliveries.reading import DeliveryReader
from harn.deliveries.selection import PAST, gone
from harn.lifecycle import Lifecycle
from harn.model.references import new_event_id, uuid7
from harn.operations.model import Caller, Role
from harn.operations.registry import DONE, TOPIC
from harn.server import RecordWriter
from harn.store.holds import CIRCUITS, PAUSES, RecordedHolds
from harn.store.interfaces import IStore
from harn.store.jobs import IJobs, ItemOutcome, PendingItem, ReplayOrder


@frozen(kw_only=True, eq=False)
class OfflineReplayer:
    """
    Accepts recorded events again for the next server.

    :ivar versions: by trigger id, the newest version of each trigger of the last generation.
    """

    wall: WallTime
    store: IJobs
    versions: Mapping[str, int]

    def has_trigger(self, trigger_id: str) -> bool:
        """Return whether a trigger was in the last generation."""
        return trigger_id in self.versions

    async def replay(self, items: Sequence[PendingItem], job_id: int | None = None) -> Sequence[ItemOutcome]:
        """See `harn.deliveries.changing.Replayer.replay`."""
        left = tuple(
            ItemOutcome(delivery_id=each.delivery_id, event_id=each.event_id, reason=gone(each.trigger_id))
            for each in items
            if each.trigger_id and each.trigger_id not in self.versions
        )
        if left and job_id is not None:
            await self.store.note(job_id, left)
        now = self.wall.seconds()
        orders = [
            ReplayOrder(
                delivery_id=each.delivery_id,
                event_id=new_event_id(now),
                version=self.versions.get(each.trigger_id, 0),
            )
            for each in items
            if not each.trigger_id or each.trigger_id in self.versions
        ]
        if not orders:
            return left
        done = await self.store.replay(orders, now, MOST_BYTES, job_id)
        return (*done.outcomes, *left)


async def change_offline(
    reactor: Any, wall: WallTime, store: IStore, triggers: Collection[str], operation: str, wanted: ChangeMany
) -> Done:
    """
    Run an operation on an open store that no server uses, and record it.

    :param triggers: ids of the triggers of the last generation.
    :raises DeliveryUnknown: one that is named is not kept; nothing was done.
    """
    versions = {each: live.version for each, live in (await store.generations.latest_bindings()).items()}

    def in_thread(function: Any, /, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    gates = RecordedHolds.of(await store.checkpoints.get(PAUSES), await store.checkpoints.get(CIRCUITS))
    reader = DeliveryReader(clock=reactor, wall=wall, lists=store.lists, gates=gates, in_thread=in_thread)
    live = {each: version for each, version in versions.items() if each in triggers}
    replayer = OfflineReplayer(wall=wall, store=store.jobs, versions=live)
    changer = Changer(
        wall=wall,
        store=store.jobs,
        reader=reader,
        replayer=replayer,
        canceller=Canceller(wall=wall, store=store.jobs, reader=reader, dispatcher=None),
        lifecycle=Lifecycle(),
    )
    runner = JobRunner(reactor, wall, store.jobs, reader, changer, RecordWriter(reactor, store.event_log))
    runner.start_without_earlier()
    bulk = Bulk(wall=wall, store=store.jobs, reader=reader, changer=changer, runner=runner, replayer=replayer)
    caller = Caller(actor=f"offline:{user()}", role=Role.ADMIN)
    try:
        done = await bulk.change_to_the_end(operation, caller, wanted)
    finally:
        await runner.stopService()
    answered = answer(done)
    if not wanted.dry_run:
        await store.event_log.append(TOPIC, operation, _record(wall.seconds(), caller, wanted, answered))
    return answered


def _record(now: float, caller: Caller, wanted: ChangeMany, done: Done) -> Mapping[str, Any]:
    past = PAST[done.operation]
    chosen = to_builtins(wanted.filter())
    return {
        "id": f"op_{uuid7(now)}",
        "actor": caller.actor,
        "role": caller.role.value,
        "operation": done.operation,
        "parameters": chosen,
        "filter": chosen,
        "outcome": DONE,
        "counts": {"matched": done.matched, past: getattr(done, past), "skipped": done.skipped},
    }


def user() -> str:
    """Return the name of the user who runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
