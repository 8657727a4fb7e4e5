"""``harn orchestrator replay``, ``cancel`` and ``discard``: deliveries by id, or many by a selection."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click
from msgspec import UNSET

from harn.cli.change_target import ChangeTarget, ServerTarget, find_target
from harn.cli.deliveries import state_of
from harn.cli.operations import parameters_from, print_json, with_parameters
from harn.cli.output import CHANGES, PROBLEMS, complain, ending_dry_run, warn
from harn.cli.place import Reach
from harn.cli.rows import Column, Rows, draw
from harn.cli.shared import with_json, with_place, with_server
from harn.cli.triggers import note_unknown
from harn.deliveries.change_operations import ChangeMany, Done, replay_many
from harn.deliveries.selection import PAST
from harn.model.delivery import State
from harn.store.jobs import CANCEL, DISCARD, REPLAY

Command = Callable[..., Any]
DRY_RUN = {"dry_run": "Only count what would be done, and list it: exit 0 nothing, 1 something, 2 problems."}
MOST_SHOWN = 20
"""Deliveries that an answer shows for people; ``--json`` has all."""


def with_deliveries(command: Command) -> Command:
    """Return a command the arguments and options by which deliveries are chosen, and how they are changed."""
    for option in reversed(
        (
            with_place,
            click.argument("event_ids", nargs=-1, metavar="[EVENT_ID...]"),
            click.option(
                "--state",
                "states",
                type=click.Choice([state.value for state in State]),
                multiple=True,
                help="In this state; may be given again.",
            ),
            with_parameters(replay_many, without=("state", "event_ids"), helps=DRY_RUN),
            click.option("--yes", is_flag=True, help="Do not ask."),
            click.option("--progress", is_flag=True, help="Wait for the end, and show how far it has come."),
            with_server,
            with_json,
        )
    ):
        command = option(command)
    return command


@click.command()
@with_deliveries
def replay(**given: Any) -> None:
    """Run recorded events again on the newest version, each as a new delivery: EVENT_IDs, or all that match."""
    change(REPLAY, **given)


@click.command()
@with_deliveries
def cancel(**given: Any) -> None:
    """Cancel deliveries: what waits or is ready ends, what runs is cut off: EVENT_IDs, or all that match."""
    change(CANCEL, **given)


@click.command()
@with_deliveries
def discard(**given: Any) -> None:
    """Discard dead letters: EVENT_IDs, or all that match."""
    change(DISCARD, **given)


def change(
    operation: str,
    *,
    event_ids: tuple[str, ...],
    states: tuple[str, ...],
    yes: bool,
    progress: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run an operation, after a confirmation unless deliveries are named, and end the process with its exit status."""
    wanted = parameters_from(replay_many, given, **state_of(states), **({"event_ids": event_ids} if event_ids else {}))
    if not (event_ids or wanted.dry_run or yes) and not is_terminal():
        raise click.UsageError(
            f"to {operation} what an expression or a filter selects takes --yes; see it before with --dry-run"
        )
    reach = Reach.told(given, os.environ)
    with ending_dry_run(wanted.dry_run):
        target = find_target(reach)
        if not (event_ids or wanted.dry_run or yes):
            confirm(operation, target, wanted)
        answered = target.change(operation, wanted)
        if goes_on(answered.result) and isinstance(target, ServerTarget) and (progress or wanted.rate_limit is None):
            answered = target.follow(operation, answered, with_bar=progress)
        if as_json:
            print_json(answered.document)
        else:
            show(answered.result)
        if not answered.result.matched:
            note_unknown(reach, wanted.trigger)
    sys.exit(exit_status(answered.result, is_named=bool(event_ids)))


def exit_status(done: Done, *, is_named: bool) -> int:
    """Return the exit status for an answer, after a message where one of the deliveries that were named was skipped."""
    if is_named and done.skipped:
        complain(skipped_text(done))
        return PROBLEMS if done.dry_run else 1
    return CHANGES if done.dry_run and done.matched > done.skipped else 0


def skipped_text(done: Done) -> str:
    """Return how many of the named deliveries were skipped, and why the first was."""
    items = done.items  # type: ignore[attr-defined]
    first = next((f"{item.event_id}: {item.reason}" for item in items if item.reason is not UNSET), "see the job")
    return first if done.matched == 1 else f"{done.skipped} of {done.matched} were skipped; the first: {first}"


def goes_on(done: Done) -> bool:
    """Return whether a job goes on after the answer."""
    return done.state == "running"


def is_terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(operation: str, target: ChangeTarget, wanted: ChangeMany) -> None:
    """
    Show how many deliveries match, and ask.

    :raises click.Abort: the answer is no.
    """
    fields = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
    tried = target.change(operation, ChangeMany(**{**fields, "dry_run": True})).result
    doable = tried.matched - tried.skipped
    question = f"{operation} {doable} deliveries ({tried.matched} match, {tried.skipped} are skipped)?"
    click.confirm(question, abort=True, err=True)


def show(done: Done) -> None:
    """Print what was done."""
    past = PAST[done.operation]
    count = getattr(done, past)
    if done.dry_run:
        click.echo(f"{done.matched} match: {done.matched - done.skipped} would be {past}, {done.skipped} skipped")
    else:
        click.echo(f"{count} of {done.matched} {past}, {done.skipped} skipped")
    items = done.items  # type: ignore[attr-defined]  # each of the classes of answers has some
    if items:
        draw(Rows(title=f"{past.capitalize()}:", columns=columns_of(done), rows=items[:MOST_SHOWN]))
    left = max(0, len(items) - MOST_SHOWN) + (done.more or 0)
    if left:
        warn(f"{left} more are not shown; --json has them")
    if goes_on(done):
        warn(f"job {done.job} goes on in the server; see it with: harn orchestrator jobs --show {done.job}")


def columns_of(done: Done) -> tuple[Column, ...]:
    """Return the columns of an answer's items."""
    as_new = (Column("Replayed as", lambda item: item.replayed_as, style="cyan"),)
    why = (Column("Why not", lambda item: None if item.reason is UNSET else item.reason, drop=1, wraps=True),)
    return (
        Column("Event", lambda item: item.event_id),
        *(as_new if done.operation == REPLAY else ()),
        *(why if done.skipped else ()),
    )
