"""
Changes of many deliveries: as a dry run, or as a job whose end a request awaits for a limited time.

`Bulk` makes them on a running server. `change_offline` makes them in a store that no server uses; the next server runs
the replayed deliveries.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins

from harn.clocks import WallTime
from harn.deliveries.change_operations import ChangeMany, Done, answer
from harn.deliveries.changing import MOST_BYTES, Canceller, Changer, ReplaySource, item_of
from harn.deliveries.job_runner import JobRunner
from harn.deliveries.selection import PAST, DeliveryReader, gone, refusal
from harn.lifecycle import Lifecycle
from harn.model.references import new_event_id
from harn.operations.model import Caller, Role
from harn.operations.registry import DONE, TOPIC, AuditRecord, new_record_id
from harn.server import RecordWriter
from harn.store.deliveries import ListedDelivery
from harn.store.holds import CIRCUITS, PAUSES, RecordedHolds
from harn.store.interfaces import IStore
from harn.store.jobs import REPLAY, IJobs, ItemOutcome, Job, NewJob, PendingItem, ReplayOrder
from harn.waiting import ReactorThreads

if TYPE_CHECKING:
    from harn.deliveries.change_operations import ChangeMany, ChangeOne


PATIENCE = 20.0
"""Seconds that a request waits for the end of its job; after that, the response has the job's progress."""
PATIENCE_WITH_RATE = 1.0
"""The same for a job with a rate, once it has selected its items."""
MOST_ITEMS = 10_000
"""Items that one answer lists."""
FOUND = 500
"""Deliveries that one step of a dry run finds."""


class Changes(Struct, frozen=True, kw_only=True):
    """
    The result of an operation.

    :ivar job: the job that runs the operation, which may not have ended; None without one.
    :ivar items: the first `MOST_ITEMS` of the items that were processed.
    :ivar more: the number of further items.
    """

    operation: str
    dry_run: bool
    matched: int
    changed: int
    skipped: int
    items: tuple[ItemOutcome, ...]
    more: int = 0
    job: Job | None = None


class Bulk(Struct, frozen=True, kw_only=True, eq=False):
    """Changes many deliveries of this server."""

    wall: WallTime
    store: IJobs
    reader: DeliveryReader
    changer: Changer
    runner: JobRunner
    replayer: ReplaySource

    async def change_one(self, operation: str, wanted: ChangeOne) -> Changes:
        """
        Run an operation on one delivery.

        :raises DeliveryUnknown, WrongState: see `Changer.change_one`.
        """
        outcome = await self.changer.change_one(operation, wanted.event_id, dry_run=wanted.dry_run)
        is_done = outcome.reason is None and not wanted.dry_run
        return Changes(
            operation=operation,
            dry_run=wanted.dry_run,
            matched=1,
            changed=int(is_done),
            skipped=int(outcome.reason is not None),
            items=(outcome,),
        )

    async def change(self, operation: str, caller: Caller, wanted: ChangeMany) -> Changes:
        """
        Run an operation on many deliveries as a job, and wait for its end for a limited time; or make a dry run.

        :raises DeliveryUnknown: a named delivery is not in the store; nothing was changed.
        """
        named = [await self._named(event_id) for event_id in dict.fromkeys(wanted.event_ids)]
        if wanted.dry_run:
            return await self._try(operation, wanted, named)
        job = await self._create(operation, caller, wanted, named)
        if job.rate is None:
            await self.runner.wait(job.job_id, seconds=PATIENCE)
        else:
            await self.runner.wait(job.job_id, seconds=PATIENCE, selected=True)
            await self.runner.wait(job.job_id, seconds=PATIENCE_WITH_RATE)
        return await self.result(job.job_id)

    async def change_to_the_end(self, operation: str, caller: Caller, wanted: ChangeMany) -> Changes:
        """See `change`; wait until the job has ended, however long that takes."""
        named = [await self._named(event_id) for event_id in dict.fromkeys(wanted.event_ids)]
        if wanted.dry_run:
            return await self._try(operation, wanted, named)
        job = await self._create(operation, caller, wanted, named)
        while not (await self.runner.job(job.job_id)).state.has_ended:
            await self.runner.wait(job.job_id, seconds=PATIENCE)
        return await self.result(job.job_id)

    async def _create(self, operation: str, caller: Caller, wanted: ChangeMany, named: Sequence[ListedDelivery]) -> Job:
        new = NewJob(
            operation=operation,
            actor=caller.actor,
            filter=wanted.filter(),
            rate=None if wanted.rate_limit is None else float(wanted.rate_limit),
            created_at=self.wall.seconds(),
        )
        return await self.runner.create(new, [each.delivery_id for each in named] if named else None)

    async def result(self, job_id: int) -> Changes:
        """
        Return the results of a job so far.

        :raises RouteUnknown: there is none.
        """
        job = await self.runner.job(job_id)
        items: Sequence[ItemOutcome] = await self.store.items(job_id, 0, MOST_ITEMS)
        return Changes(
            operation=job.operation,
            dry_run=False,
            matched=job.matched,
            changed=job.changed,
            skipped=job.skipped,
            items=tuple(items),
            more=max(0, job.changed + job.skipped - len(items)),
            job=job,
        )

    async def _named(self, event_id: str) -> ListedDelivery:
        return (await self.reader.whole(event_id)).delivery

    async def _try(self, operation: str, wanted: ChangeMany, named: Sequence[ListedDelivery]) -> Changes:
        """Return the changes that would be made, without making them."""
        outcomes = [self._outcome(operation, each) for each in named[:MOST_ITEMS]]
        matched, skipped = len(named), sum(each.reason is not None for each in outcomes)
        before: int | None = None
        selection = wanted.selection(self.wall.seconds())
        while not named:
            scan = await self.reader.scan(selection, FOUND, before)
            found = [self._outcome(operation, each) for each in scan.found]
            matched += len(found)
            skipped += sum(each.reason is not None for each in found)
            outcomes += found[: MOST_ITEMS - len(outcomes)]
            before = scan.before
            if scan.is_at_end or before is None:
                break
        return Changes(
            operation=operation,
            dry_run=True,
            matched=matched,
            changed=0,
            skipped=skipped,
            items=tuple(outcomes),
            more=matched - len(outcomes),
        )

    def _outcome(self, operation: str, delivery: ListedDelivery) -> ItemOutcome:
        why = refusal(operation, delivery)
        item = item_of(delivery)
        if why is None and operation == REPLAY and not self.replayer.has_trigger(item.trigger_id):
            why = gone(item.trigger_id)
        return ItemOutcome(delivery_id=item.delivery_id, event_id=item.event_id, reason=why)


class OfflineReplayer(Struct, frozen=True, kw_only=True, eq=False):
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
    :raises DeliveryUnknown: a named delivery is not in the store; nothing was changed.
    """
    versions = {each: live.version for each, live in (await store.generations.latest_bindings()).items()}

    gates = RecordedHolds.of(await store.checkpoints.get(PAUSES), await store.checkpoints.get(CIRCUITS))
    reader = DeliveryReader(clock=reactor, wall=wall, lists=store.lists, gates=gates, threads=ReactorThreads(reactor))
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
        await store.event_log.append(TOPIC, operation, audit_record(wall.seconds(), caller, wanted, answered))
    return answered


def audit_record(now: float, caller: Caller, wanted: ChangeMany, done: Done) -> AuditRecord:
    """Return the audit record of a change that was made without a server, at ``now`` (seconds, Unix)."""
    past = PAST[done.operation]
    chosen = to_builtins(wanted.filter())
    return AuditRecord(
        id=new_record_id(now),
        actor=caller.actor,
        role=caller.role.value,
        operation=done.operation,
        parameters=chosen,
        filter=chosen,
        outcome=DONE,
        counts={"matched": done.matched, past: getattr(done, past), "skipped": done.skipped},
    )


def user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
