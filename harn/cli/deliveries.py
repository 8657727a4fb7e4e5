"""``harn orchestrator deliveries``, ``delivery`` and ``dlq``: lists of deliveries, one whole, the dead letters."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
from msgspec import UNSET, to_builtins

from harn.cli.options import WholeNumber, parameters_from, with_json, with_parameters, with_place
from harn.cli.output import Line, warn
from harn.cli.place import ServerTarget, note_unknown, with_server
from harn.cli.rows import Column, Rows, draw, print_found, print_json
from harn.cli.sources import find_source, read_list
from harn.deliveries.describing import (
    AttemptInfo,
    DeadLetters,
    DeliveryDetail,
    DeliveryInfo,
    DeliveryList,
    TimelineEntry,
)
from harn.deliveries.operations import (
    ListDeadLetters,
    ListDeliveries,
    list_dead_letters,
    list_deliveries,
    show_delivery,
)
from harn.model.delivery import DEAD, State

LIMIT = 100
STYLES = {
    "done": "green",
    "running": "green",
    "ready": "cyan",
    "waiting": "yellow",
    "dead": "red",
    "failed": "red",
    "timeout": "red",
    "denied": "red",
    "success": "green",
}
"""Styles of rich by state or outcome."""


@click.command()
@with_place
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="In this state; may be given again.",
)
@with_parameters(list_deliveries, without=("state", "limit"))
@click.option("-n", "--limit", type=WholeNumber(1), default=LIMIT, show_default=True, metavar="N", help="At most N.")
@with_server
@with_json
def deliveries(target: ServerTarget, states: tuple[str, ...], limit: int, as_json: bool, **given: Any) -> None:
    """List deliveries, the newest first, with their state and outcome."""
    wanted = parameters_from(list_deliveries, given, state=state_of(states))
    show_list(target, wanted, limit, as_json)


@click.command()
@with_place
@with_parameters(show_delivery, arguments=("event_id",))
@with_server
@with_json
def delivery(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Show the delivery of EVENT_ID: its timeline and its event, without secrets."""
    found = find_source(target).show(parameters_from(show_delivery, given))
    print_found(found, describe, as_json=as_json)


@click.command()
@with_place
@with_parameters(list_dead_letters, without=("offset", "limit"))
@click.option("--list", "one_by_one", is_flag=True, help="List them one by one, the newest first.")
@click.option("-n", "--limit", type=WholeNumber(1), default=LIMIT, show_default=True, metavar="N", help="With --list.")
@with_server
@with_json
def dlq(target: ServerTarget, trigger: str | None, one_by_one: bool, limit: int, as_json: bool) -> None:
    """Show the dead letters, counted by trigger, reason and class of error."""
    if one_by_one:
        show_list(target, ListDeliveries(state=DEAD.value, trigger=trigger), limit, as_json)
        return
    found = find_source(target).dead_letters(ListDeadLetters(trigger=trigger))
    if as_json:
        print_json(found.document)
    else:
        draw(groups_of(found.result))
    if not found.result.groups:
        note_unknown(target, trigger)


def state_of(states: tuple[str, ...]) -> str | None:
    """Return the parameter of these states, if there are any."""
    return ",".join(states) or None


def show_list(target: ServerTarget, wanted: ListDeliveries, limit: int, as_json: bool) -> None:
    """Print a list, and on standard error whether it continues, and why it may be empty or incomplete."""
    found = read_list(find_source(target), wanted, limit)
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(rows_of(found, time.time()))
        note_more(found)
    if not found.deliveries and not found.more:
        note_unknown(target, wanted.trigger)


def note_more(found: DeliveryList) -> None:
    """Print on standard error whether a list continues, and what it could not decide."""
    if found.more:
        warn(f"there are more; see them with --before {found.before}, or give a larger --limit")
    if found.passed_over is not UNSET:
        warn(
            f"--where could not be evaluated on {found.passed_over} deliveries, which were passed over: {found.problem}"
        )


def rows_of(found: DeliveryList, now: float) -> Rows:
    """
    Return deliveries as rows for people.

    :param now: seconds, Unix: their age is measured from it.
    """
    columns = (
        Column("Received", lambda row: row.received_at, drop=6),
        Column("Event", lambda row: row.event_id, style="bold"),
        Column("Trigger", lambda row: row.trigger_id),
        Column("Kind", lambda row: row.kind, drop=5, is_below=True),
        Column("State", state_text, styles=STYLES),
        Column("Tries", lambda row: row.attempts, drop=3, is_below=True, is_right=True),
        Column("Age", lambda row: age(row.received_at, now), drop=2, is_below=True, is_right=True),
        Column("Error", error_text, drop=4, is_below=True, wraps=True),
    )
    none = "No deliveries: none has been accepted, or none is as you asked."
    return Rows(title="Deliveries:", columns=columns, rows=found.deliveries, none=none)


def state_text(row: DeliveryInfo) -> str:
    """Return a delivery's state, and of a skipped one the reason."""
    return f"{row.state} ({row.reason})" if row.state == "skipped" and row.reason else row.state


def error_text(row: DeliveryInfo) -> str:
    """Return the first line of a delivery's error; of a dead letter its reason before it."""
    error = (row.error or "").partition("\n")[0]
    return f"{row.reason}: {error}" if row.state in ("dead", "discarded", "replayed") and row.reason else error


def age(at: str, now: float) -> str:
    """Write how long ago a time (RFC 3339) was: ``45s``, ``12m``, ``7h``, ``3d``."""
    seconds = max(0.0, now - datetime.fromisoformat(at).timestamp())
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def groups_of(found: DeadLetters) -> Rows:
    """Return groups of dead letters as rows for people."""
    columns = (
        Column("Count", lambda row: row.count, is_right=True, style="bold"),
        Column("Trigger", lambda row: row.trigger_id),
        Column("Reason", lambda row: row.reason, style="red"),
        Column("Class", lambda row: row.error_class),
        Column("First", lambda row: row.first, drop=2, is_below=True),
        Column("Last", lambda row: row.last, drop=1, is_below=True),
        Column("Example", lambda row: row.example_id),
    )
    return Rows(title="Dead letters:", columns=columns, rows=found.groups, none="No dead letters.")


def describe(found: DeliveryDetail) -> Iterator[Line]:
    """Return the lines of one delivery: its facts, its timeline, its attempts' tracebacks and lines, its event."""
    yield f"{found.event_id}: {found.state}" + (f" ({found.reason})" if found.reason else ""), "bold"
    facts = {
        "trigger": found.trigger_id,
        "binding": found.binding,
        "provider": found.provider,
        "kind": found.kind,
        "replay of": found.replay_of,
        "replayed as": found.replayed_as,
        "trace": found.otel_trace_id or None,
        "error": found.error,
    }
    yield from ((f"  {name}: {value}", "") for name, value in facts.items() if value is not None)
    yield "", ""
    yield "Timeline:", "bold"
    yield from ((describe_entry(each), STYLES.get(style_of(each), "")) for each in found.timeline)
    first_with: dict[str, int] = {}
    for attempt in found.attempts:
        yield from describe_attempt(attempt, first_with)
    if found.result is not None:
        yield "", ""
        yield "Result:", "bold"
        yield json.dumps(found.result, ensure_ascii=False), ""
    yield "", ""
    yield "Event:", "bold"
    for line in json.dumps(found.event, indent=2, ensure_ascii=False).split("\n"):
        yield line, ""


def style_of(entry: TimelineEntry) -> str:
    """Return the key in `STYLES` of an entry."""
    return entry.what if entry.outcome is UNSET else entry.outcome


def describe_entry(entry: TimelineEntry) -> str:
    """Write an entry of a timeline as one line."""
    parts = [f"  {entry.at or 'now':<24}  {entry.what}"]
    if entry.number is not UNSET:
        parts.append(str(entry.number))
    if entry.binding is not UNSET:
        parts.append(f"on {entry.binding}")
    if entry.outcome is not UNSET:
        parts.append(f"{entry.outcome} after {entry.seconds} s")
    if entry.reason is not UNSET:
        parts.append(f"({entry.reason})")
    if entry.until is not UNSET:
        parts.append(f"until {entry.until}")
    if entry.event_id is not UNSET:
        parts.append(f"{'of' if entry.what == 'received' else 'as'} {entry.event_id}")
    if entry.error is not UNSET:
        first = entry.error.partition("\n")[0]
        parts.append(f"{entry.error_class}: {first}")
    return " ".join(parts)


def describe_attempt(attempt: AttemptInfo, first_with: dict[str, int]) -> Iterator[Line]:
    """
    Return the traceback and the last lines of an attempt, if they are kept.

    :param first_with: by traceback, the number of the first attempt that had it: an equal one is not shown again.
    """
    first = first_with.setdefault(attempt.traceback, attempt.number) if attempt.traceback else attempt.number
    if first != attempt.number:
        yield "", ""
        yield f"Traceback of attempt {attempt.number}: as in attempt {first}", "bold"
    traceback = attempt.traceback.splitlines() if attempt.traceback and first == attempt.number else ()
    for name, lines in (("Traceback", traceback), ("Last lines", attempt.log)):
        if lines:
            yield "", ""
            yield f"{name} of attempt {attempt.number}:", "bold"
            yield from ((f"  {line}", "") for line in lines)
