"""``harn store``: the place where everything durable is: its tables, its contents, and its copy into another."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
from msgspec import to_builtins

from harn.cli.options import with_flags, with_json
from harn.cli.output import Line, print_lines
from harn.cli.rows import print_json
from harn.errors import StateDirectoryUnusable
from harn.options import MANIFEST, STATE_DIR, STORE, ServeOptions
from harn.orchestrator.stores import Secrets, address_of, read_address
from harn.store.postgres.address import is_postgres
from harn.store.postgres.connection import PostgresEndpoint

EVERY = 1.0
"""Seconds between two lines of progress."""


def configured(given: dict[str, Any]) -> PostgresEndpoint:
    """
    Return the PostgreSQL store that flags, environment or manifest name.

    :raises StateDirectoryUnusable: they name none.
    """
    try:
        options = ServeOptions.from_values(given, os.environ)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    address = address_of(options)
    if address is None:
        raise StateDirectoryUnusable(
            f"the store of {options.state_dir} is SQLite in it, which a server's start brings up to date; name another"
            " with --store postgresql://..., HARN_ORCHESTRATOR_STORE or [orchestrator] store"
        )
    return PostgresEndpoint(address, Secrets(os.environ))


@click.group()
def store() -> None:
    """Make, show and copy the store of events, where that is PostgreSQL or is to be."""


@store.command()
@with_flags(MANIFEST, STATE_DIR, STORE)
@with_json
def migrate(as_json: bool, **given: Any) -> None:
    """
    Make the tables of a PostgreSQL store, or bring them up to date.

    Make a backup first. Servers of a version that cannot use the new tables must be stopped; the notes of the release
    say so.
    """
    from harn.store.postgres.tools import migrate_store

    done = migrate_store(configured(given))
    if as_json:
        print_json(to_builtins(done))
    elif done.before == done.after:
        click.echo(f"nothing to do: {done.store} has schema {done.after}")
    else:
        click.echo(f"migrated {done.store} from schema {done.before} to {done.after}")


@store.command()
@with_flags(MANIFEST, STATE_DIR, STORE)
@with_json
def status(as_json: bool, **given: Any) -> None:
    """Show a PostgreSQL store: whether it can be used, its contents, and the servers on it. Exit 1 where it cannot."""
    from harn.store.postgres.tools import read_status

    found = read_status(configured(given), time.time())
    if as_json:
        print_json(to_builtins(found))
    else:
        counts = ", ".join(f"{number:,} {state}" for state, number in sorted(found.deliveries.items())) or "none"
        lines: list[Line] = [(found.store, "bold")]
        lines += [
            (f"  server: PostgreSQL {found.server_version}", ""),
            (f"  schema: {found.schema} (this harn: {found.supported})", ""),
            (f"  size: {found.bytes:,} bytes", ""),
            (f"  generation: {found.generation} ({found.generations} kept)", ""),
            (f"  deliveries: {counts}", ""),
            (f"  servers alive: {', '.join(found.servers) or 'none'}", ""),
        ]
        if found.problem:
            lines.append((f"  problem: {found.problem}", "red"))
        print_lines(lines)
    sys.exit(1 if found.problem else 0)


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@with_json
def copy(source: str, target: str, as_json: bool) -> None:
    """
    Copy everything from one store into an empty one, and check the copy.

    FROM and TO are each a state directory, for its SQLite store, or postgresql://... No server may use either. A copy
    that was cut off continues where it stopped. FROM stays as it was.
    """
    from harn.orchestrator.copying import copy_store

    shown_at = 0.0

    def show(table: str, done: int, total: int) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if not as_json and (done == total or now - shown_at >= EVERY):
            shown_at = now
            click.echo(f"{table}: {done:,} of {total:,}", err=True)

    secrets = Secrets(os.environ)
    places = [
        PostgresEndpoint(read_address(each, "the address"), secrets) if is_postgres(each) else each
        for each in (source, target)
    ]
    done = copy_store(places[0], places[1], time.time(), show)
    if as_json:
        print_json(to_builtins(done))
    else:
        click.echo(
            f"copied and checked: {sum(done.tables.values()):,} rows of {len(done.tables)} tables to {done.target}"
        )
