"""``harn orchestrator jobs``: what replays, cancels and discards under way have done; pause, resume or cancel one."""

from __future__ import annotations

import os
from typing import Any

import click

from harn.cli.arguments import WholeNumber
from harn.cli.lines import facts
from harn.cli.operations import ask, print_json
from harn.cli.place import Reach
from harn.cli.progress import describe
from harn.cli.rows import Column, Rows, draw
from harn.cli.shared import with_json, with_place, with_server
from harn.deliveries.job_operations import (
    ChangeJob,
    JobList,
    ListJobs,
    ShowJob,
    cancel_job,
    list_jobs,
    pause_job,
    resume_job,
    show_job,
)
from harn.deliveries.selection import PAST

STYLES = {"running": "green", "done": "green", "paused": "yellow", "cancelled": "red"}
COLUMNS = (
    Column("Job", lambda job: job.job, is_right=True),
    Column("Operation", lambda job: job.operation),
    Column("State", lambda job: job.state, styles=STYLES),
    Column("matched", lambda job: job.matched, is_right=True),
    Column("done", lambda job: job.done, is_right=True),
    Column("skipped", lambda job: job.skipped, is_right=True, drop=1),
    Column("Created", lambda job: job.created_at, drop=3),
    Column("Filter", lambda job: facts(job.filter), drop=2, wraps=True),
    Column("Actor", lambda job: job.actor, drop=4),
)


@click.command()
@with_place
@click.option("--show", "show", type=WholeNumber(1), metavar="ID", help="Show one job, with its deliveries.")
@click.option("--pause", type=WholeNumber(1), metavar="ID", help="Pause a job; it stays paused over restarts.")
@click.option("--resume", type=WholeNumber(1), metavar="ID", help="Continue a paused job.")
@click.option("--cancel", type=WholeNumber(1), metavar="ID", help="End a job; its changes stay.")
@click.option("--limit", type=WholeNumber(1, 1000), default=20, show_default=True, metavar="N", help="At most N.")
@with_server
@with_json
def jobs(
    show: int | None, pause: int | None, resume: int | None, cancel: int | None, limit: int, as_json: bool, **given: Any
) -> None:
    """List the jobs that replay, cancel or discard many deliveries, the newest first."""
    chosen = ((pause_job, pause), (resume_job, resume), (cancel_job, cancel))
    changes = [(operation, job) for operation, job in chosen if job is not None]
    if len(changes) + (show is not None) > 1:
        raise click.UsageError("--show, --pause, --resume and --cancel exclude each other")
    client = Reach.told(given, os.environ).client()
    if changes:
        operation, job = changes[0]
        changed = ask(client, operation, ChangeJob(job=job))
        print_json(changed.document) if as_json else click.echo(describe(changed.result))
    elif show is not None:
        found = ask(client, show_job, ShowJob(job=show, limit=limit))
        print_json(found.document) if as_json else show_one(found.result)
    else:
        listed = ask(client, list_jobs, ListJobs(limit=limit))
        print_json(listed.document) if as_json else draw(rows_of(listed.result))


def rows_of(found: JobList) -> Rows:
    """Return jobs as rows."""
    return Rows(title="Jobs:", columns=COLUMNS, rows=found.jobs, none="no jobs")


def show_one(job: Any) -> None:
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
