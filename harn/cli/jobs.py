"""
``harn orchestrator jobs``: what replays, cancels and discards under way have done; pause, resume or cancel one.

The progress of a job is a bar at a terminal, elsewhere a line whenever it has come further, on standard error.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

import click
from msgspec import to_builtins

from harn.cli.client import ask
from harn.cli.options import WholeNumber, with_json, with_place
from harn.cli.output import warn
from harn.cli.place import ServerTarget, with_server
from harn.cli.rows import Column, Rows, draw, format_fields, print_json
from harn.deliveries.job_operations import (
    ChangeJob,
    JobDetail,
    JobInfo,
    JobList,
    ListJobs,
    ShowJob,
    cancel_job,
    describe_items,
    describe_job,
    list_jobs,
    pause_job,
    resume_job,
    show_job,
)
from harn.deliveries.selection import PAST, unknown_job

STYLES = {"running": "green", "done": "green", "paused": "yellow", "cancelled": "red"}
COLUMNS = (
    Column("Job", lambda job: job.job, is_right=True),
    Column("Operation", lambda job: job.operation),
    Column("State", lambda job: job.state, styles=STYLES),
    Column("matched", lambda job: job.matched, is_right=True),
    Column("done", lambda job: job.done, is_right=True),
    Column("skipped", lambda job: job.skipped, is_right=True, drop=1),
    Column("Created", lambda job: job.created_at, drop=3),
    Column("Filter", lambda job: format_fields(job.filter), drop=2, wraps=True),
    Column("Actor", lambda job: job.actor, drop=4),
)


@click.command()
@with_place
@click.option("--show", "show", type=WholeNumber(1), metavar="ID", help="Show one job, with its deliveries.")
@click.option("--pause", type=WholeNumber(1), metavar="ID", help="Pause a job; it stays paused over restarts.")
@click.option("--resume", type=WholeNumber(1), metavar="ID", help="Continue a paused job.")
@click.option("--cancel", type=WholeNumber(1), metavar="ID", help="End a job; its changes stay.")
@click.option("-n", "--limit", type=WholeNumber(1, 1000), default=20, show_default=True, metavar="N", help="At most N.")
@with_server
@with_json
def jobs(
    target: ServerTarget,
    show: int | None,
    pause: int | None,
    resume: int | None,
    cancel: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the jobs that replay, cancel or discard many deliveries, the newest first."""
    chosen = ((pause_job, pause), (resume_job, resume), (cancel_job, cancel))
    changes = [(operation, job) for operation, job in chosen if job is not None]
    if len(changes) + (show is not None) > 1:
        raise click.UsageError("--show, --pause, --resume and --cancel exclude each other")
    if changes:
        operation, job = changes[0]
        changed = ask(target.client(), operation, ChangeJob(job=job))
        print_json(changed.document) if as_json else click.echo(describe(changed.result))
        return
    client = target.client_if_any()
    if show is not None:
        one = ShowJob(job=show, limit=limit)
        found = stored_job(target.location.state_dir, one) if client is None else ask(client, show_job, one).result
        print_json(to_builtins(found)) if as_json else show_one(found)
    else:
        many = ListJobs(limit=limit)
        listed = stored_jobs(target.location.state_dir, many) if client is None else ask(client, list_jobs, many).result
        print_json(to_builtins(listed)) if as_json else draw(rows_of(listed))


def stored_jobs(state_dir: str, wanted: ListJobs) -> JobList:
    """
    Return the newest jobs of a state directory on which no server runs; the next one continues with those that run.

    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    :raises EventLogUnavailable: it cannot be read.
    """
    from harn.cli.sources import open_store

    with open_store(state_dir) as store:
        return JobList(jobs=tuple(map(describe_job, store.ask(store.jobs.list(wanted.limit)))))


def stored_job(state_dir: str, wanted: ShowJob) -> JobDetail:
    """
    Return one job, as `stored_jobs` does.

    :raises RouteUnknown: there is none.
    """
    from harn.cli.sources import open_store

    with open_store(state_dir) as store:
        job = store.ask(store.jobs.get(wanted.job))
        if job is None:
            raise unknown_job(wanted.job)
        return describe_items(job, store.ask(store.jobs.items(wanted.job, wanted.after, wanted.limit)), wanted.limit)


def rows_of(found: JobList) -> Rows:
    """Return jobs as rows."""
    return Rows(title="Jobs:", columns=COLUMNS, rows=found.jobs, none="no jobs")


def show_one(job: JobDetail) -> None:
    """Print a job, and the deliveries that it has come to."""
    click.echo(describe(job))
    columns = (
        Column("Event", lambda item: item.event_id),
        Column("Replayed as", lambda item: item.replayed_as or None, style="cyan"),
        Column("Why not", lambda item: item.reason or None, drop=1, wraps=True),
    )
    draw(Rows(title=f"{PAST[job.operation].capitalize()}:", columns=columns, rows=job.items))
    if job.after is not None:
        click.echo(f"- the first {len(job.items)} are listed; give a larger --limit")


class Progress:
    """
    Shows the progress of one job; a context manager.

    :param is_shown: False to show nothing.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: Any = None
        self._task: Any = None
        self._last = ""

    def __enter__(self) -> Self:
        if self._is_shown and sys.stderr.isatty():
            from harn.cli.terminal import progress_bar

            self._bar = progress_bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: JobInfo) -> None:
        """Show a job as it stands now."""
        if not self._is_shown:
            return
        line = describe(job)
        if self._bar is None:
            if line != self._last:
                warn(line)
            self._last = line
            return
        total = job.matched if job.is_selected else None
        if self._task is None:
            self._task = self._bar.add_task(line, total=total)
        self._bar.update(self._task, description=line, total=total, completed=job.done + job.skipped)


def describe(job: JobInfo) -> str:
    """Return the progress of a job in one line."""
    more = "" if job.is_selected else " so far"
    return f"job {job.job} {job.state}: {job.done} of {job.matched}{more} {PAST[job.operation]}, {job.skipped} skipped"
