"""
``harn orchestrator reload`` and ``plan``: have a running server reload, or show what that would change.

A plan in lines for people says for each trigger what would change, and the other changes of a reload.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import click
import msgspec
from msgspec import UNSET

from harn.cli.client import Answered, AnswerTimedOut, ServerAnswer, ServerUnreachable
from harn.cli.options import parameters_from, with_json, with_parameters, with_place
from harn.cli.output import CHANGES, PROBLEMS, UNCHANGED, Line, ending_dry_run, print_lines
from harn.cli.place import ServerTarget, with_server
from harn.cli.rows import format_value, print_json
from harn.operations.http import OperationRequest, write_request
from harn.reload.excerpts import Excerpts
from harn.reload.operations import plan as plan_operation
from harn.reload.operations import reload as reload_operation
from harn.reload.results import (
    FieldChange,
    PlannedRamp,
    ProbationInfo,
    ProbationTerms,
    ProblemInfo,
    RampInfo,
    ReloadPlan,
    ReloadResult,
    ReplayComparison,
    SecretChange,
    SettingChange,
    Summary,
    TriggerChange,
)
from harn.store.lock import served_manifest

SOURCE = "cli"
"""The label of what commands ask for."""
DRY_RUN = {"dry_run": "Only say what would change: exit 0 nothing, 1 something, 2 problems."}
LATE_RELOAD = "the reload goes on; `harn orchestrator events orchestrator.manifest` shows how it ends"
LATE_PLAN = "nothing changes, since this was a dry run; to see what it finds, ask again with a longer --timeout"
STATUSES = ("ok", "error", "needs_confirmation", "unsettled")
NEEDED = {True: {"source", "generation", "summary"}, False: {"error", "generation"}}
"""What every report has, by whether its status is ``ok``."""


@click.command()
@with_place
@with_parameters(reload_operation, without=("source",), helps=DRY_RUN)
@with_server
@with_json
def reload(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Reload the manifest and the code of the handlers; deliveries in flight finish on their old version."""
    wanted = parameters_from(reload_operation, given, source=SOURCE)
    carry_out(target, write_request(reload_operation, wanted), wanted.dry_run, as_json, excerpts_of(target))


@click.command()
@with_place
@with_parameters(plan_operation, without=("source",))
@with_server
@with_json
def plan(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Show the changes that a reload would make, and make none. Exit status: 0 no change, 1 changes, 2 problems."""
    wanted = parameters_from(plan_operation, given, source=SOURCE)
    carry_out(target, write_request(plan_operation, wanted), True, as_json, excerpts_of(target))


def excerpts_of(target: ServerTarget) -> Excerpts | None:
    """Return a reader of the files of a server on this machine; None where it may be on another one."""
    if target.admin_url is not None:
        return None
    return Excerpts(served_manifest(target.location.state_dir))


def carry_out(
    target: ServerTarget,
    request: OperationRequest,
    dry_run: bool,
    as_json: bool,
    excerpts: Excerpts | None = None,
) -> None:
    """
    Request the reload, print the report, and end the process with the report's exit status.

    :param excerpts: reads the lines of problems; None where what is loaded does not come from files of this machine.
    """
    with ending_dry_run(dry_run):
        answered = ask(target, request, dry_run, as_json)
        if as_json:
            print_json(answered.document)
        else:
            show(answered.result, excerpts)
    sys.exit(exit_status(answered.result, dry_run))


def ask(target: ServerTarget, request: OperationRequest, dry_run: bool, as_json: bool) -> Answered[ReloadResult]:
    """
    Request a reload, or what it would do; give the report.

    :raises AnswerTimedOut: says whether what was asked for continues.
    """
    client = target.client()
    try:
        with waiting("planning ..." if dry_run else "reloading ...", as_json):
            answer = client.send(request)
    except AnswerTimedOut as late:
        raise AnswerTimedOut(f"{late}; {LATE_PLAN if dry_run else LATE_RELOAD}") from late
    return report_of(answer, client.url)


def waiting(text: str, as_json: bool) -> AbstractContextManager[object]:
    """Show at a terminal that something continues; elsewhere do nothing."""
    if as_json or not sys.stdout.isatty():
        return nullcontext()
    from harn.cli.terminal import spinner

    return spinner(text)


def report_of(answer: ServerAnswer, url: str) -> Answered[ReloadResult]:
    """
    Return the report that the server answered with.

    :raises RequestRefused: it answered with a problem document.
    :raises ServerUnreachable: with something else.
    """
    document = answer.document
    is_report = isinstance(document, dict) and document.get("status") in STATUSES
    if is_report and document.keys() >= NEEDED[document["status"] == "ok"]:
        with suppress(msgspec.ValidationError):
            return Answered(msgspec.convert(document, ReloadResult), document)
    answer.expect_ok()
    raise ServerUnreachable(f"{url} does not answer as a harn orchestrator does")


def exit_status(report: ReloadResult, dry_run: bool) -> int:
    """Return the exit status for a report."""
    summary = report.summary
    if summary is UNSET:
        return PROBLEMS if dry_run else 1
    if not dry_run:
        return 0
    return CHANGES if summary.added or summary.modified or summary.removed else UNCHANGED


def show(report: ReloadResult, excerpts: Excerpts | None = None) -> None:
    """Print a report for people: a success on stdout, an error on stderr."""
    if report.status == "ok":
        print_lines(describe_success(report))
    else:
        print_lines(describe_error(report, excerpts), is_error=True)


def describe_success(report: ReloadResult) -> Iterator[Line]:
    """Return the lines for a reload that went well, or would."""
    is_rollback = isinstance(report.recalled, int)
    what = f"rollback to the content of generation {report.recalled}" if is_rollback else "reload"
    said = f"{what} (dry run)" if report.dry_run else f"{what} ok"
    summary = Summary(added=(), modified=(), removed=(), unchanged=()) if report.summary is UNSET else report.summary
    counts = f"+{len(summary.added)} ~{len(summary.modified)} -{len(summary.removed)}"
    yield f"{said} via {report.source} ({counts})", "bold"
    if report.plan is not UNSET:
        yield from describe_plan(report.plan, recalls=is_rollback)
    else:
        yield from describe_summary(summary, report.changes or {})
    for version in report.draining or ():
        yield f"  draining {version.binding}: {version.in_flight} in flight", ""
    for ramp in report.ramps or ():
        yield f"  ramp: {describe_ramp(ramp)}", "red" if ramp.state == "aborted" else "yellow"
    for name in report.renewed or ():
        yield f"  read again: {name}", ""
    for setting in report.requires_restart or ():
        yield f"  requires a restart: {setting}", "magenta"
    for warning in report.warnings or ():
        yield f"  warning: {warning}", "magenta"
    yield f"  generation {report.generation}", ""
    yield from describe_drift(report)
    if report.probation:
        yield from describe_probation(report.probation, report.generation)


def describe_summary(summary: Summary, changes: Mapping[str, Sequence[str]]) -> Iterator[Line]:
    """Yield a line for each trigger that changed; ``changes`` says by id what."""
    for trigger_id in summary.added:
        yield f"  + {trigger_id}", "green"
    for trigger_id in summary.modified:
        why = ", ".join(changes.get(trigger_id, ()))
        yield f"  ~ {trigger_id}" + (f": {why}" if why else ""), "yellow"
    for trigger_id in summary.removed:
        yield f"  - {trigger_id}", "red"


def describe_drift(report: ReloadResult) -> Iterator[Line]:
    """Yield the files that differ from the live generation, if any do."""
    if report.drifted_files:
        differ = "would differ" if report.dry_run else "differ"
        yield f"  the files {differ} from the live generation (drift); a reload adopts them:", "bold magenta"
        for path in report.drifted_files:
            yield f"    {path}", "magenta"


def describe_probation(probation: ProbationInfo, generation: int) -> Iterator[Line]:
    """Yield when the new generation is rolled back, and how to keep it."""
    if probation.confirm_by:
        until = probation.confirm_by
        yield f"  rolled back at {until} unless: harn orchestrator confirm {generation}", "bold yellow"
    if probation.revert_on_failures:
        rate = probation.revert_on_failures
        least = f" of at least {probation.minimum}" if probation.minimum else ""
        end = f" until {probation.until}" if probation.until else ""
        yield f"  rolled back when more than {rate}{least} attempts of the new versions fail{end}", "yellow"


def describe_error(report: ReloadResult, excerpts: Excerpts | None = None) -> Iterator[Line]:
    """Return the lines for a reload that failed: how many problems, then each, with its source."""
    problems = report.problems or ()
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    if report.status == "needs_confirmation":
        yield f"error: reload held back: {report.error}", "bold red"
        for trigger_id in report.removed or ():
            yield f"  - {trigger_id}", "red"
    elif report.status == "unsettled":
        yield f"error: not adopted: {report.error}", "bold red"
    elif not report.stage:
        yield f"error: reload failed: {report.error}", "bold red"
    else:
        yield f"error: reload failed at {report.stage}: {count if problems else report.error}", "bold red"
    for said, *source in describe_problems(problems, excerpts):
        yield said, ""
        for line in source:
            yield line, "dim"
    yield f"generation {report.generation} goes on serving", "bold"


def describe_problems(problems: Sequence[ProblemInfo], excerpts: Excerpts | None = None) -> Iterator[list[str]]:
    """
    Write each problem once; then lines of its source, which those that differ only in their places share.

    :param excerpts: reads the source; None where the files may be on another machine.
    """
    firsts = {id(problem) for problem in firsts_of(problems)}
    for problem in dict.fromkeys(problems):
        source = excerpts.lines(problem) if excerpts is not None and id(problem) in firsts else ()
        yield [describe_problem(problem), *source]


def firsts_of(problems: Sequence[ProblemInfo]) -> Sequence[ProblemInfo]:
    """Return the problems but for those that differ from an earlier one only in their place within a file."""
    alike: dict[tuple[str, str, str], ProblemInfo] = {}
    for problem in problems:
        alike.setdefault((problem.file, problem.message, problem.hint), problem)
    return list(alike.values())


def describe_problem(problem: ProblemInfo) -> str:
    """Write a problem as ``file:line: where: message; hint``."""
    place = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
    said = f"{problem.message}; {problem.hint}" if problem.hint else problem.message
    return ": ".join(part for part in (place, problem.where, said) if part)


ACTIONS = {"added": ("+", "green"), "modified": ("~", "yellow"), "removed": ("-", "red")}
COUNTS = ("in_flight", "running", "queued", "waiting")


def describe_plan(plan: ReloadPlan, *, recalls: bool = False) -> Iterator[Line]:
    """Return the lines of a whole plan; ``recalls``: what it adopts comes from the store, and no file is touched."""
    for action in ACTIONS:
        for trigger_id, change in plan.triggers.items():
            if change.action == action:
                yield from describe_change(trigger_id, change)
    if plan.would_hold:
        yield "  removes most triggers: --watch would hold it back until an explicit reload", "bold red"
    for connector in plan.connectors:
        why = ", ".join(connector.why)
        yield f"  connector of {connector.trigger_id}: {connector.action}" + (f" ({why})" if why else ""), ""
    for secret in plan.secrets:
        yield f"  secret {secret.reference}: {was_and_is(secret)}", ""
    yield from describe_settings(plan.settings)
    for file in plan.files:
        what = f"content {file.change}; the file stays as it is" if recalls else file.change
        yield f"  file {file.path}: {what}", ""
    for ramp in plan.ramps:
        yield f"  ramp: {describe_ramp(ramp)}", "yellow"
    if plan.probation is not UNSET:
        yield from describe_terms(plan.probation)
    for each in () if plan.replay is UNSET else plan.replay:
        yield from describe_replay(each)


def describe_terms(probation: ProbationTerms) -> Iterator[Line]:
    """Return the lines of a probation that would begin."""
    if probation.confirm_within is not UNSET:
        yield f"  probation: rolled back after {probation.confirm_within} unless it is confirmed", "yellow"
    if probation.revert_on_failures is not UNSET:
        yield (
            f"  probation: rolled back when more than {probation.revert_on_failures} of at least "
            f"{probation.minimum} attempts of the new versions fail within {probation.watch_for}",
            "yellow",
        )


def describe_change(trigger_id: str, change: TriggerChange) -> Iterator[Line]:
    """Return the lines of one trigger."""
    sign, style = ACTIONS[change.action]
    names = [name for name in (change.versions.live, change.versions.next) if name is not None]
    counts = [f"{getattr(change, name)} {name.replace('_', ' ')}" for name in COUNTS if getattr(change, name)]
    said = ", ".join((" -> ".join(names), *counts) if names else counts)
    yield f"  {sign} {trigger_id}" + (f" ({said})" if said else ""), style
    if change.action != "removed":
        yield from describe_fields(change.fields)
    for file in change.code:
        yield f"      code {file.path}: {file.change}", ""


def describe_fields(fields: Sequence[FieldChange]) -> Iterator[Line]:
    """Return a line for each field: old and new."""
    for each in fields:
        yield f"      {each.key}: {was_and_is(each)}", ""


def describe_settings(settings: Sequence[SettingChange]) -> Iterator[Line]:
    """Return a line for each setting: old and new, and whether a reload is enough."""
    for each in settings:
        needs = " (requires a restart)" if each.applies == "restart" else ""
        yield f"  setting {each.key}: {was_and_is(each)}{needs}", "magenta" if needs else ""


def describe_ramp(ramp: RampInfo | PlannedRamp) -> str:
    """Return how two versions of a trigger share its deliveries, or that they have stopped sharing them."""
    if isinstance(ramp, RampInfo) and ramp.state == "aborted":
        return f"{ramp.stable} serves, {ramp.fresh} no more ({ramp.why or 'aborted'}): edit the trigger to try again"
    said = f"{ramp.fresh} takes {ramp.percent:g} % of the new deliveries of {ramp.trigger_id}"
    if ramp.step:
        return f"{said}, {ramp.step:g} % more every {ramp.every}"
    return f"{said}, until: harn orchestrator ramp --finish {ramp.trigger_id}"


def describe_replay(found: ReplayComparison) -> Iterator[Line]:
    """Return the lines of one trigger whose recorded events were evaluated again."""
    count = len(found.different) + found.more
    said = f"  replay {found.trigger_id}: {found.events} events, {count} treated differently"
    if found.undecided:
        said += f", {found.undecided} undecided"
    yield said, "yellow" if count else "green"
    for each in found.different:
        why = "" if each.error is UNSET else f": {each.error}"
        yield f"      {each.event_id} {each.kind}: {each.before} -> {each.now}{why}", ""
    if found.more:
        yield f"      and {found.more} more", ""


def was_and_is(change: FieldChange | SettingChange | SecretChange) -> str:
    """Return ``old -> new``; ``-`` stands for none."""
    return f"{format_value(change.old)} -> {format_value(change.new)}"
