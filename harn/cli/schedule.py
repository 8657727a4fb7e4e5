"""``harn orchestrator schedule``: what schedules fire next, on a server or by what its state directory holds."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import click
from msgspec import to_builtins

from harn.cli.client import ask
from harn.cli.options import parameters_from, with_json, with_parameters, with_place
from harn.cli.place import ServerLocation, ServerTarget, with_server
from harn.cli.rows import Column, Rows, draw, print_json
from harn.connectors.providers.cron import CRON, CronSettings
from harn.connectors.providers.poll import POLL, PollSettings
from harn.errors import StateDirectoryUnusable
from harn.manifest.model import Manifest
from harn.schedules.operations import ListSchedule, ScheduleList, describe, list_schedule
from harn.schedules.polls import timed_of as timed_poll
from harn.schedules.service import PREFIX, timed_of
from harn.schedules.ticks import Record

COLUMNS = (
    Column("Trigger", lambda firing: firing.trigger_id),
    Column("Due", lambda firing: firing.local_at),
    Column("UTC", lambda firing: firing.at, drop=2),
    Column("Schedule", lambda firing: firing.schedule),
    Column("Zone", lambda firing: firing.timezone, drop=1),
    Column("Last fired", lambda firing: firing.last_fired_at, drop=3),
)


@click.command()
@with_place
@with_parameters(list_schedule)
@with_server
@with_json
def schedule(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """List the next firings of triggers with a schedule, the next one first."""
    wanted = parameters_from(list_schedule, given)
    client = target.client_if_any()
    if client is None:
        found = stored_schedule(target.location, wanted, time.time())
    else:
        found = ask(client, list_schedule, wanted).result
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(Rows(title="Schedule:", columns=COLUMNS, rows=found.firings, none="no trigger has a schedule"))
        if found.more:
            click.echo(f"more than {len(found.firings)}: see --limit")


def stored_schedule(place: ServerLocation, wanted: ListSchedule, now: float) -> ScheduleList:
    """
    Return the ticks that would be due from ``now`` (seconds, Unix) on, if a server ran.

    Of the generation that served last; where none has, of the manifest's file.

    :raises EventLogUnavailable: the store cannot be read.
    :raises ManifestInvalid: no server has run yet, and the manifest is wrong.
    :raises RouteUnknown: the trigger has no schedule.
    """
    from harn.cli.sources import StoredGenerations, open_store
    from harn.store.sqlite.generations import SQLiteCheckpoints

    manifest: Manifest | None = None
    records: Mapping[str, Any] = {}
    try:
        with open_store(place.state_dir) as store:
            records = store.ask(SQLiteCheckpoints.beginning, PREFIX)
        manifest = StoredGenerations(state_dir=place.state_dir, manifest=place.manifest).newest_manifest()
    except StateDirectoryUnusable:
        if holds_store(place):
            raise
    specs = (manifest or read_manifest_file(place)).triggers.values()
    timed = {each.id: timed_of(each.id, CronSettings.of(each.settings), now) for each in specs if each.kind == CRON}
    timed |= {each.id: timed_poll(each.id, PollSettings.of(each.settings), now) for each in specs if each.kind == POLL}
    read = {name.removeprefix(PREFIX): Record.read(value) for name, value in records.items()}
    fired = {name: each.fired for name, each in read.items() if each is not None and each.fired is not None}
    return describe(timed, fired, wanted)


def holds_store(place: ServerLocation) -> bool:
    """Return whether a state directory has a database, whatever is wrong with it."""
    from harn.cli.sources import DATABASE

    return os.path.lexists(os.path.join(place.state_dir, DATABASE))


def read_manifest_file(place: ServerLocation) -> Manifest:
    """
    Read the manifest's file.

    :raises ManifestInvalid: it is wrong; names every problem.
    """
    from harn.manifest.load import check_document
    from harn.manifest.source import read_manifest
    from harn.reload.build import installed_rules

    path = os.path.abspath(place.manifest)
    return check_document(read_manifest(path, place.manifest), None, installed_rules()).manifest
