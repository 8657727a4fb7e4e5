"""
``harn orchestrator backup``, ``restore``, ``compact`` and ``check``: an event log as one file; checks.

`check` checks everything that a reload checks, or every page and row of an event log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from harn.backup.backups import BackUp, BackupInfo, Restored
from harn.backup.backups import back_up as backup_operation
from harn.cli.client import AdminClient, Answered, ask
from harn.cli.options import with_json, with_place
from harn.cli.output import CHANGES, PROBLEMS, Line, ending_dry_run, print_error, print_lines, warn
from harn.cli.place import ServerLocation, ServerTarget, with_server_within
from harn.cli.reload import describe_problems
from harn.cli.rows import print_found, print_json
from harn.errors import HarnError, StateDirectoryUnusable
from harn.options import ServeOptions
from harn.orchestrator.stores import refuse_postgres
from harn.reload.excerpts import Excerpts
from harn.reload.results import ProblemInfo

if TYPE_CHECKING:
    from harn.backup.backups import StoreReport
    from harn.orchestrator.assemble import Checked


LONGEST = 3600.0
"""Seconds that the backup of a server may take."""


class BackupElsewhere(HarnError):
    """The server wrote a backup, and it is not where this command looks."""


@click.command()
@with_place
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace a backup of that name.")
@with_server_within(LONGEST)
@with_json
def backup(target: ServerTarget, file: str, force: bool, as_json: bool) -> None:
    """
    Back up all accepted events and all generations into FILE.

    The server may run meanwhile. The backup has no secrets of the manifest; it has events, with headers and bodies.
    With --admin-url the FILE is on the server's machine.
    """
    if target.admin_url is not None and not os.path.isabs(file):
        raise click.UsageError(f"FILE is on the server's machine: it must be an absolute path, got {file!r}")
    client = target.client_if_any()
    path = os.path.abspath(file)
    found = of_store(target.location, path, force) if client is None else of_server(client, path, force)
    if client is not None and target.admin_url is None and not os.path.isfile(path):
        raise BackupElsewhere(
            f"the server wrote {path} on its own machine or in its own container, and it is not there for this command;"
            " fetch it from there, or name a directory that both see"
        )
    print_found(found, lambda made: backup_lines(made, f"backup written to {path}"), as_json=as_json)


def of_server(client: AdminClient, path: str, force: bool) -> Answered[BackupInfo]:
    """Request a backup of a server."""
    return ask(client, backup_operation, BackUp(file=path, force=force))


def of_store(place: ServerLocation, path: str, force: bool) -> Answered[BackupInfo]:
    """
    Write a backup of a state directory on which no server runs.

    :raises StateDirectoryUnusable: there is no event log.
    """
    from harn.backup.backups import check_place, database_of, describe, origin_now
    from harn.store.sqlite.copying import back_up

    refuse_postgres(place.state_dir, os.environ, "a backup", "back it up with pg_dump")
    database = database_of(place.state_dir)
    if not os.path.exists(database):
        raise StateDirectoryUnusable(f"there is no event log at {database}; has a server run on this state directory?")
    check_place(path, place.state_dir)
    found = describe(path, back_up(database, path, origin_now(place.state_dir, time.time()), replaces=force))
    return Answered(found, to_builtins(found))


@click.command()
@with_place
@click.argument("file")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check FILE and show what is in it; change nothing: exit 1 it could be restored, 2 problems.",
)
@with_json
def restore(file: str, dry_run: bool, as_json: bool, **given: Any) -> None:
    """
    Restore the backup FILE into an empty state directory, for `serve` to start from.

    First stop the server that the backup was made of, if it still runs: both would run its unfinished deliveries.
    """
    from harn.backup.backups import describe, restore_into
    from harn.store.sqlite.copying import examine

    place = ServerLocation.of_options(given["config"], given["state_dir"], os.environ)
    refuse_postgres(place.state_dir, os.environ, "restore", "restore its database with pg_restore")
    path = os.path.abspath(file)
    with ending_dry_run(dry_run):
        copied = examine(path) if dry_run else restore_into(place.state_dir, path)
        found = Restored(
            state_dir=place.state_dir,
            dry_run=dry_run,
            refused=why_not(place.state_dir) if dry_run else None,
            backup=describe(path, copied),
        )
    if as_json:
        print_json(to_builtins(found))
    else:
        show_restored(found)
    if dry_run:
        sys.exit(CHANGES if found.refused is None else PROBLEMS)


def show_restored(found: Restored) -> None:
    """Print the contents of the backup, and where they went or why they would not."""
    said = f"{found.backup.file} is sound" if found.dry_run else f"restored into {found.state_dir}"
    print_lines(backup_lines(found.backup, said))
    if found.refused is not None:
        print_lines([(f"  it would not be restored: {found.refused}", "yellow")])


def why_not(state_dir: str) -> str | None:
    """Return why nothing would be restored into a directory; None when it is empty or missing."""
    from harn.backup.backups import refuse_filled

    try:
        refuse_filled(state_dir)
    except HarnError as error:
        return str(error)
    return None


def backup_lines(found: BackupInfo, done: str) -> Iterator[Line]:
    """Return the lines that say what was done, and what a backup holds."""
    yield done, "bold"
    made = "unknown (a plain copy of an event log)" if found.made_at is None else found.made_at
    yield f"  made at: {made}", ""
    if found.host is not None:
        yield f"  by: harn {found.harn_version} on {found.host}", ""
    yield f"  size: {found.bytes:,} bytes, schema {found.schema}", ""
    yield f"  generation: {found.generation} ({found.generations} kept)", ""
    counts = ", ".join(f"{count:,} {state}" for state, count in sorted(found.deliveries.items())) or "none"
    yield f"  deliveries: {counts}", ""
    yield f"  last accepted: {found.last_received_at or '-'}", ""
    for warning in found.warnings:
        yield f"  warning: {warning}", "yellow"
    if not found.has_digest_key:
        yield "  without digest.key: the next start counts as a new generation", "yellow"


@click.command()
@with_place
@with_json
def compact(as_json: bool, **given: Any) -> None:
    """
    Compact the event log's file and rebuild its indices; no server may run.

    The disk needs as much free space as the file has. Afterwards a file of an earlier version shrinks automatically.
    """
    from harn.backup.store_check import compact as compact_store

    place = ServerLocation.of_options(given["config"], given["state_dir"], os.environ)
    refuse_postgres(place.state_dir, os.environ, "compact", "PostgreSQL vacuums its tables by itself")
    before, after = compact_store(place.state_dir)
    if as_json:
        print_json({"bytes_before": before, "bytes_after": after})
    else:
        click.echo(f"compacted: {before:,} bytes before, {after:,} bytes now")


@click.command()
@with_place
@click.option("--store", is_flag=True, help="Check the event log of the state directory instead.")
@click.option("--no-secrets", is_flag=True, help="Check all but secrets and credentials, which CI may not have.")
@with_json
def check(store: bool, no_secrets: bool, as_json: bool, **given: Any) -> None:
    """
    Check a manifest, its secrets, its code and its connectors; for continuous integration.

    With --no-secrets: secrets and credentials are not read, and what depends on their values is not checked, such as
    keys of connectors. With --store: check the event log instead, every page and row of it. A server may run on it
    meanwhile.
    """
    if store and no_secrets:
        raise click.UsageError("--no-secrets and --store exclude each other: a check of the event log reads no secrets")
    if store:
        from harn.backup.store_check import check_store

        place = ServerLocation.of_options(None, given["state_dir"], os.environ)
        refuse_postgres(
            place.state_dir, os.environ, "check --store", "look at it with harn store status and pg_amcheck"
        )
        sys.exit(show_store(check_store(place.state_dir), as_json))
    try:
        options = ServeOptions.from_values(given, os.environ)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    from twisted.internet import reactor

    from harn.cli.serve import run_until
    from harn.clocks import use_monotonic_time
    from harn.orchestrator.assemble import check_manifest

    use_monotonic_time(reactor)
    found = run_until(reactor, check_manifest(reactor, options, os.environ, with_secrets=not no_secrets))
    sys.exit(show_checked(found, as_json, options.manifest))


def show_checked(found: Checked, as_json: bool, manifest: str | None = None) -> int:
    """
    Print the findings of a check; return the exit status.

    :param manifest: its path, to show the lines of problems.
    """
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
        problems = [ProblemInfo.of(problem) for problem in found.problems]
        for said, *source in describe_problems(problems, Excerpts(manifest)):
            print_error(said)
            for line in source:
                warn(line)
    else:
        click.echo(f"ok: {count(found.triggers, 'trigger')}, {count(found.modules, 'module')}")
    return 1 if found.problems else 0


def show_store(found: StoreReport, as_json: bool) -> int:
    """Print the findings of a check of a store; return the exit status."""
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
