"""A plan in lines for people: for each trigger what would change, and what else a reload would touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harn.cli.lines import written
from harn.cli.output import Line

ACTIONS = {"added": ("+", "green"), "modified": ("~", "yellow"), "removed": ("-", "red")}
COUNTS = ("in_flight", "running", "queued", "waiting")


def describe_plan(plan: Mapping[str, Any], *, recalls: bool = False) -> Iterator[Line]:
    """Yield the lines of a whole plan; ``recalls``: what it adopts comes from the store, and no file is touched."""
    triggers: Mapping[str, Mapping[str, Any]] = plan.get("triggers", {})
    for action in ACTIONS:
        for trigger_id, change in triggers.items():
            if change.get("action") == action:
                yield from describe_change(trigger_id, change)
    if plan.get("would_hold"):
        yield "  removes most triggers: --watch would hold it back until somebody reloads", "bold red"
    for each in plan.get("connectors", ()):
        why = ", ".join(each.get("why", ()))
        yield f"  connector of {each.get('trigger_id')}: {each.get('action')}" + (f" ({why})" if why else ""), ""
    for each in plan.get("secrets", ()):
        yield f"  secret {each.get('reference')}: {was_and_is(each)}", ""
    yield from describe_settings(plan.get("settings", ()))
    for each in plan.get("files", ()):
        what = f"content {each.get('change')}; the file stays as it is" if recalls else each.get("change")
        yield f"  file {each.get('path')}: {what}", ""
    for each in plan.get("ramps", ()):
        yield f"  ramp: {describe_ramp(each)}", "yellow"
    yield from describe_terms(plan.get("probation") or {})
    for each in plan.get("replay", ()):
        yield from describe_replay(each)


def describe_terms(probation: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the lines of a probation that would begin."""
    if "confirm_within" in probation:
        yield f"  probation: rolled back after {probation['confirm_within']} unless it is confirmed", "yellow"
    if "revert_on_failures" in probation:
        yield (
            f"  probation: rolled back when more than {probation['revert_on_failures']} of at least "
            f"{probation.get('min')} attempts of the new versions fail within {probation.get('for')}",
            "yellow",
        )


def describe_change(trigger_id: str, change: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the lines of one trigger."""
    sign, style = ACTIONS[change["action"]]
    versions = change.get("versions", {})
    names = [name for name in (versions.get("live"), versions.get("next")) if name is not None]
    counts = [f"{change[name]} {name.replace('_', ' ')}" for name in COUNTS if change.get(name)]
    said = ", ".join((" -> ".join(names), *counts) if names else counts)
    yield f"  {sign} {trigger_id}" + (f" ({said})" if said else ""), style
    if change["action"] != "removed":
        yield from describe_fields(change.get("fields", ()))
    for file in change.get("code", ()):
        yield f"      code {file.get('path')}: {file.get('change')}", ""


def describe_fields(fields: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Yield a line for each field: old and new."""
    for each in fields:
        yield f"      {each.get('key')}: {was_and_is(each)}", ""


def describe_settings(settings: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Yield a line for each setting: old and new, and whether a reload is enough."""
    for each in settings:
        needs = " (requires a restart)" if each.get("applies") == "restart" else ""
        yield f"  setting {each.get('key')}: {was_and_is(each)}{needs}", "magenta" if needs else ""


def describe_ramp(ramp: Mapping[str, Any]) -> str:
    """Return how two versions of a trigger share its deliveries, or that they do so no more."""
    if ramp.get("state") == "aborted":
        why = ramp.get("why") or "aborted"
        return f"{ramp['stable']} serves, {ramp['fresh']} no more ({why}): edit the trigger to try again"
    said = f"{ramp['fresh']} takes {ramp['percent']:g} % of the new deliveries of {ramp['trigger_id']}"
    if ramp.get("step"):
        return f"{said}, {ramp['step']:g} % more every {ramp['every']}"
    return f"{said}, until: harn orchestrator ramp --finish {ramp['trigger_id']}"


def describe_replay(found: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the lines of one trigger whose recorded events were evaluated again."""
    different: Sequence[Mapping[str, Any]] = found.get("different", ())
    more = found.get("more") or 0
    count = len(different) + more
    said = f"  replay {found['trigger_id']}: {found['events']} events, {count} treated differently"
    if found.get("undecided"):
        said += f", {found['undecided']} undecided"
    yield said, "yellow" if count else "green"
    for each in different:
        why = f": {each['error']}" if each.get("error") else ""
        yield f"      {each['event_id']} {each['kind']}: {each['before']} -> {each['now']}{why}", ""
    if more:
        yield f"      and {more} more", ""


def was_and_is(change: Mapping[str, Any]) -> str:
    """Write ``old -> new``; ``-`` stands for none."""
    return f"{written(change.get('old'))} -> {written(change.get('new'))}"
