"""Operations on jobs: list, show with items, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins
from msgspec.structs import asdict

from harn.clocks import rfc3339
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.store.jobs import ItemOutcome, Job, JobState

if TYPE_CHECKING:
    from harn.deliveries.bulk import Bulk

MOST_ITEMS = 10_000


class JobInfo(Result, frozen=True, kw_only=True):
    """One job. ``done`` of its items are replayed, discarded or cancelled. Times are RFC 3339, UTC."""

    job: int
    operation: str
    state: Annotated[str, Meta(description="running, paused, done or cancelled.")]
    actor: str
    filter: dict[str, Any]
    rate_limit: Annotated[float | None, Meta(description="Deliveries a second.")]
    is_selected: Annotated[bool, Meta(description="Whether all deliveries have been looked at: matched is final.")]
    matched: int
    done: int
    skipped: int
    created_at: str
    ended_at: str | None


class JobList(Result, frozen=True, kw_only=True):
    """The newest jobs, the newest first."""

    jobs: tuple[JobInfo, ...]


class JobItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery that a job has come to."""

    event_id: str
    replayed_as: str | UnsetType | None = UNSET
    reason: Annotated[str, Meta(description="Why nothing was done with it.")] | UnsetType = UNSET


class JobDetail(JobInfo, frozen=True, kw_only=True):
    """A job with the deliveries that it has come to, the oldest first."""

    items: tuple[JobItem, ...]
    after: Annotated[int | None, Meta(description="Where the items continue: the option of the next request.")]


class ListJobs(Parameters, frozen=True, kw_only=True):
    """The number of jobs to list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="At most N jobs.")] = 20


class ShowJob(Parameters, frozen=True, kw_only=True):
    """Which job, and which of its items."""

    job: Annotated[int, Meta(ge=1, description="The job's number.")]
    after: Annotated[int, Meta(ge=0, description="Only items after this one.")] = 0
    limit: Annotated[int, Meta(ge=1, le=MOST_ITEMS, description="At most N items.")] = 1000


class ChangeJob(Parameters, frozen=True, kw_only=True):
    """Which job."""

    job: Annotated[int, Meta(ge=1, description="The job's number.")]


@operation("jobs.list", role=Role.READ, route=Get("/jobs"), example={"limit": 10})
async def list_jobs(bulk: Bulk, caller: Caller, wanted: ListJobs) -> JobList:
    """List jobs that replay, cancel or discard deliveries."""
    return JobList(jobs=tuple(map(describe_job, await bulk.store.list(wanted.limit))))


@operation("jobs.show", role=Role.READ, route=Get("/jobs/{job}"), example={"job": 1})
async def show_job(bulk: Bulk, caller: Caller, wanted: ShowJob) -> JobDetail:
    """
    Show the progress of a job, and its items.

    :raises RouteUnknown: there is no job of this number.
    """
    job = await bulk.runner.job(wanted.job)
    return describe_items(job, await bulk.store.items(job.job_id, wanted.after, wanted.limit), wanted.limit)


@operation(
    "jobs.pause",
    role=Role.OPERATE,
    route=Post("/jobs/{job}/pause"),
    example={"job": 1},
    audit=lambda job: {"paused": 1},
)
async def pause_job(bulk: Bulk, caller: Caller, wanted: ChangeJob) -> JobInfo:
    """
    Pause a job; it stays paused over restarts.

    :raises RouteUnknown: there is no job of this number.
    :raises WrongState: it has ended.
    """
    return describe_job(await bulk.runner.change(wanted.job, JobState.PAUSED))


@operation(
    "jobs.resume",
    role=Role.OPERATE,
    route=Post("/jobs/{job}/resume"),
    example={"job": 1},
    audit=lambda job: {"resumed": 1},
)
async def resume_job(bulk: Bulk, caller: Caller, wanted: ChangeJob) -> JobInfo:
    """
    Continue a paused job where it was.

    :raises RouteUnknown: there is no job of this number.
    :raises WrongState: it has ended.
    """
    return describe_job(await bulk.runner.change(wanted.job, JobState.RUNNING))


@operation(
    "jobs.cancel",
    role=Role.OPERATE,
    route=Post("/jobs/{job}/cancel"),
    example={"job": 1},
    audit=lambda job: {"cancelled": 1},
)
async def cancel_job(bulk: Bulk, caller: Caller, wanted: ChangeJob) -> JobInfo:
    """
    End a job; its changes stay.

    :raises RouteUnknown: there is no job of this number.
    :raises WrongState: it has ended.
    """
    return describe_job(await bulk.runner.change(wanted.job, JobState.CANCELLED))


OPERATIONS = (list_jobs, show_job, pause_job, resume_job, cancel_job)
"""Those of a `Bulk`."""


def describe_job(job: Job) -> JobInfo:
    """Return the description of a job."""
    return JobInfo(
        job=job.job_id,
        operation=job.operation,
        state=job.state.value,
        actor=job.actor,
        filter=to_builtins(job.filter),
        rate_limit=job.rate,
        is_selected=job.is_selected,
        matched=job.matched,
        done=job.changed,
        skipped=job.skipped,
        created_at=rfc3339(job.created_at),
        ended_at=None if job.ended_at is None else rfc3339(job.ended_at),
    )


def describe_items(job: Job, found: Sequence[ItemOutcome], limit: int) -> JobDetail:
    """Return the description of a job and of those of its items that were found, at most ``limit``."""
    items = tuple(
        JobItem(event_id=each.event_id, replayed_as=each.replayed_as or UNSET, reason=each.reason or UNSET)
        for each in found
    )
    after = found[-1].delivery_id if len(found) == limit else None
    return JobDetail(**asdict(describe_job(job)), items=items, after=after)
