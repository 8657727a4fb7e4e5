"""``harn orchestrator rollback``, ``confirm`` and ``ramp``: return to a generation, keep it, end ramps."""

from __future__ import annotations

import os
from typing import Any

import click
from msgspec import UNSET

from harn.cli.client import ask
from harn.cli.options import parameters_from, with_json, with_parameters, with_place, with_server
from harn.cli.place import ServerTarget
from harn.cli.reload import DRY_RUN, SOURCE, carry_out
from harn.cli.rows import STATE_STYLES, Column, Rows, draw, print_json
from harn.cli.triggers import check_trigger
from harn.operations.requests import write_request
from harn.reload.operations import rollback as rollback_operation
from harn.reload.results import RampInfo
from harn.rollout.operations import ListRamps, RampOf, abort_ramps, confirm_generation, finish_ramps, list_ramps


@click.command()
@with_place
@with_parameters(rollback_operation, arguments=("generation",), without=("source",), helps=DRY_RUN)
@with_server
@with_json
def rollback(as_json: bool, **given: Any) -> None:
    """
    Adopt what GENERATION was, manifest and code, as a new generation.

    Without GENERATION: the last one before that was another. What is adopted comes from the store; the files stay as
    they are, and a reload adopts them again.
    """
    wanted = parameters_from(rollback_operation, given, source=SOURCE)
    carry_out(
        ServerTarget.of_options(given, os.environ), write_request(rollback_operation, wanted), wanted.dry_run, as_json
    )


@click.command()
@with_place
@with_parameters(confirm_generation, arguments=("generation",))
@with_server
@with_json
def confirm(as_json: bool, **given: Any) -> None:
    """Keep the generation that is on probation: it is not rolled back by itself any more. GENERATION: only this one."""
    wanted = parameters_from(confirm_generation, given)
    answered = ask(ServerTarget.of_options(given, os.environ).client(), confirm_generation, wanted)
    if as_json:
        print_json(answered.document)
    else:
        click.echo(f"generation {answered.result.generation} confirmed")


COLUMNS = (
    Column("Trigger", lambda ramp: ramp.trigger_id),
    Column("State", lambda ramp: ramp.state, styles=STATE_STYLES),
    Column("Fresh", lambda ramp: ramp.fresh),
    Column("Share", lambda ramp: f"{ramp.percent:g} %"),
    Column("Stable", lambda ramp: ramp.stable, drop=3),
    Column("Next step", lambda ramp: ramp.next_step_at, drop=4),
    Column("Attempts", lambda ramp: None if ramp.attempts is UNSET else ramp.attempts, drop=2),
    Column("Failures", lambda ramp: None if ramp.failures is UNSET else ramp.failures, drop=1),
    Column("Why", lambda ramp: ramp.why or None, wraps=True),
)


@click.command()
@with_place
@click.argument("trigger", required=False)
@click.option("--finish", is_flag=True, help="Give all deliveries to the new version.")
@click.option("--abort", is_flag=True, help="Give all deliveries back to the version before.")
@with_server
@with_json
def ramp(trigger: str | None, finish: bool, abort: bool, as_json: bool, **given: Any) -> None:
    """List the triggers whose versions share their deliveries, or end that for TRIGGER, or for all of them."""
    if finish and abort:
        raise click.UsageError("--finish and --abort exclude each other")
    client = ServerTarget.of_options(given, os.environ).client()
    if finish or abort:
        answered = ask(client, finish_ramps if finish else abort_ramps, RampOf(trigger=trigger))
    else:
        answered = ask(client, list_ramps, ListRamps())
    is_shown = [finish or abort or trigger in (None, each.trigger_id) for each in answered.result.ramps]
    if trigger is not None and not any(is_shown):
        check_trigger(client, trigger)
    if as_json:
        listed = answered.document["ramps"]
        print_json([each for each, shown in zip(listed, is_shown, strict=True) if shown])
    else:
        draw(rows_of([each for each, shown in zip(answered.result.ramps, is_shown, strict=True) if shown]))


def rows_of(ramps: list[RampInfo]) -> Rows:
    """Return ramps as rows for people."""
    return Rows(title="Ramps:", columns=COLUMNS, rows=ramps)
