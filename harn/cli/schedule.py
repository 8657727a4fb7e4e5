"""
``harn orchestrator schedule`` and ``cursor``: what schedules fire next, how polls go, and the cursors of polls.

Of a server, or by what its state directory holds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click
from msgspec import Raw, json, structs, to_builtins

from harn.cli.client import ask
from harn.cli.options import parameters_from, read_json_data, with_json, with_parameters, with_place
from harn.cli.output import CHANGES, ending_dry_run
from harn.cli.place import ServerLocation, ServerTarget, with_server
from harn.cli.rows import Column, Rows, draw, print_json
from harn.connectors.providers.cron import CRON, CronSettings
from harn.connectors.providers.poll import POLL, PollSettings
from harn.errors import RouteUnknown, StateDirectoryUnusable
from harn.manifest.model import Manifest
from harn.model.display import visible
from harn.schedules.cron_entry import timed_of
from harn.schedules.cursor_operations import (
    CursorChange,
    PollInfo,
    SetCursor,
    ShowCursor,
    describe_change,
    describe_poll,
    set_cursor,
    show_cursor,
)
from harn.schedules.cursors import PREFIX as POLLS
from harn.schedules.cursors import CursorRecord, describe_unknown_poll, encode_cursor
from harn.schedules.operations import (
    ListSchedule,
    ScheduleList,
    describe,
    firing_triggers,
    list_schedule,
    sort_polls,
)
from harn.schedules.poll_entry import timed_of as timed_poll
from harn.schedules.service import PREFIX
from harn.schedules.ticks import TickRecord

COLUMNS = (
    Column("Trigger", lambda firing: firing.trigger_id),
    Column("Due", lambda firing: firing.local_at),
    Column("UTC", lambda firing: firing.at, drop=2),
    Column("Schedule", lambda firing: firing.schedule),
    Column("Zone", lambda firing: firing.timezone, drop=1),
    Column("Last fired", lambda firing: firing.last_fired_at, drop=3),
)


POLL_COLUMNS = (
    Column("Trigger", lambda poll: poll.trigger_id),
    Column("Cursor", lambda poll: shown_cursor(poll.cursor), wraps=True),
    Column("Last poll", lambda poll: poll.last_polled_at, drop=2),
    Column("Failures", lambda poll: poll.failures or None, drop=3, style="red"),
    Column("Last error", lambda poll: poll.last_error, drop=1, wraps=True),
)
DRY_RUN = {"dry_run": "Only say what would change: exit 0 nothing, 1 something, 2 problems."}
LONGEST_SHOWN = 200
"""Characters of a cursor that a table shows; ``--json`` and ``cursor`` have it whole."""


@click.command()
@with_place
@with_parameters(list_schedule)
@with_server
@with_json
def schedule(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """List the next firings of triggers with a schedule, the next one first; of polls their cursor and last error."""
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
        if found.polls:
            draw(Rows(title="Polls:", columns=POLL_COLUMNS, rows=found.polls))


def shown_cursor(cursor: Any) -> str:
    """Return a cursor as JSON, shortened; ``-`` for none yet."""
    if cursor is None:
        return "-"
    text = json.encode(cursor).decode()
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + " ..."


@click.command()
@with_place
@with_parameters(set_cursor, arguments=("trigger",), without=("cursor",), helps=DRY_RUN)
@click.option("--set", "value", metavar="JSON|@FILE|-", help="The cursor that the next call gets, as JSON.")
@with_server
@with_json
def cursor(target: ServerTarget, value: str | None, as_json: bool, **given: Any) -> None:
    """
    Show the cursor of the poll TRIGGER, or set the one that its next call gets.

    A call that runs is interrupted, unless it has returned already. Events that are found again under the same
    dedupe_key are dropped.
    """
    reset, dry_run = given["reset"], given["dry_run"]
    if value is None and not reset:
        if dry_run:
            raise click.UsageError("--dry-run needs --set or --reset")
        show_one(target, ShowCursor(trigger=given["trigger"]), as_json)
        return
    if value is not None and reset:
        raise click.UsageError("give --set or --reset, not both")
    with ending_dry_run(dry_run):
        chosen = None if value is None else read_json_data(value, "--set", "a text has quotes: --set '\"abc\"'")
        wanted = SetCursor(trigger=given["trigger"], cursor=chosen, reset=chosen is None, dry_run=dry_run)
        client = target.client_if_any()
        if client is None:
            done = set_stored(target.location, wanted, time.time())
        else:
            done = ask(client, set_cursor, wanted).result
        print_json(to_builtins(done)) if as_json else click.echo(describe_done(done))
    sys.exit(CHANGES if dry_run and done.changed else 0)


def show_one(target: ServerTarget, wanted: ShowCursor, as_json: bool) -> None:
    """Print a poll: its cursor whole, and how its last calls went."""
    client = target.client_if_any()
    if client is None:
        found = stored_poll(target.location, wanted.trigger, time.time())
    else:
        found = ask(client, show_cursor, wanted).result
    if as_json:
        print_json(to_builtins(found))
        return
    click.echo(f"cursor: {visible(json.encode(found.cursor).decode())}")
    click.echo(f"last poll: {found.last_polled_at or '-'}")
    if found.failures:
        click.echo(f"failures in a row: {found.failures}, the last at {found.last_failed_at}")
        click.echo(f"last error: {visible(found.last_error or '')}")


def describe_done(done: CursorChange) -> str:
    """Return the line for a change, made or planned."""
    before, after = shown_cursor(done.before), shown_cursor(done.cursor)
    if not done.changed:
        return visible(f"{done.trigger_id}: the cursor is {after} already")
    return visible(f"{done.trigger_id}: {before} -> {after}" + (" (not changed: dry run)" if done.dry_run else ""))


def stored_schedule(place: ServerLocation, wanted: ListSchedule, now: float) -> ScheduleList:
    """
    Return the ticks that would be due from ``now`` (seconds, Unix) on, if a server ran.

    Of the generation that served last; where none has, of the manifest's file.

    :raises EventLogUnavailable: the store cannot be read.
    :raises ManifestInvalid: no server has run yet, and the manifest is wrong.
    :raises RouteUnknown: the trigger has no schedule.
    """
    from harn.cli.sources import open_store

    records: Mapping[str, Any] = {}
    polled: Mapping[str, Any] = {}
    with suppress(StateDirectoryUnusable), open_store(place.state_dir) as store:
        records = store.ask(store.checkpoints.beginning(PREFIX))
        polled = store.ask(store.checkpoints.beginning(POLLS))
    specs = stored_manifest(place).triggers.values()
    timed = {each.id: timed_of(each.id, CronSettings.of(each.settings), now) for each in specs if each.kind == CRON}
    timed |= {each.id: timed_poll(each.id, PollSettings.of(each.settings), now) for each in specs if each.kind == POLL}
    read = {name.removeprefix(PREFIX): TickRecord.read(value) for name, value in records.items()}
    fired = {name: each.fired for name, each in read.items() if each is not None and each.fired is not None}
    found = describe(timed, fired, wanted)
    named = [each for each in firing_triggers(found) if POLLS + each in polled]
    polls = sort_polls(describe_poll(each, CursorRecord.of(polled[POLLS + each], now)) for each in named)
    return structs.replace(found, polls=polls)


def stored_manifest(place: ServerLocation) -> Manifest:
    """
    Return the manifest of the generation that served last; where none has, of the manifest's file.

    :raises EventLogUnavailable: the store cannot be read.
    :raises StateDirectoryUnusable: there is a database, and it is not harn's.
    :raises ManifestInvalid: no server has run yet, and the manifest is wrong.
    """
    from harn.cli.sources import StoredGenerations
    from harn.orchestrator.stores import has_store

    manifest: Manifest | None = None
    try:
        manifest = StoredGenerations(state_dir=place.state_dir, manifest=place.manifest).newest_manifest()
    except StateDirectoryUnusable:
        if has_store(place.state_dir, os.environ):
            raise
    return manifest or read_manifest_file(place)


def stored_poll(place: ServerLocation, trigger: str, now: float) -> PollInfo:
    """
    Return a stored poll.

    :param now: seconds, Unix.
    :raises RouteUnknown: there is no trigger of that id that polls.
    :raises StateDirectoryUnusable: no server has run yet.
    """
    from harn.cli.sources import open_store

    with open_store(place.state_dir) as store:
        value = store.ask(store.checkpoints.get(POLLS + trigger))
    polls = [each.id for each in stored_manifest(place).triggers.values() if each.kind == POLL]
    if trigger not in polls:
        raise RouteUnknown(describe_unknown_poll(trigger, polls))
    return describe_poll(trigger, CursorRecord.of(value, now))


def set_stored(place: ServerLocation, wanted: SetCursor, now: float) -> CursorChange:
    """
    Set the cursor of a poll while no server runs.

    :param now: seconds, Unix.
    :raises RouteUnknown: there is no trigger of that id that polls.
    :raises PayloadInvalid: the cursor is too long.
    :raises StateDirectoryUnusable: a server holds the directory, or none has run on it.
    """
    from harn.cli.offline import changing

    cursor = encode_cursor(wanted.cursor)
    done = describe_change(wanted, stored_poll(place, wanted.trigger, now).cursor)
    if wanted.dry_run:
        return done
    name = POLLS + wanted.trigger
    with changing(place.state_dir, set_cursor, wanted, {"set": int(done.changed)}, now) as writer:
        before = CursorRecord.of(writer.get_checkpoint(name), now)
        writer.put_checkpoint(name, CursorRecord(cursor=Raw(cursor), polled_at=before.polled_at).value())
    return done


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
