"""``harn orchestrator fire``: send a trigger of a running server a synthetic event."""

from __future__ import annotations

import os
from typing import Any

import click

from harn.cli.lines import written
from harn.cli.operations import ask, parameters_from, print_json, with_parameters
from harn.cli.place import Reach
from harn.cli.shared import with_json, with_place, with_server
from harn.dispatch.operations import fire as fire_operation
from harn.model.display import visible

FIELDS = (
    "binding_id",
    "binding_version",
    "event_id",
    "status",
    "replay_of_event_id",
    "dlq_entry_id",
    "error",
    "result",
)


@click.command()
@with_place
@with_parameters(fire_operation, arguments=("trigger",), without=("payload",), metavars={"trigger": "TRIGGER_ID"})
@with_server
@with_json
def fire(as_json: bool, **given: Any) -> None:
    """Send a synthetic event to the trigger TRIGGER_ID, and print the outcome."""
    answered = ask(Reach.told(given, os.environ).client(), fire_operation, parameters_from(fire_operation, given))
    if as_json:
        print_json(answered.document)
        return
    click.echo("Synthetic event dispatched:")
    for name in FIELDS:
        click.echo(visible(f"- {name}={written(getattr(answered.result, name))}"))
