"""``harn orchestrator fire``: give a trigger of a running server an event that nobody sent."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

import click

from harn.cli.place import Reach
from harn.cli.shared import with_json, with_place, with_server
from harn.model.visible import visible

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
@click.argument("trigger_id")
@with_server
@with_json
def fire(trigger_id: str, as_json: bool, **given: Any) -> None:
    """Make an event up for the trigger TRIGGER_ID, and say how it ended."""
    client = Reach.told(given, os.environ).client()
    fired = client.post(f"/admin/fire/{quote(trigger_id, safe='')}", {}).expect_ok("event_id", "status")
    if as_json:
        click.echo(json.dumps(fired, indent=2))
        return
    click.echo("Synthetic event dispatched:")
    for name in FIELDS:
        click.echo(visible(f"- {name}={written(fired.get(name))}"))


def written(value: Any) -> str:
    """Write a value as these lists have it: ``-`` for none, JSON for what is no text."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
