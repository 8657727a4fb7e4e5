"""``harn orchestrator ramp``: which triggers give their new version a share only; end that, one way or the other."""

from __future__ import annotations

import os
from typing import Any

import click
from msgspec import UNSET

from harn.cli.operations import ask, print_json
from harn.cli.place import Reach
from harn.cli.rows import STATES, Column, Rows, draw
from harn.cli.shared import with_json, with_place, with_server
from harn.cli.triggers import check_trigger
from harn.reload.results import RampInfo
from harn.rollout.operations import ListRamps, RampOf, abort_ramps, finish_ramps, list_ramps

COLUMNS = (
    Column("Trigger", lambda ramp: ramp.trigger_id),
    Column("State", lambda ramp: ramp.state, styles=STATES),
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
    client = Reach.told(given, os.environ).client()
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
