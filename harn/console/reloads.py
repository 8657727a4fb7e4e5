"""The pages of reloads: what is live, what was tried and by whom, plans, and the differences between generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct

from harn.console import plots
from harn.console.desk import Desk, Visit, failed
from harn.console.forms import number_in, parameters_in
from harn.console.records import read_records
from harn.console.sessions import Outcome
from harn.console.sign_in import ROOT
from harn.console.triggers import address_of
from harn.errors import EventLogUnavailable, NotPermitted, PayloadInvalid, Refused
from harn.history.operations import DiffGenerations, ListGenerations, diff_generations, list_generations
from harn.listener.problems import Response
from harn.operations.model import Operation
from harn.reload.excerpts import Excerpts
from harn.reload.operations import ShowLive, plan, reload, rollback, show_live
from harn.reload.results import LiveGenerationInfo, ProblemInfo, ReloadResult
from harn.rollout.operations import RampOf, abort_ramps, confirm_generation, finish_ramps

RELOADS = f"{ROOT}/reloads"
TOPIC = "orchestrator.manifest"
MOST_GENERATIONS = 20
MOST_EXCERPTS = 50
"""Problems of one reload whose source is shown."""
STAGES = ("parse", "validate", "resolve", "prepare", "activate", "swap")
"""In the order in which they run."""


class Entry(Struct, frozen=True, kw_only=True):
    """One record of the history; ``stages`` are the parts of its bar."""

    record: Any
    stages: list[plots.Bar]


class History(Struct, frozen=True, kw_only=True):
    """
    A page of the history.

    :ivar before: the number of the record that it comes before; None for the newest.
    :ivar older: ``before`` of the next page; None where there is none.
    """

    before: int | None
    entries: list[Entry]
    older: int | None


async def show_list(desk: Desk, visit: Visit) -> Response:
    """Show the live generation, the generations, and a page of the records, the newest first."""
    live = await desk.run(visit, show_live, ShowLive())
    generations = (await desk.run(visit, list_generations, ListGenerations(limit=MOST_GENERATIONS))).generations
    history = await _history(desk, visit)
    return await desk.show(
        visit,
        "reloads_part.html" if visit.is_part else "reloads.html",
        live=live,
        excerpts=await desk.threads.call(excerpts_of, live, visit.outcome),
        generations=generations,
        history=history,
        here=RELOADS if history.before is None else f"{RELOADS}?before={history.before}",
    )


def excerpts_of(live: LiveGenerationInfo, outcome: Outcome | None) -> dict[ProblemInfo, str]:
    """
    Return the lines of source of problems that a page shows, as ``harn check`` draws them, with carets below.

    A problem has none once its file was changed. Blocks: for a thread.

    :param outcome: of the action that led to the page.
    """
    manifest = None if live.manifest is UNSET else live.manifest.path
    found: dict[ProblemInfo, str] = {}
    for problems, at in _problems(live, outcome):
        excerpts = Excerpts(manifest, at, is_for_others=True)
        found |= {problem: "\n".join(excerpts.lines(problem)) for problem in problems[:MOST_EXCERPTS]}
    return found


def _problems(live: LiveGenerationInfo, outcome: Outcome | None) -> Iterator[tuple[Sequence[ProblemInfo], float]]:
    """Yield the problems that a page shows, and when they were found (seconds, Unix)."""
    if outcome is not None and isinstance(outcome.result, ReloadResult) and outcome.result.problems is not UNSET:
        yield outcome.result.problems, outcome.at
    for failed_reload in (live.last_failed, live.waiting):
        if failed_reload is not None:
            yield failed_reload.problems, datetime.fromisoformat(failed_reload.at).timestamp()


async def _history(desk: Desk, visit: Visit) -> History:
    """Return the records of the query's page."""
    found = await read_records(desk, visit, TOPIC)
    entries = [entry_of(record) for record in found.newest_first]
    return History(before=found.before, entries=entries, older=found.older)


def entry_of(record: Any) -> Entry:
    """Return a record with its bar."""
    stages = record.payload.get("stages_ms") if isinstance(record.payload, dict) else None
    known = {} if stages is None else {name: stages[name] for name in (*STAGES, *stages) if name in stages}
    return Entry(record=record, stages=plots.bars(known) if known else [])


async def show_diff(desk: Desk, visit: Visit, generation: str) -> Response:
    """Show the differences between a generation and the previous one that is kept, or the one of the query."""
    new = number_in(generation)
    generations = (await desk.run(visit, list_generations, ListGenerations(limit=1000))).generations
    earlier = [each.generation for each in generations if each.generation < new]
    old = visit.number("from") or (earlier[0] if earlier else new)
    found = await desk.run(visit, diff_generations, DiffGenerations(old=old, new=new))
    return await desk.show(visit, "diff.html", found=found, marked=mark)


def mark(diff: str) -> list[tuple[str, str]]:
    """Return the lines of a unified diff, each with its kind: ``add``, ``cut``, ``place`` or nothing."""
    kinds = {"+": "add", "-": "cut", "@": "place"}
    return [
        ("place" if line.startswith(("+++", "---")) else kinds.get(line[:1], ""), line) for line in diff.splitlines()
    ]


async def show_plan(desk: Desk, visit: Visit) -> Response:
    """Plan a reload, and change nothing."""
    return await _carry_out(desk, visit, plan, "The plan is below; nothing was changed.")


async def act_reload(desk: Desk, visit: Visit) -> Response:
    """Reload."""
    return await _carry_out(desk, visit, reload, "Generation {0.generation} serves.")


async def act_rollback(desk: Desk, visit: Visit) -> Response:
    """Run a rollback to an earlier generation."""
    return await _carry_out(desk, visit, rollback, "Rolled back: generation {0.generation} serves.")


async def act_confirm(desk: Desk, visit: Visit) -> Response:
    """Confirm the live generation."""
    try:
        wanted = parameters_in(confirm_generation, visit.form)
    except Refused as error:
        return desk.done(visit, RELOADS, failed(error))
    return await desk.act(visit, RELOADS, confirm_generation, wanted, "Generation {0.generation} is confirmed.")


async def finish_ramp(desk: Desk, visit: Visit) -> Response:
    """Send all new deliveries of a ramping trigger to its new version."""
    said = "All new deliveries of {0.ramps[0].trigger_id} go to {0.ramps[0].fresh}."
    return await _end_ramp(desk, visit, finish_ramps, said)


async def abort_ramp(desk: Desk, visit: Visit) -> Response:
    """Send all new deliveries of a ramping trigger to the previous version."""
    said = "The ramp is aborted: new deliveries of {0.ramps[0].trigger_id} go to {0.ramps[0].stable}."
    return await _end_ramp(desk, visit, abort_ramps, said)


async def _end_ramp(desk: Desk, visit: Visit, operation: Operation[Any, RampOf, Any], said: str) -> Response:
    """
    End the ramp of one trigger, never all, for the page of that trigger or of reloads.

    :raises PayloadInvalid: the form names no trigger.
    """
    trigger_id = visit.form.get("trigger", "")
    if not trigger_id:
        raise PayloadInvalid("trigger: must be the id of a trigger, got nothing")
    location = address_of(trigger_id) if visit.form.get("page") == "trigger" else RELOADS
    return await desk.act(visit, location, operation, RampOf(trigger=trigger_id), said)


async def _carry_out(desk: Desk, visit: Visit, operation: Operation[Any, Any, ReloadResult], said: str) -> Response:
    """Run an operation whose result is a report, which may be of a failure."""
    try:
        wanted = parameters_in(operation, {**visit.form, "source": "console" if operation is not plan else ""})
        result = await desk.run(visit, operation, wanted)
    except NotPermitted:
        raise
    except (Refused, EventLogUnavailable) as error:
        return desk.done(visit, RELOADS, failed(error))
    is_bad = result.status != "ok"
    text = f"{result.status}: {result.error}" if is_bad else said.format(result)
    return desk.done(visit, RELOADS, Outcome(text=text, is_bad=is_bad, result=result))
