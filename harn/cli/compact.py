"""``harn orchestrator compact``: make the file of an event log as small as it can be."""

from __future__ import annotations

import os
from typing import Any

import click

from harn.cli.operations import print_json
from harn.cli.place import ServerLocation
from harn.cli.shared import with_json, with_place


@click.command()
@with_place
@with_json
def compact(as_json: bool, **given: Any) -> None:
    """
    Make the event log's file as small as it can be, with new indices, while no server runs.

    It takes as much room again for a while. A file that an earlier version made shrinks by itself from then on.
    """
    from harn.backup.store_check import compact as compact_store

    before, after = compact_store(ServerLocation.of_options(given["config"], given["state_dir"], os.environ).state_dir)
    if as_json:
        print_json({"bytes_before": before, "bytes_after": after})
    else:
        click.echo(f"compacted: {before:,} bytes before, {after:,} bytes now")
