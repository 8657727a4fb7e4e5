"""A plan in lines for people: for each trigger what would change, and what else a reload would touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import UNSET

from harn.cli.output import Line
from harn.cli.rows import format_value
from harn.reload.results import (
    FieldChange,
    PlannedRamp,
    ProbationTerms,
    RampInfo,
    ReloadPlan,
    ReplayComparison,
    SecretChange,
    SettingChange,
    TriggerChange,
)

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
    """Return how two versions of a trigger share its deliveries, or that they do so no more."""
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
