"""``harn orchestrator rollback`` and ``confirm``: go back to an earlier generation, or stay with the live one."""

from __future__ import annotations

import os
from typing import Any

import click

from harn.cli.operations import ask, parameters_from, print_json, with_parameters
from harn.cli.place import Reach
from harn.cli.reload import DRY_RUN, SOURCE, carry_out
from harn.cli.shared import with_json, with_place, with_server
from harn.operations.requests import write_request
from harn.reload.operations import rollback as rollback_operation
from harn.rollout.operations import confirm_generation


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
    carry_out(Reach.told(given, os.environ), write_request(rollback_operation, wanted), wanted.dry_run, as_json)


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
