"""
Replays and the slices of jobs, as every dialect does them: which recorded events are accepted again, as what
deliveries, and how each slice is one unit with the progress of its job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from harn.errors import StoreError
from harn.model import delivery as model
from harn.model.delivery import DEAD, DONE, LARGE_BODY, READY, State, StoredDelivery
from harn.model.event_trace import replayed_envelope
from harn.store.changes import JOBS
from harn.store.database import Connection, Session
from harn.store.executor import Idea, reads, writes
from harn.store.jobs import GONE, ItemOutcome, Job, JobFilter, JobState, NewJob, PendingItem, ReplayOrder, Replays
from harn.store.rows import NAMES

REPLAYABLE = frozenset((DONE, model.SKIPPED, DEAD))
"""States out of which a recorded event is accepted again."""
CHANGED, SKIPPED = 1, 2
"""``job_items.outcome``; 0 while one is pending."""


class Recorded(Struct, frozen=True):
    """The row of a delivery that is to be replayed, in order; ``body`` is empty where it is large."""

    event_id: str
    trigger_id: str
    provider: str
    kind: str
    state: State
    replayed_as: str | None
    envelope: bytes
    size: int
    body: bytes


def recorded_of(row: Sequence[Any]) -> Recorded:
    """Read the row of a delivery that is to be replayed."""
    event_id, trigger_id, provider, kind, state, replayed_as, envelope, size, body = row
    return Recorded(event_id, trigger_id, provider, kind, NAMES[state], replayed_as, envelope, size, body)


def stands(state: State, replayed_as: str | None = None) -> str:
    """Return why nothing is done with a delivery in this state."""
    return f"it is {state}" + (f" as {replayed_as}" if replayed_as and state is State.REPLAYED else "")


def replayed_delivery(delivery_id: int, order: ReplayOrder, recorded: Recorded, now: float) -> StoredDelivery:
    """Return the new delivery, ready; ``now`` is seconds, Unix."""
    envelope = replayed_envelope(recorded.envelope, order.event_id)
    return StoredDelivery(
        delivery_id=delivery_id,
        event_id=order.event_id,
        trigger_id=recorded.trigger_id,
        version=order.version,
        provider=recorded.provider,
        kind=recorded.kind,
        state=READY,
        attempts=0,
        passed=False,
        crashes=0,
        due_at=None,
        received_at=now,
        replay_of=recorded.event_id,
        envelope=envelope,
        body=recorded.body,
        left_out=0 if recorded.size <= LARGE_BODY else recorded.size,
    )


class ReplayStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar recorded: id; as `recorded_of` reads it.
    :ivar name_replay: event id of the replay, id.
    :ivar stands: id: event, number of the state, event of its replay.
    :ivar discard: at (seconds, Unix), id.
    """

    recorded: str
    name_replay: str
    stands: str
    discard: str


class Replaying:
    """Changes of deliveries that have ended, with the statements of ``sql``."""

    sql: ClassVar[ReplayStatements]

    def copy(self, session: Any, new: StoredDelivery, order: ReplayOrder, now: float) -> None:
        """Write the new delivery with its event, whose body is that of the old one; ``now`` is seconds, Unix."""
        raise NotImplementedError

    def hand_over(self, session: Any, order: ReplayOrder, new: StoredDelivery, now: float) -> None:
        """Make a dead letter a replayed one, whose claim goes to its replay."""
        raise NotImplementedError

    def cancel(self, session: Any, delivery_ids: Sequence[int], now: float, *, of_all: bool) -> Mapping[int, State]:
        """See `harn.store.jobs.IJobs.cancel`."""
        raise NotImplementedError

    def replay(self, session: Session, orders: Sequence[ReplayOrder], now: float, max_bytes: int) -> Replays:
        """See `harn.store.jobs.IJobs.replay`."""
        outcomes: list[ItemOutcome] = []
        deliveries: list[StoredDelivery] = []
        dead: set[int] = set()
        size = 0
        for order in orders:
            row = session.connection.execute(self.sql.recorded, (order.delivery_id,)).fetchone()
            if row is None:
                outcomes.append(ItemOutcome(delivery_id=order.delivery_id, event_id="", reason=GONE))
                continue
            recorded = recorded_of(row)
            if recorded.state not in REPLAYABLE:
                why = stands(recorded.state, recorded.replayed_as)
                outcomes.append(ItemOutcome(delivery_id=order.delivery_id, event_id=recorded.event_id, reason=why))
                continue
            size += recorded.size
            if deliveries and size > max_bytes:
                break
            deliveries.append(self._accept_again(session, order, recorded, now))
            if recorded.state is DEAD:
                dead.add(order.delivery_id)
            outcomes.append(
                ItemOutcome(delivery_id=order.delivery_id, event_id=recorded.event_id, replayed_as=order.event_id)
            )
        return Replays(outcomes=tuple(outcomes), deliveries=tuple(deliveries), dead=frozenset(dead))

    def _accept_again(self, session: Session, order: ReplayOrder, recorded: Recorded, now: float) -> StoredDelivery:
        session.numbers.delivery += 1
        new = replayed_delivery(session.numbers.delivery, order, recorded, now)
        self.copy(session, new, order, float(now))
        if recorded.state is DEAD:
            self.hand_over(session, order, new, float(now))
        else:
            session.connection.execute(self.sql.name_replay, (order.event_id, order.delivery_id))
        return new

    def discard(self, session: Session, delivery_ids: Sequence[int], now: float) -> list[ItemOutcome]:
        """See `harn.store.jobs.IJobs.discard`."""
        return [self._discard(session.connection, delivery_id, float(now)) for delivery_id in delivery_ids]

    def _discard(self, connection: Connection, delivery_id: int, now: float) -> ItemOutcome:
        row = connection.execute(self.sql.stands, (delivery_id,)).fetchone()
        if row is None:
            return ItemOutcome(delivery_id=delivery_id, event_id="", reason=GONE)
        event_id, state, replayed_as = row
        reason = None
        if connection.execute(self.sql.discard, (now, delivery_id)).rowcount == 0:
            reason = stands(NAMES[state], replayed_as)
        return ItemOutcome(delivery_id=delivery_id, event_id=event_id, reason=reason)


JOB_COLUMNS = (
    "id, operation, actor, filter, rate, state, created_at, ended_at, cursor, is_selected, matched, changed, skipped"
)
"""What `job_of` reads, in its order."""


def job_of(row: Sequence[Any]) -> Job:
    """Read a job: the columns of a `Job`, in order."""
    return Job(
        job_id=row[0],
        operation=row[1],
        actor=row[2],
        filter=msgspec.json.decode(row[3], type=JobFilter),
        rate=row[4],
        state=JobState(row[5]),
        created_at=row[6],
        ended_at=row[7],
        cursor=row[8],
        is_selected=bool(row[9]),
        matched=row[10],
        changed=row[11],
        skipped=row[12],
    )


class JobStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar create: operation, actor, filter, rate, at (seconds, Unix), cursor; gives the job.
    :ivar get: id.
    :ivar list: limit.
    :ivar unfinished: none. All of these give what `job_of` reads.
    :ivar add: rows of job and delivery.
    :ivar note_selection: cursor, whether it is the last, how many were added, id.
    :ivar pending: id, limit: delivery, event, trigger, provider.
    :ivar still_pending: id, deliveries.
    :ivar note: rows of job, delivery, outcome, event, event of the replay, reason.
    :ivar progress: changed, skipped, id.
    :ivar change: state, ended at, id.
    :ivar complete: the same, for one of which nothing is left.
    :ivar items: id, after, limit: delivery, event, event of the replay, reason.
    :ivar old: before (seconds, Unix).
    :ivar trim_items: id, limit.
    :ivar trim_job: id.
    """

    create: str
    get: str
    list: str
    unfinished: str
    add: str
    note_selection: str
    pending: str
    still_pending: str
    note: str
    progress: str
    change: str
    complete: str
    items: str
    old: str
    trim_items: str
    trim_job: str

    def trim(self, session: Session, before: float, limit: int) -> int:
        """Delete up to ``limit`` items of the job that ended first, before then (seconds, Unix), at last the job."""
        execute = session.connection.execute
        row = execute(self.old, (float(before),)).fetchone()
        if row is None:
            return 0
        return execute(self.trim_items, (row[0], limit)).rowcount or execute(self.trim_job, row).rowcount


class JobsHalf(Idea):
    """`harn.store.jobs.IJobs` with the statements of ``sql``; ``replaying`` changes the deliveries."""

    sql: ClassVar[JobStatements]
    replaying: ClassVar[Replaying]

    @writes
    def create(self, session: Session, new: NewJob, delivery_ids: Sequence[int] | None = None) -> Job:
        """See `IJobs.create`."""
        cursor = session.numbers.delivery + 1
        rate = None if new.rate is None else float(new.rate)
        values = (new.operation, new.actor, msgspec.json.encode(new.filter), rate, float(new.created_at), cursor)
        (row,) = session.connection.execute(self.sql.create, values).fetchall()
        job = job_of(row)
        session.notify(JOBS)
        return job if delivery_ids is None else self._add(session, job.job_id, delivery_ids, cursor, is_last=True)

    @reads
    def get(self, connection: Connection, job_id: int) -> Job | None:
        """See `IJobs.get`."""
        return next(map(job_of, connection.execute(self.sql.get, (job_id,))), None)

    @reads
    def list(self, connection: Connection, limit: int) -> Sequence[Job]:
        """See `IJobs.list`."""
        return tuple(map(job_of, connection.execute(self.sql.list, (limit,))))

    @reads
    def unfinished(self, connection: Connection) -> Sequence[Job]:
        """See `IJobs.unfinished`."""
        return tuple(map(job_of, connection.execute(self.sql.unfinished)))

    @writes
    def select(self, session: Session, job_id: int, delivery_ids: Sequence[int], cursor: int, *, is_last: bool) -> Job:
        """See `IJobs.select`."""
        return self._add(session, job_id, delivery_ids, cursor, is_last=is_last)

    @reads
    def pending(self, connection: Connection, job_id: int, limit: int) -> Sequence[PendingItem]:
        """See `IJobs.pending`."""
        return tuple(
            PendingItem(delivery_id=number, event_id=event_id, trigger_id=trigger_id, provider=provider)
            for number, event_id, trigger_id, provider in connection.execute(self.sql.pending, (job_id, limit))
        )

    @writes
    def change(self, session: Session, job_id: int, state: JobState, now: float) -> Job | None:
        """See `IJobs.change`."""
        statement = self.sql.complete if state is JobState.DONE else self.sql.change
        session.connection.execute(statement, (state.value, float(now) if state.has_ended else None, job_id))
        session.notify(JOBS)
        return next(map(job_of, session.connection.execute(self.sql.get, (job_id,))), None)

    @reads
    def items(self, connection: Connection, job_id: int, after: int, limit: int) -> Sequence[ItemOutcome]:
        """See `IJobs.items`."""
        return tuple(
            ItemOutcome(delivery_id=row[0], event_id=row[1] or "", replayed_as=row[2], reason=row[3])
            for row in connection.execute(self.sql.items, (job_id, after, limit))
        )

    @writes
    def replay(
        self, session: Session, orders: Sequence[ReplayOrder], now: float, max_bytes: int, job_id: int | None = None
    ) -> Replays:
        """See `IJobs.replay`."""
        if job_id is not None:
            pending = self._still_pending(session, job_id, [order.delivery_id for order in orders])
            orders = [order for order in orders if order.delivery_id in pending]
        done = self.replaying.replay(session, orders, now, max_bytes)
        if job_id is not None:
            self._note(session, job_id, done.outcomes)
        return done

    @writes
    def discard(
        self, session: Session, delivery_ids: Sequence[int], now: float, job_id: int | None = None
    ) -> Sequence[ItemOutcome]:
        """See `IJobs.discard`."""
        if job_id is not None:
            pending = self._still_pending(session, job_id, delivery_ids)
            delivery_ids = [each for each in delivery_ids if each in pending]
        outcomes = self.replaying.discard(session, delivery_ids, now)
        if job_id is not None:
            self._note(session, job_id, outcomes)
        return outcomes

    @writes
    def cancel(
        self, session: Session, delivery_ids: Sequence[int], now: float, *, of_all: bool = False
    ) -> Mapping[int, State]:
        """See `IJobs.cancel`."""
        return self.replaying.cancel(session, delivery_ids, now, of_all=of_all)

    @writes
    def note(self, session: Session, job_id: int, outcomes: Sequence[ItemOutcome]) -> None:
        """See `IJobs.note`."""
        pending = self._still_pending(session, job_id, [each.delivery_id for each in outcomes])
        self._note(session, job_id, [each for each in outcomes if each.delivery_id in pending])

    def _add(self, session: Session, job_id: int, delivery_ids: Iterable[int], cursor: int, *, is_last: bool) -> Job:
        """See `IJobs.select`; what another server has added meanwhile is left as it is."""
        before = self._found(session, job_id)
        if before.is_selected or before.state.has_ended or cursor > before.cursor:
            return before
        added = session.write_rows(self.sql.add, [(job_id, each) for each in delivery_ids if each < before.cursor])
        session.connection.execute(self.sql.note_selection, (cursor, is_last, added, job_id))
        return self._found(session, job_id)

    def _found(self, session: Session, job_id: int) -> Job:
        row = session.connection.execute(self.sql.get, (job_id,)).fetchone()
        if row is None:
            raise StoreError(f"there is no job {job_id}")
        return job_of(row)

    def _still_pending(self, session: Session, job_id: int, delivery_ids: Collection[int]) -> set[int]:
        which = (job_id, session.arrays.of(delivery_ids))
        return {number for (number,) in session.connection.execute(self.sql.still_pending, which)}

    def _note(self, session: Session, job_id: int, outcomes: Sequence[ItemOutcome]) -> None:
        """Write the outcomes of pending items, and count them."""
        if outcomes:
            rows = [
                (
                    *(job_id, each.delivery_id, CHANGED if each.reason is None else SKIPPED),
                    *(each.event_id, each.replayed_as, each.reason),
                )
                for each in outcomes
            ]
            session.write_rows(self.sql.note, rows)
            changed = sum(each.reason is None for each in outcomes)
            session.connection.execute(self.sql.progress, (changed, len(outcomes) - changed, job_id))
