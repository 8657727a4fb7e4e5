"""Jobs, their items, and the slices in which they change deliveries, each one unit with the job's progress."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from zope.interface import implementer

from harn.errors import StoreError
from harn.model.delivery import State
from harn.store.executor import reads, writes
from harn.store.jobs import IJobs, ItemOutcome, Job, JobState, NewJob, PendingItem, ReplayOrder, Replays
from harn.store.replays import JobsHalf
from harn.store.rows import job_of
from harn.store.sqlite import replays
from harn.store.sqlite.connection import Session

if TYPE_CHECKING:
    from builtins import list as listing
    from collections.abc import Iterable

TABLES = """
-- What operators have a server do with many deliveries. `state`: `harn.store.jobs.JobState`. `cursor`: deliveries from
-- this id on have been looked at, or came after the job.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    operation TEXT NOT NULL,
    actor TEXT NOT NULL,
    filter BLOB NOT NULL,
    rate REAL,
    state TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    cursor INTEGER NOT NULL,
    is_selected INTEGER NOT NULL,
    matched INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_unfinished ON jobs (id) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;

-- The deliveries of a job. `outcome`: 0 pending, 1 changed, 2 skipped.
CREATE TABLE job_items (
    job_id INTEGER NOT NULL,
    delivery_id INTEGER NOT NULL,
    outcome INTEGER NOT NULL DEFAULT 0,
    event_id TEXT,
    replayed_as TEXT,
    reason TEXT,
    PRIMARY KEY (job_id, delivery_id)
) WITHOUT ROWID;
CREATE INDEX job_items_pending ON job_items (job_id, delivery_id) WHERE outcome = 0;
"""

STEP = tuple(statement.strip() for statement in TABLES.split(";\n") if statement.strip())
"""The statements that bring these tables to an older database."""

CHANGED, SKIPPED = 1, 2

_COLUMNS = (
    "id, operation, actor, filter, rate, state, created_at, ended_at, cursor, is_selected, matched, changed, skipped"
)
_GET = f"SELECT {_COLUMNS} FROM jobs WHERE id = ?"
_LIST = f"SELECT {_COLUMNS} FROM jobs ORDER BY id DESC LIMIT ?"
_UNFINISHED = f"SELECT {_COLUMNS} FROM jobs WHERE ended_at IS NULL ORDER BY id"
_CREATE = (
    "INSERT INTO jobs (operation, actor, filter, rate, state, created_at, cursor, is_selected)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD = "INSERT INTO job_items (job_id, delivery_id) VALUES "
_COUNT = "UPDATE jobs SET cursor = ?, is_selected = ?, matched = matched + ? WHERE id = ? AND ended_at IS NULL"
_PENDING = (
    "SELECT i.delivery_id, coalesce(d.event_id, ''), coalesce(d.trigger_id, ''), coalesce(d.provider, '')"
    " FROM job_items i INDEXED BY job_items_pending"
    " LEFT JOIN deliveries d ON d.id = i.delivery_id WHERE i.job_id = ? AND i.outcome = 0"
    " ORDER BY i.delivery_id LIMIT ?"
)
_STILL_PENDING = (
    "SELECT delivery_id FROM job_items WHERE job_id = ? AND outcome = 0"
    " AND delivery_id IN (SELECT value FROM json_each(?))"
    " AND EXISTS (SELECT 1 FROM jobs WHERE id = job_id AND state = 'running')"
)
_NOTE = (
    "UPDATE job_items SET outcome = ?, event_id = ?, replayed_as = ?, reason = ? WHERE job_id = ? AND delivery_id = ?"
)
_PROGRESS = "UPDATE jobs SET changed = changed + ?, skipped = skipped + ? WHERE id = ?"
_CHANGE = "UPDATE jobs SET state = ?, ended_at = ? WHERE id = ? AND ended_at IS NULL"
_IS_COMPLETE = " AND is_selected AND matched = changed + skipped"
_ITEMS = (
    "SELECT delivery_id, event_id, replayed_as, reason FROM job_items WHERE job_id = ? AND outcome > 0"
    " AND delivery_id > ? ORDER BY delivery_id LIMIT ?"
)
_OLD = "SELECT id FROM jobs WHERE ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT 1"
_TRIM_ITEMS = (
    "DELETE FROM job_items WHERE job_id = ?1 AND delivery_id IN"
    " (SELECT delivery_id FROM job_items WHERE job_id = ?1 ORDER BY delivery_id LIMIT ?2)"
)


@implementer(IJobs)
class SQLiteJobs(JobsHalf):
    """`IJobs` on SQLite."""

    @writes
    def create(self, session: Session, new: NewJob, delivery_ids: Sequence[int] | None = None) -> Job:
        """See `IJobs.create`."""
        values = (
            new.operation,
            new.actor,
            msgspec.json.encode(new.filter),
            new.rate,
            JobState.RUNNING,
            new.created_at,
            session.numbers.delivery + 1,
            False,
        )
        job_id = int(session.connection.execute(_CREATE, values).lastrowid or 0)
        if delivery_ids is not None:
            return self._add(session, job_id, delivery_ids, session.numbers.delivery + 1, is_last=True)
        return self._found(session, job_id)

    @reads
    def get(self, connection: sqlite3.Connection, job_id: int) -> Job | None:
        """See `IJobs.get`."""
        return next(map(job_of, connection.execute(_GET, (job_id,))), None)

    @reads
    def list(self, connection: sqlite3.Connection, limit: int) -> Sequence[Job]:
        """See `IJobs.list`."""
        return tuple(map(job_of, connection.execute(_LIST, (limit,))))

    @reads
    def unfinished(self, connection: sqlite3.Connection) -> Sequence[Job]:
        """See `IJobs.unfinished`."""
        return tuple(map(job_of, connection.execute(_UNFINISHED)))

    @writes
    def select(self, session: Session, job_id: int, delivery_ids: Sequence[int], cursor: int, *, is_last: bool) -> Job:
        """See `IJobs.select`."""
        return self._add(session, job_id, delivery_ids, cursor, is_last=is_last)

    @reads
    def pending(self, connection: sqlite3.Connection, job_id: int, limit: int) -> Sequence[PendingItem]:
        """See `IJobs.pending`."""
        rows = connection.execute(_PENDING, (job_id, limit))
        return tuple(
            PendingItem(delivery_id=number, event_id=event_id, trigger_id=trigger_id, provider=provider)
            for number, event_id, trigger_id, provider in rows
        )

    @writes
    def change(self, session: Session, job_id: int, state: JobState, now: float) -> Job | None:
        """See `IJobs.change`."""
        statement = _CHANGE + (_IS_COMPLETE if state is JobState.DONE else "")
        session.connection.execute(statement, (state, now if state.has_ended else None, job_id))
        return next(map(job_of, session.connection.execute(_GET, (job_id,))), None)

    @reads
    def items(self, connection: sqlite3.Connection, job_id: int, after: int, limit: int) -> Sequence[ItemOutcome]:
        """See `IJobs.items`."""
        return tuple(
            ItemOutcome(delivery_id=row[0], event_id=row[1] or "", replayed_as=row[2], reason=row[3])
            for row in connection.execute(_ITEMS, (job_id, after, limit))
        )

    def _replay(self, session: Session, orders: Sequence[ReplayOrder], now: float, max_bytes: int) -> Replays:
        return replays.SQLiteReplaying().replay(session, orders, now, max_bytes)

    def _discard(self, session: Session, delivery_ids: Sequence[int], now: float) -> listing[ItemOutcome]:
        return replays.discard(session, delivery_ids, now)

    def _cancel(
        self, session: Session, delivery_ids: Sequence[int], now: float, *, of_all: bool
    ) -> Mapping[int, State]:
        return replays.cancel(session, delivery_ids, now, of_all=of_all)

    def _found(self, session: Session, job_id: int) -> Job:
        row = session.connection.execute(_GET, (job_id,)).fetchone()
        if row is None:
            raise StoreError(f"there is no job {job_id}")
        return job_of(row)

    def _add_items(self, session: Session, job_id: int, delivery_ids: Iterable[int]) -> int:
        values = [value for delivery_id in delivery_ids for value in (job_id, delivery_id)]
        return session.execute_rows(_ADD, 2, values, " ON CONFLICT DO NOTHING") if values else 0

    def _note_selection(self, session: Session, job_id: int, cursor: int, is_last: bool, added: int) -> None:
        session.connection.execute(_COUNT, (cursor, is_last, added, job_id))

    def _still_pending(self, session: Session, job_id: int, delivery_ids: Sequence[int]) -> set[int]:
        which = msgspec.json.encode(delivery_ids).decode()
        return {number for (number,) in session.connection.execute(_STILL_PENDING, (job_id, which))}

    def _write_outcomes(self, session: Session, job_id: int, outcomes: Sequence[ItemOutcome]) -> None:
        session.connection.executemany(
            _NOTE,
            [
                (
                    CHANGED if each.reason is None else SKIPPED,
                    each.event_id,
                    each.replayed_as,
                    each.reason,
                    job_id,
                    each.delivery_id,
                )
                for each in outcomes
            ],
        )

    def _count_outcomes(self, session: Session, job_id: int, changed: int, skipped: int) -> None:
        session.connection.execute(_PROGRESS, (changed, skipped, job_id))


def trim(session: Session, before: float, limit: int) -> int:
    """Delete up to ``limit`` items of the job that ended first, before then (seconds, Unix), and at last the job."""
    row = session.connection.execute(_OLD, (before,)).fetchone()
    if row is None:
        return 0
    removed = session.connection.execute(_TRIM_ITEMS, (row[0], limit)).rowcount
    if removed:
        return removed
    return session.connection.execute("DELETE FROM jobs WHERE id = ?", row).rowcount
