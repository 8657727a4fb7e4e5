"""``harn orchestrator recover``: take up again what was accepted long ago and never finished."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from harn.cli.arguments import check_age
from harn.cli.fire import written
from harn.cli.place import Reach
from harn.cli.shared import with_json, with_place, with_server
from harn.errors import HarnError
from harn.model.visible import visible

CANDIDATE = ("event_id", "trigger_id", "binding_version", "provider", "kind", "age", "received_at", "inbox_offset")
HANDED_OUT = ("event_id", "trigger_id", "status")


class NotConfirmed(HarnError):
    """A command that changes something was not told that it may."""


@click.command()
@with_place
@click.option(
    "--envelope-age",
    callback=check_age,
    required=True,
    metavar="DURATION",
    help="Only what is older, for example 5m.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be taken up.")
@click.option("--yes", is_flag=True, help="Take it up.")
@with_server
@with_json
def recover(envelope_age: str, dry_run: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Find accepted events that nothing has finished, and hand them out again."""
    if not dry_run and not yes:
        raise NotConfirmed("refusing to recover without --yes; see what would be taken up with --dry-run")
    client = Reach.told(given, os.environ).client()
    asked = {"envelope_age": envelope_age, "dry_run": dry_run}
    found = client.post("/admin/recover", asked).expect_ok("candidates", "stranded_envelopes")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    candidates = [{**row, "age": f"{row['age_seconds']:g}s"} for row in found["candidates"]]
    click.echo("Recovery:")
    click.echo(f"- dry_run={written(dry_run)}")
    click.echo(f"- min_envelope_age={envelope_age}")
    click.echo(f"- stranded_envelopes={found['stranded_envelopes']}")
    list_rows("Candidates:", CANDIDATE, candidates)
    if found["stranded_envelopes"] > len(candidates):
        click.echo(f"- the oldest {len(candidates)} of {found['stranded_envelopes']} are listed; all count")
    if not dry_run:
        list_rows("Replay results:", HANDED_OUT, candidates)
        click.echo(f"- recovered={found['recovered']}")


def list_rows(title: str, names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Print a section of lines ``- name=value name=value``."""
    click.echo(title)
    for row in rows:
        click.echo("- " + visible(" ".join(f"{name}={written(row.get(name))}" for name in names if name in row)))
    if not rows:
        click.echo("- none")
