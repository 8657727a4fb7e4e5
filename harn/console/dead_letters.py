"""The page of dead letters: in groups, with replay and discard of a whole group, and the progress of such jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from harn.console.desk import Desk, Visit
from harn.console.forms import number_in, one_literal, parameters_in
from harn.console.sessions import Outcome
from harn.console.sign_in import ROOT
from harn.deliveries.change_operations import ChangeMany, discard_many, replay_many
from harn.deliveries.describing import DeadGroupInfo
from harn.deliveries.job_operations import ChangeJob, JobInfo, ListJobs, list_jobs
from harn.deliveries.job_operations import cancel_job as cancel
from harn.deliveries.job_operations import pause_job as pause
from harn.deliveries.job_operations import resume_job as resume
from harn.deliveries.operations import ListDeadLetters, list_dead_letters
from harn.errors import PayloadInvalid
from harn.listener.problems import Response
from harn.model.delivery import DEAD
from harn.operations.model import Operation
from harn.store.jobs import DISCARD, REPLAY

DEAD_LETTERS = f"{ROOT}/dead-letters"
MOST_JOBS = 10
PER_PAGE = 100
"""Groups."""
MANY: dict[str, Operation[Any, ChangeMany, Any]] = {REPLAY: replay_many, DISCARD: discard_many}
"""What can be done with a group."""


class Group(Struct, frozen=True, kw_only=True):
    """
    Dead letters to change: all of them, of one trigger, or of one group.

    :ivar reason: None for any, as ``error_class``.
    """

    trigger: str = ""
    reason: str | None = None
    error_class: str | None = None

    @property
    def where(self) -> str:
        """Return the expression that selects them beside the trigger; empty for all."""
        conditions = [
            f"{name} == {one_literal(value)}" if value else f"!{name}"
            for name, value in (("reason", self.reason), ("error_class", self.error_class))
            if value is not None
        ]
        return " && ".join(conditions)

    def query(self, **more: str) -> str:
        """Return the options of the query that name it."""
        named = {"trigger": self.trigger, "reason": self.reason, "error_class": self.error_class}
        return urlencode({**{name: value for name, value in named.items() if value is not None}, **more})


def group_of(fields: Any) -> Group:
    """Return the group that fields name."""
    return Group(trigger=fields.get("trigger", ""), reason=fields.get("reason"), error_class=fields.get("error_class"))


async def show_groups(desk: Desk, visit: Visit) -> Response:
    """Show a page of the groups, and the newest jobs."""
    trigger = visit.query.get("trigger", "").strip()
    page = max(1, visit.number("page"))
    wanted = ListDeadLetters(trigger=trigger or None, offset=(page - 1) * PER_PAGE, limit=PER_PAGE)
    found = await desk.run(visit, list_dead_letters, wanted)
    jobs = (await desk.run(visit, list_jobs, ListJobs(limit=MOST_JOBS))).jobs
    given = {"trigger": trigger} if trigger else {}
    return await desk.show(
        visit,
        "dead_letters_part.html" if visit.is_part else "dead_letters.html",
        found=found,
        groups=[(each, _group(each)) for each in found.groups],
        everything=Group(trigger=trigger),
        trigger=trigger,
        jobs=jobs,
        is_busy=any(job.state == "running" for job in jobs),
        page=page,
        pages=max(1, -(-found.matched // PER_PAGE)),
        here=f"{DEAD_LETTERS}?{urlencode({**given, 'page': page})}",
        link=lambda number: f"{DEAD_LETTERS}?{urlencode({**given, 'page': number})}",
    )


def _group(info: DeadGroupInfo) -> Group:
    return Group(trigger=info.trigger_id, reason=info.reason, error_class=info.error_class)


async def show_change(desk: Desk, visit: Visit) -> Response:
    """Show how many dead letters a replay or discard would change, with the form that does it."""
    name, group = visit.query.get("operation", ""), group_of(visit.query)
    operation = _operation(name)
    wanted = parameters_in(operation, _fields(group, visit.query.get("rate_limit", ""), dry_run="true"))
    found = await desk.run(visit, operation, wanted)
    return await desk.show(visit, "dead_letters_change.html", operation=name, group=group, found=found)


async def change(desk: Desk, visit: Visit) -> Response:
    """Replay or discard a group, as a job."""
    name, group = visit.form.get("operation", ""), group_of(visit.form)
    operation = _operation(name)
    try:
        wanted = parameters_in(operation, _fields(group, visit.form.get("rate_limit", "").strip()))
    except PayloadInvalid as error:
        return desk.done(visit, DEAD_LETTERS, Outcome(text=str(error), is_bad=True))
    said = "{0.replayed} of {0.matched} replayed" if name == REPLAY else "{0.discarded} of {0.matched} discarded"
    return await desk.act(visit, DEAD_LETTERS, operation, wanted, f"{said}; job {{0.job}} is {{0.state}}.")


def _operation(name: str) -> Operation[Any, ChangeMany, Any]:
    if name not in MANY:
        raise PayloadInvalid(f"operation: must be one of {', '.join(MANY)}, got {name!r}")
    return MANY[name]


def _fields(group: Group, rate_limit: str, dry_run: str = "") -> dict[str, str]:
    return {
        "state": DEAD,
        "trigger": group.trigger,
        "where": group.where,
        "rate_limit": rate_limit,
        "dry_run": dry_run,
    }


async def pause_job(desk: Desk, visit: Visit, job: str) -> Response:
    """Pause a job."""
    return await _change_job(desk, visit, pause, job, "paused")


async def resume_job(desk: Desk, visit: Visit, job: str) -> Response:
    """Continue a job."""
    return await _change_job(desk, visit, resume, job, "running again")


async def cancel_job(desk: Desk, visit: Visit, job: str) -> Response:
    """End a job."""
    return await _change_job(desk, visit, cancel, job, "cancelled; its changes stay")


async def _change_job(
    desk: Desk, visit: Visit, operation: Operation[Any, ChangeJob, JobInfo], job: str, said: str
) -> Response:
    wanted = ChangeJob(job=number_in(job))
    return await desk.act(visit, f"{DEAD_LETTERS}#jobs", operation, wanted, f"Job {job} is {said}.")
