"""``harn orchestrator stats``: rates and percentiles of each trigger within a window of time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from harn.cli.client import ask
from harn.cli.offline import open_store
from harn.cli.options import parameters_from, with_json, with_parameters, with_place, with_server
from harn.cli.place import ServerLocation, ServerTarget
from harn.cli.rows import Column, Rows, draw, print_json, section
from harn.cli.triggers import recorded_triggers
from harn.statistics.operations import (
    WINDOW,
    Ended,
    HandlerStats,
    Percentiles,
    ShowStats,
    Stats,
    TriggerStats,
    describe_stats,
    show_stats,
)
from harn.statistics.window import LONGEST, Gathered
from harn.store.sqlite.connection import OfflineStore
from harn.store.sqlite.statistics import SQLiteStatistics


class StatsRow(msgspec.Struct, frozen=True):
    """A line of the table: a trigger, or one of its handlers where it has several."""

    name: str
    trigger: TriggerStats | None
    attempts: TriggerStats | HandlerStats


COLUMNS = (
    Column("Trigger", lambda line: line.name),
    Column("accepted", lambda line: line.trigger and line.trigger.accepted, is_right=True),
    Column("per minute", lambda line: line.trigger and f"{line.trigger.accepted_per_minute:g}", drop=3, is_right=True),
    Column("succeeded", lambda line: line.attempts.succeeded, drop=2, is_right=True),
    Column("failed", lambda line: line.attempts.failed, is_right=True),
    Column("dead", lambda line: line.trigger and line.trigger.dead, is_right=True),
    Column("skipped", lambda line: line.attempts.skipped, drop=6, is_right=True),
    Column("refused", lambda line: line.trigger and line.trigger.refused, drop=5, is_right=True),
    Column(
        "handler p50/p90/p99", lambda line: format_percentiles(line.attempts.handler_seconds), drop=1, is_right=True
    ),
    Column(
        "to done p50/p90/p99",
        lambda line: format_percentiles(line.attempts.accepted_to_done_seconds),
        drop=4,
        is_right=True,
    ),
)


@click.command()
@with_place
@with_parameters(show_stats)
@with_server
@with_json
def stats(as_json: bool, **given: Any) -> None:
    """Show rates and percentiles of each trigger and handler."""
    target = ServerTarget.of_options(given, os.environ)
    wanted = parameters_from(show_stats, given)
    client = target.client_if_any()
    if client is None:
        found = stats_offline(target.location, wanted)
        document = msgspec.to_builtins(found)
    else:
        answered = ask(client, show_stats, wanted)
        found, document = answered.result, answered.document
    if as_json:
        print_json(document)
        return
    if sys.stdout.isatty():
        draw(rows_of(found))
    else:
        for line in section(f"Statistics of the last {found.window}:", found.triggers):
            click.echo(line)
    if not found.complete:
        click.echo(f"estimated: {found.read_share:.1%} of the last {found.window} was read in time, evenly over it")


def stats_offline(place: ServerLocation, wanted: ShowStats) -> Stats:
    """
    Return the statistics of a server that does not run, from its store.

    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    :raises EventLogUnavailable: it cannot be read.
    :raises RouteUnknown: there is no such trigger.
    """
    until = time.time()
    since = until - (wanted.window or WINDOW)
    with open_store(place.state_dir) as store:
        gathered = gather(store, since)
        ended = Ended(store.ask(SQLiteStatistics.died, since), store.ask(SQLiteStatistics.refused, since))
        handlers = store.ask(SQLiteStatistics.handlers, tuple(gathered.attempts))
    return describe_stats(wanted, until, gathered, handlers, ended, recorded_triggers(place.state_dir))


def gather(store: OfflineStore, since: float) -> Gathered:
    """Read what is since then (seconds, Unix), or, where that takes too long, an even sample of it."""
    gathered = Gathered(
        store.ask(SQLiteStatistics.attempts_since, since), store.ask(SQLiteStatistics.deliveries_since, since)
    )
    began = time.monotonic()
    for part in gathered.parts():
        if part.share > 0.0 and time.monotonic() - began >= LONGEST:
            break
        if part.of_attempts:
            gathered.add_attempts(part, *store.ask(SQLiteStatistics.attempts, part.span, since))
        else:
            gathered.add_accepted(part, store.ask(SQLiteStatistics.accepted, part.span, since))
    return gathered


def rows_of(found: Stats) -> Rows:
    """Return statistics as rows for people: a line for each trigger, and for each handler of one that had several."""
    return Rows(
        title=f"Statistics of the last {found.window}:",
        heading=f"Statistics of the last {found.window}",
        columns=COLUMNS,
        rows=list(lines_of(found)),
        none="there are no triggers",
    )


def lines_of(found: Stats) -> Iterator[StatsRow]:
    """Yield the lines of the table."""
    for each in found.triggers:
        yield StatsRow(each.id, each, each)
        if len(each.handlers) > 1:
            yield from (StatsRow(f"  {handler.handler}", None, handler) for handler in each.handlers)


def format_percentiles(percentiles: Percentiles | None) -> str | None:
    """Return percentiles for people."""
    if percentiles is None:
        return None
    return " / ".join(duration(each) for each in (percentiles.p50, percentiles.p90, percentiles.p99))


def duration(seconds: float) -> str:
    """Return a duration for people: ``12.3ms``, ``1.5s``, ``7.2m``."""
    if seconds < 1.0:
        return f"{seconds * 1000.0:.3g}ms"
    if seconds < 120.0:
        return f"{seconds:.3g}s"
    return f"{seconds / 60.0:.3g}m" if seconds < 7200.0 else f"{seconds / 3600.0:.3g}h"
