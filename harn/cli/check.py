"""``harn orchestrator check``: everything that a reload checks, without a server."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from harn.cli.options import with_json, with_place
from harn.cli.output import print_error
from harn.cli.place import ServerLocation
from harn.cli.reload import describe_problems
from harn.cli.rows import print_json
from harn.options import ServeOptions
from harn.reload.results import ProblemInfo

if TYPE_CHECKING:
    from harn.backup.operations import StoreReport
    from harn.orchestrator.check import Checked


@click.command()
@with_place
@click.option("--store", is_flag=True, help="Check the event log of the state directory instead.")
@with_json
def check(store: bool, as_json: bool, **given: Any) -> None:
    """
    Check a manifest, its secrets, its code and its connectors; for continuous integration.

    With --store: check the event log instead, every page and row of it. A server that runs on it goes on meanwhile.
    """
    if store:
        from harn.backup.store_check import check_store

        sys.exit(
            show_store(check_store(ServerLocation.of_options(None, given["state_dir"], os.environ).state_dir), as_json)
        )
    try:
        options = ServeOptions.from_values(given, os.environ)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    from twisted.internet import reactor

    from harn.cli.serve import run_until
    from harn.clocks import use_monotonic_time
    from harn.orchestrator.check import check_manifest

    use_monotonic_time(reactor)
    found = run_until(reactor, lambda: check_manifest(reactor, options, os.environ))
    sys.exit(show(found, as_json))


def show(found: Checked, as_json: bool) -> int:
    """Print what a check found; give the exit status."""
    if as_json:
        document = {
            "status": "error" if found.problems else "ok",
            "triggers": found.triggers,
            "modules": found.modules,
            "problems": to_builtins([ProblemInfo.of(problem) for problem in found.problems]),
            "warnings": list(found.warnings),
        }
        click.echo(json.dumps(document, indent=2))
        return 1 if found.problems else 0
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    if found.problems:
        for said in describe_problems([ProblemInfo.of(problem) for problem in found.problems]):
            print_error(said)
    else:
        click.echo(f"ok: {count(found.triggers, 'trigger')}, {count(found.modules, 'module')}")
    return 1 if found.problems else 0


def show_store(found: StoreReport, as_json: bool) -> int:
    """Print what a check of a store found; give the exit status."""
    if as_json:
        print_json(to_builtins(found))
    elif found.problems:
        for problem in found.problems:
            print_error(f"{problem.what}; {problem.hint}")
    else:
        counts = ", ".join(f"{number:,} {state}" for state, number in sorted(found.deliveries.items())) or "none"
        click.echo(f"ok: {found.file}, {found.bytes:,} bytes ({found.free_bytes:,} free), schema {found.schema}")
        click.echo(f"deliveries: {counts}")
        if not found.shrinks:
            click.echo("the file does not shrink by itself; `harn orchestrator compact` changes that")
    return 1 if found.problems else 0


def count(number: int, thing: str) -> str:
    """Write ``1 trigger`` or ``2 triggers``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
