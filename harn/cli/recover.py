"""``harn orchestrator recover``: take up again what was accepted long ago and never finished."""

from __future__ import annotations

import os
from typing import Any

import click
from msgspec import Struct, UnsetType

from harn.cli.client import ask
from harn.cli.options import parameters_from, with_json, with_parameters, with_place, with_server
from harn.cli.place import ServerTarget
from harn.cli.rows import format_value, print_json, section
from harn.errors import HarnError
from harn.orchestrator.operations import Recover, Recovered, UnfinishedDelivery
from harn.orchestrator.operations import recover as recover_operation


class NotConfirmed(HarnError):
    """A command that changes something needs --yes."""


@click.command()
@with_place
@with_parameters(recover_operation)
@click.option("--yes", is_flag=True, help="Take it up.")
@with_server
@with_json
def recover(yes: bool, as_json: bool, **given: Any) -> None:
    """Find accepted events that nothing has finished, and hand them out again."""
    wanted = parameters_from(recover_operation, given)
    if not wanted.dry_run and not yes:
        raise NotConfirmed("refusing to recover without --yes; see what would be taken up with --dry-run")
    answered = ask(ServerTarget.of_options(given, os.environ).client(), recover_operation, wanted)
    if as_json:
        print_json(answered.document)
    else:
        show(wanted, answered.result)


def show(wanted: Recover, found: Recovered) -> None:
    """Print what was left, and what happened to it."""
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


class Candidate(Struct, frozen=True, kw_only=True):
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


def candidate(each: UnfinishedDelivery) -> Candidate:
    """Return what is shown of a delivery that was left."""
    return Candidate(
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
    """Return what is shown of what happened to it."""
    return HandedOut(event_id=each.event_id, trigger_id=each.trigger_id, status=each.status)
