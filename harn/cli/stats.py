"""
``harn orchestrator stats`` and ``top``: rates and percentiles of each trigger, within a window of time or now.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol

import click
import msgspec
from msgspec import Struct

from harn.cli.client import ask
from harn.cli.options import parameters_from, with_json, with_parameters, with_place
from harn.cli.place import (
    Keys,
    ServerLocation,
    ServerTarget,
    Sleep,
    Wait,
    may_come_back,
    recorded_triggers,
    with_server,
)
from harn.cli.rows import Column, Rows, draw, print_json, section
from harn.cli.sources import open_store
from harn.errors import HarnError
from harn.statistics.figures import LONGEST, Gathered
from harn.statistics.operations import (
    WINDOW,
    Activity,
    Ended,
    HandlerStats,
    Percentiles,
    ShowActivity,
    ShowStats,
    Stats,
    TriggerActivity,
    TriggerStats,
    describe_stats,
    show_activity,
    show_stats,
)
from harn.store.offline import OfflineStore


class StatsRow(msgspec.Struct, frozen=True):
    """A line of the table: a trigger, or one of its handlers where it has several."""

    name: str
    trigger: TriggerStats | None
    attempts: TriggerStats | HandlerStats


STATS_COLUMNS = (
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
def stats(target: ServerTarget, as_json: bool, **given: Any) -> None:
    """Show rates and percentiles of each trigger and handler."""
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
        draw(statistics_rows(found))
    else:
        for line in section(f"Statistics of the last {found.window}:", found.triggers):
            click.echo(line)
    if not found.complete:
        click.echo(
            f"estimated: {found.read_share:.1%} of the last {found.window} was read in time, evenly over it; triggers"
            " with few deliveries may be shown with none: choose a shorter --window to read all of it"
        )


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
        ended = Ended(store.ask(store.statistics.died(since)), store.ask(store.statistics.refused(since)))
        handlers = store.ask(store.statistics.handlers(tuple(gathered.attempts)))
    return describe_stats(wanted, until, gathered, handlers, ended, recorded_triggers(place.state_dir))


def gather(store: OfflineStore, since: float) -> Gathered:
    """Read the attempts since then (seconds, Unix), or, where that takes too long, an even sample of them."""
    gathered = Gathered(
        store.ask(store.statistics.attempts_since(since)), store.ask(store.statistics.deliveries_since(since))
    )
    began = time.monotonic()
    for part in gathered.parts():
        if part.share > 0.0 and time.monotonic() - began >= LONGEST:
            break
        if part.of_attempts:
            gathered.add_attempts(part, *store.ask(store.statistics.attempts(part.span, since)))
        else:
            gathered.add_accepted(part, store.ask(store.statistics.accepted(part.span, since)))
    return gathered


def statistics_rows(found: Stats) -> Rows:
    """Return statistics as rows for people: a line for each trigger, and for each handler of one that had several."""
    return Rows(
        title=f"Statistics of the last {found.window}:",
        heading=f"Statistics of the last {found.window}",
        columns=STATS_COLUMNS,
        rows=list(stats_rows(found)),
        none="there are no triggers",
    )


def stats_rows(found: Stats) -> Iterator[StatsRow]:
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


INTERVAL = 1.0
"""Seconds between two looks."""
RATES = 5.0
"""Seconds over which rates are taken, at least two looks."""
LATELY = 60.0
"""Seconds over which percentiles are taken."""
AWAY = "the server does not answer; looking for it until it does, or q"


class ActivityRow(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger in one frame: rates a second, percentiles in seconds."""

    trigger: str
    accepted_per_second: float
    done_per_second: float
    failed_per_second: float
    running: int
    ready: int
    waiting: int
    dead: int
    p50: float | None
    p99: float | None
    oldest_ready_seconds: float | None


ACTIVITY_COLUMNS = (
    Column("Trigger", lambda line: line.trigger, style="bold"),
    Column("accepted/s", lambda line: f"{line.accepted_per_second:.3g}", is_right=True),
    Column("done/s", lambda line: f"{line.done_per_second:.3g}", drop=2, is_right=True),
    Column("failed/s", lambda line: f"{line.failed_per_second:.3g}", drop=3, is_right=True),
    Column("running", lambda line: line.running, drop=1, is_right=True),
    Column("ready", lambda line: line.ready, drop=4, is_right=True),
    Column("waiting", lambda line: line.waiting, drop=5, is_right=True),
    Column("dead", lambda line: line.dead, is_right=True),
    Column("p50", lambda line: line.p50 and duration(float(f"{line.p50:.2e}")), drop=7, is_right=True),
    Column("p99", lambda line: line.p99 and duration(float(f"{line.p99:.2e}")), drop=6, is_right=True),
    Column(
        "oldest ready",
        lambda line: line.oldest_ready_seconds and duration(float(f"{line.oldest_ready_seconds:.2e}")),
        drop=8,
        is_right=True,
    ),
)


@click.command()
@with_place
@click.option("--once", is_flag=True, help="Show one frame, and end; so it does where the output is not a terminal.")
@with_server
@with_json
def top(target: ServerTarget, once: bool, as_json: bool) -> None:
    """Watch the activity of each trigger; q or Ctrl-C ends it."""
    target.client()  # without a server it ends here

    try:
        if once or as_json or not sys.stdout.isatty():
            show_once(ServerActivity(target), Sleep(), as_json=as_json)
            return
        from harn.cli.terminal import watch_screen

        with Keys() as keys:
            watch_screen(frames(ServerActivity(target), keys))
    except KeyboardInterrupt:
        return


class ActivitySource(Protocol):
    """A source of the activity of triggers."""

    def read(self) -> Activity:
        """
        Return that as it is now.

        :raises HarnError: it cannot be read.
        """


class ServerActivity(Struct, frozen=True):
    """The activity of a server's triggers; the server is located for each look."""

    target: ServerTarget

    def read(self) -> Activity:
        """See `ActivitySource.read`."""
        found: Activity = ask(self.target.client(), show_activity, ShowActivity()).result
        return found


def show_once(source: ActivitySource, pause: Wait, *, as_json: bool) -> None:
    """Print one frame: rates need two looks."""
    before = source.read()
    pause.wait(INTERVAL)
    lines = activity_rows((before, source.read()))
    if as_json:
        print_json({"triggers": msgspec.to_builtins(lines)})
    else:
        draw(frame(lines, ""))


def frames(source: ActivitySource, pause: Wait) -> Iterator[Rows]:
    """
    Yield a frame for each look, until the user ends it.

    :raises HarnError: the server refuses to answer; one that is restarted is looked for.
    """
    looks: deque[Activity] = deque()
    heading = ""
    while True:
        try:
            found = source.read()
        except HarnError as error:
            if not may_come_back(error):
                raise
            heading = AWAY
        else:
            heading = f"generation {found.generation}   q ends"
            if looks and is_of_another(looks[-1], found):
                looks.clear()
            looks.append(found)
            while looks[0].at < found.at - LATELY:
                looks.popleft()
        yield frame(activity_rows(looks), heading)
        if pause.wait(INTERVAL):
            return


def is_of_another(before: Activity, now: Activity) -> bool:
    """Return whether a server was started between two looks, so that counts began at 0."""
    counts = {each.id: each.accepted for each in before.triggers}
    return now.at < before.at or any(each.accepted < counts.get(each.id, 0) for each in now.triggers)


def frame(lines: Sequence[ActivityRow], heading: str) -> Rows:
    """Return a frame as rows, the busiest trigger first."""
    busiest = sorted(
        lines, key=lambda line: (-line.running - line.ready, -line.accepted_per_second, -line.dead, line.trigger)
    )
    return Rows(
        title="Triggers:", heading=heading, columns=ACTIVITY_COLUMNS, rows=busiest, none="there are no triggers"
    )


def activity_rows(looks: Sequence[Activity]) -> Sequence[ActivityRow]:
    """Return the last of some looks as rows: rates over the last seconds, percentiles over all of them."""
    if not looks:
        return ()
    now = looks[-1]
    recent = next((each for each in looks if each.at >= now.at - RATES), now)
    then, oldest = ({each.id: each for each in look.triggers} for look in (recent, looks[0]))
    seconds = max(now.at - recent.at, 1e-9)
    return tuple(
        line_of(each, then.get(each.id, each), oldest.get(each.id, each), seconds, now.bounds) for each in now.triggers
    )


def line_of(
    now: TriggerActivity, then: TriggerActivity, oldest: TriggerActivity, seconds: float, bounds: Sequence[float]
) -> ActivityRow:
    """Return the line of a trigger from three looks at it: now, ``seconds`` ago, and the oldest."""
    since = [new - old for new, old in zip(now.handler_buckets, oldest.handler_buckets, strict=True)]
    return ActivityRow(
        trigger=now.id,
        accepted_per_second=(now.accepted - then.accepted) / seconds,
        done_per_second=(now.succeeded - then.succeeded) / seconds,
        failed_per_second=(now.failed - then.failed) / seconds,
        running=now.running,
        ready=now.ready,
        waiting=now.waiting,
        dead=now.dead,
        p50=quantile(0.5, bounds, since),
        p99=quantile(0.99, bounds, since),
        oldest_ready_seconds=now.oldest_ready_seconds,
    )


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """
    Return a quantile of a histogram as Prometheus does: linear within a bucket; None without observations.

    :param counts: observations in each bucket, and last of those above all bounds.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    for number, up_to in enumerate(accumulate(counts)):
        if up_to >= wanted and counts[number]:
            if number == len(bounds):
                break
            low = bounds[number - 1] if number else 0.0
            return low + (bounds[number] - low) * (wanted - (up_to - counts[number])) / counts[number]
    return bounds[-1]
