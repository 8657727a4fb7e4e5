"""Jobs, their items, and the slices in which they change deliveries, each one unit with the job's progress."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from zope.interface import implementer

from harn.store.jobs import IJobs
from harn.store.replays import JOB_COLUMNS, JobsHalf, JobStatements
from harn.store.sqlite.replays import SQLiteReplaying

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

_SELECT = "SELECT " + JOB_COLUMNS + " FROM jobs"
_CHANGE = "UPDATE jobs SET state = ?, ended_at = ? WHERE id = ? AND ended_at IS NULL"

JOBS = JobStatements(
    create=(
        "INSERT INTO jobs (operation, actor, filter, rate, state, created_at, cursor, is_selected)"
        " VALUES (?, ?, ?, ?, 'running', ?, ?, 0) RETURNING " + JOB_COLUMNS
    ),
    get=_SELECT + " WHERE id = ?",
    list=_SELECT + " ORDER BY id DESC LIMIT ?",
    unfinished=_SELECT + " WHERE ended_at IS NULL ORDER BY id",
    add="INSERT INTO job_items (job_id, delivery_id) VALUES {} ON CONFLICT DO NOTHING",
    note_selection=(
        "UPDATE jobs SET cursor = ?, is_selected = ?, matched = matched + ? WHERE id = ? AND ended_at IS NULL"
    ),
    pending=(
        "SELECT i.delivery_id, coalesce(d.event_id, ''), coalesce(d.trigger_id, ''), coalesce(d.provider, '')"
        " FROM job_items i INDEXED BY job_items_pending LEFT JOIN deliveries d ON d.id = i.delivery_id"
        " WHERE i.job_id = ? AND i.outcome = 0 ORDER BY i.delivery_id LIMIT ?"
    ),
    still_pending=(
        "SELECT delivery_id FROM job_items WHERE job_id = ? AND outcome = 0"
        " AND delivery_id IN (SELECT value FROM json_each(?))"
        " AND EXISTS (SELECT 1 FROM jobs WHERE id = job_id AND state = 'running')"
    ),
    note=(
        "UPDATE job_items SET outcome = new.column3, event_id = new.column4, replayed_as = new.column5,"
        " reason = new.column6 FROM (VALUES {}) AS new"
        " WHERE job_items.job_id = new.column1 AND job_items.delivery_id = new.column2"
    ),
    progress="UPDATE jobs SET changed = changed + ?, skipped = skipped + ? WHERE id = ?",
    change=_CHANGE,
    complete=_CHANGE + " AND is_selected AND matched = changed + skipped",
    items=(
        "SELECT delivery_id, event_id, replayed_as, reason FROM job_items WHERE job_id = ? AND outcome > 0"
        " AND delivery_id > ? ORDER BY delivery_id LIMIT ?"
    ),
    old="SELECT id FROM jobs WHERE ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT 1",
    trim_items=(
        "DELETE FROM job_items WHERE job_id = ?1 AND delivery_id IN"
        " (SELECT delivery_id FROM job_items WHERE job_id = ?1 ORDER BY delivery_id LIMIT ?2)"
    ),
    trim_job="DELETE FROM jobs WHERE id = ?",
)


@implementer(IJobs)
class SQLiteJobs(JobsHalf):
    """`IJobs` on SQLite."""

    sql = JOBS
    replaying = SQLiteReplaying()
