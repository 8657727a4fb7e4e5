"""``harn orchestrator rollback`` and ``confirm``: go back to an earlier generation, or stay with the live one."""

from __future__ import annotations

import os
from typing import Any

import click

from harn.cli.arguments import GENERATION
from harn.cli.operations import ask, parameters_from, print_json, with_parameters
from harn.cli.place import Reach
from harn.cli.reload import carry_out
from harn.cli.shared import with_json, with_place, with_server
from harn.rollout.operations import confirm_generation


@click.command()
@with_place
@click.argument("generation", type=GENERATION, required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would change: exit 0 nothing, 1 something, 2 problems.")
@click.option("--force", is_flag=True, help="Adopt it even if it is what serves.")
@click.option("--if-match", metavar="ETAG", help="Only if this is still the live generation (GET /admin/generation).")
@with_server
@with_json
def rollback(
    generation: int | None, dry_run: bool, force: bool, if_match: str | None, as_json: bool, **given: Any
) -> None:
    """
    Adopt what GENERATION was, manifest and code, as a new generation.

    Without GENERATION: the last one before that was another. What is adopted comes from the store; the files stay as
    they are, and a reload adopts them again.
    """
    options = "&".join(f"{name}=true" for name, wanted in (("dry_run", dry_run), ("force", force)) if wanted)
    body = {"source": "cli", **({} if generation is None else {"generation": generation})}
    target = "/admin/rollback" + (f"?{options}" if options else "")
    carry_out(Reach.told(given, os.environ), target, body, if_match, dry_run, as_json)


@click.command()
@with_place
@with_parameters(confirm_generation, arguments=("generation",))
@with_server
@with_json
def confirm(as_json: bool, **given: Any) -> None:
    """Keep the generation that is on probation: it is not rolled back by itself any more. GENERATION: only this one."""
    wanted = parameters_from(confirm_generation, given)
    answered = ask(Reach.told(given, os.environ).client(), confirm_generation, wanted)
    if as_json:
        print_json(answered.document)
    else:
        click.echo(f"generation {answered.result.generation} confirmed")
