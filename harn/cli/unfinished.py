"""
``harn orchestrator drains`` and ``recover``: deliveries that a replaced version, or an earlier server, left unfinished.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import click
from msgspec import Struct, UnsetType, structs, to_builtins

from harn.cli.client import ask
from harn.cli.completion import complete_bindings
from harn.cli.options import parameters_from, with_json, with_parameters, with_place
from harn.cli.output import CHANGES, ending_dry_run, warn
from harn.cli.place import ServerTarget, Sleep, Wait, may_come_back, with_server
from harn.cli.rows import Column, Rows, draw, format_fields, format_value, print_json, section
from harn.errors import HarnError
from harn.model.display import visible
from harn.orchestrator.operations import Recover, Recovered, UnfinishedDelivery
from harn.orchestrator.operations import recover as recover_operation
from harn.reload.operations import (
    Drain,
    DrainCancelled,
    DrainMoved,
    DrainOf,
    ListDrains,
    cancel_drain,
    list_drains,
    move_drain,
)

INTERVAL = 1.0
"""Seconds between two looks."""
DRAIN_COLUMNS = (
    Column("Binding", lambda drain: drain.binding, style="yellow"),
    Column("Age", lambda drain: f"{drain.age_seconds:.0f} s", drop=7),
    Column("Deadline", lambda drain: drain.deadline, drop=6),
    Column("in flight", lambda drain: drain.in_flight, is_right=True),
    Column("running", lambda drain: drain.running, drop=2, is_right=True),
    Column("queued", lambda drain: drain.queued, drop=3, is_right=True),
    Column("waiting", lambda drain: drain.waiting, drop=4, is_right=True),
    Column("moved", lambda drain: drain.moved, drop=5, is_right=True),
    Column("Oldest event", lambda drain: oldest_event(drain), drop=8),
)


@click.command()
@with_place
@click.option("--watch", is_flag=True, help="Look again every second, until nothing drains or Ctrl-C.")
@click.option(
    "--cancel",
    shell_complete=complete_bindings,
    metavar="BINDING",
    help="Give up what this version still holds: to the dead letters.",
)
@click.option(
    "--move",
    shell_complete=complete_bindings,
    metavar="BINDING",
    help="Move what this version has not begun to the newest one.",
)
@with_server
@with_json
def drains(target: ServerTarget, watch: bool, cancel: str | None, move: str | None, as_json: bool) -> None:
    """List the versions that drain; a BINDING is for example gh@v1."""
    if sum((watch, cancel is not None, move is not None)) > 1:
        raise click.UsageError("--watch, --cancel and --move exclude each other")
    if cancel is not None:
        cancelled = ask(target.client(), cancel_drain, DrainOf(binding=cancel))
        print_json(cancelled.document) if as_json else click.echo(describe_cancelled(cancelled.result))
    elif move is not None:
        moved = ask(target.client(), move_drain, DrainOf(binding=move))
        print_json(moved.document) if as_json else click.echo(describe_moved(moved.result))
    elif watch:
        try:
            show_watched(snapshots(ServerDrains(target), Sleep()), as_json)
        except KeyboardInterrupt:
            return
    elif as_json:
        print_json(ask(target.client(), list_drains, ListDrains()).document["drains"])
    else:
        draw(drain_rows(ServerDrains(target).read()))


class DrainSource(Protocol):
    """Gives the draining versions."""

    def read(self) -> Sequence[Drain]:
        """
        Return them as they are now.

        :raises HarnError: they cannot be read.
        """


class ServerDrains(Struct, frozen=True):
    """The draining versions of a server, which is located for each look: a restarted one may have another address."""

    target: ServerTarget

    def read(self) -> Sequence[Drain]:
        """See `DrainSource.read`."""
        found: Sequence[Drain] = ask(self.target.client(), list_drains, ListDrains()).result.drains
        return found


def drain_rows(drains: Sequence[Drain]) -> Rows:
    """Return draining versions as rows for people."""
    return Rows(title="Drains:", columns=DRAIN_COLUMNS, rows=drains, none="nothing drains")


def oldest_event(drain: Drain) -> str | None:
    """Return the id of a version's oldest event, and when it was received."""
    event = drain.oldest_event
    return None if event is None else f"{event.event_id} {event.received_at}"


def describe_cancelled(done: DrainCancelled) -> str:
    """Return the line for a version whose drain was cancelled."""
    return f"{done.binding}: {done.cancelled} cancelled, to the dead letters"


def describe_moved(done: DrainMoved) -> str:
    """Return the line for a version whose deliveries were moved."""
    return f"{done.binding}: {done.moved} moved" + (f" to {done.to}" if done.to else "")


def snapshots(source: DrainSource, pause: Wait) -> Iterator[Sequence[Drain]]:
    """
    Yield the draining versions, again and again; the last time when there are none.

    A server that has answered and does so no more is looked for until it does; standard error says so once.

    :raises HarnError: the first look failed already, or the server refuses to answer.
    """
    has_answered = is_away = False
    while True:
        try:
            found = source.read()
        except HarnError as error:
            if not has_answered or not may_come_back(error):
                raise
            if not is_away:
                warn(f"{error}; trying again until it answers, or Ctrl-C")
            is_away = True
        else:
            has_answered, is_away = True, False
            yield found
            if not found:
                return
        pause.wait(INTERVAL)


def show_watched(found: Iterator[Sequence[Drain]], as_json: bool) -> None:
    """Print the draining versions as they change: drawn again at a terminal, elsewhere a line for each change."""
    if as_json:
        for each in found:
            click.echo(json.dumps(to_builtins(each), separators=(",", ":")))
    elif sys.stdout.isatty():
        from harn.cli.terminal import watch_rows

        watch_rows(drain_rows(each) for each in found)
    else:
        for line in changed_lines(found):
            click.echo(visible(line))


def changed_lines(found: Iterator[Sequence[Drain]]) -> Iterator[str]:
    """Return a line for each version that is new or changed, for each that has ended, and one when nothing drains."""
    before: dict[str, Drain] = {}
    for drains_now in found:
        now = {each.binding: each for each in drains_now}
        for binding in before:
            if binding not in now:
                yield f"- binding={binding} drained"
        for binding, each in now.items():
            if binding not in before or without_age(each) != without_age(before[binding]):
                yield f"- {format_fields(each)}"
        before = now
    if not before:
        yield "nothing drains"


def without_age(drain: Drain) -> Drain:
    """Return a drain without the age, which changes with each look."""
    return structs.replace(drain, age_seconds=0.0)


DRY_RUN = {"dry_run": "Only list what would be recovered: exit 0 nothing, 1 something, 2 problems."}


class NotConfirmed(HarnError):
    """A command that changes something needs --yes."""


@click.command()
@with_place
@with_parameters(recover_operation, helps=DRY_RUN)
@click.option("-y", "--yes", is_flag=True, help="Recover them; without it, or --dry-run, nothing is done.")
@with_server
@with_json
def recover(target: ServerTarget, yes: bool, as_json: bool, **given: Any) -> None:
    """Recover the unfinished deliveries of an earlier server."""
    wanted = parameters_from(recover_operation, given)
    if not wanted.dry_run and not yes:
        raise NotConfirmed("refusing to recover without --yes; see what would be recovered with --dry-run")
    with ending_dry_run(wanted.dry_run):
        answered = ask(target.client(), recover_operation, wanted)
    if as_json:
        print_json(answered.document)
    else:
        show_recovered(wanted, answered.result)
    if wanted.dry_run and answered.result.stranded_envelopes > 0:
        sys.exit(CHANGES)


def show_recovered(wanted: Recover, found: Recovered) -> None:
    """Print the deliveries that were left, and their outcomes."""
    click.echo("Recovery:")
    click.echo(f"- dry_run={format_value(wanted.dry_run)}")
    click.echo(f"- min_envelope_age={wanted.envelope_age.text}")
    click.echo(f"- stranded_envelopes={found.stranded_envelopes}")
    for line in section("Candidates:", map(candidate, found.candidates)):
        click.echo(line)
    if found.stranded_envelopes > len(found.candidates):
        count = len(found.candidates)
        click.echo(f"- the oldest {count} of {found.stranded_envelopes} are listed; all count")
    if not wanted.dry_run:
        for line in section("Replay results:", map(handed_out, found.candidates)):
            click.echo(line)
        click.echo(f"- recovered={found.recovered}")


class UnfinishedRow(Struct, frozen=True, kw_only=True):
    """A delivery that was left, as it is listed."""

    event_id: str
    trigger_id: str
    binding_version: int
    provider: str
    kind: str
    age: str
    received_at: str
    inbox_offset: int


class HandedOut(Struct, frozen=True, kw_only=True):
    """The outcome for such a delivery, as it is listed."""

    event_id: str
    trigger_id: str
    status: str | UnsetType | None


def candidate(each: UnfinishedDelivery) -> UnfinishedRow:
    """Return the description of a delivery that was left."""
    return UnfinishedRow(
        event_id=each.event_id,
        trigger_id=each.trigger_id,
        binding_version=each.binding_version,
        provider=each.provider,
        kind=each.kind,
        age=f"{each.age_seconds:g}s",
        received_at=each.received_at,
        inbox_offset=each.inbox_offset,
    )


def handed_out(each: UnfinishedDelivery) -> HandedOut:
    """Return the description of its outcome."""
    return HandedOut(event_id=each.event_id, trigger_id=each.trigger_id, status=each.status)
