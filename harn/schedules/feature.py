"""Schedules as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

from collections.abc import Sequence

from harn.connectors.interfaces import IEventSink
from harn.lifecycle import ServersSeen, VersionEnded
from harn.observability.metrics import Metrics
from harn.reload.adopt import LiveGeneration
from harn.reload.interfaces import Adopted, ReloadsClosed
from harn.schedules.operations import OPERATIONS, TimedTriggers
from harn.schedules.polls import PollClocks, Polls
from harn.schedules.service import Schedules
from harn.server import Server
from harn.triggers.registry import Registry


def install(server: Server, *, takes_over: bool = False) -> None:
    """
    Add the schedules, which run while the server serves, with their operation and gauges.

    :param takes_over: the server takes the place of another program.
    """
    schedules = server.add(
        Schedules(
            server.reactor,
            server.wall,
            server.store.checkpoints,
            server[Registry],
            server[IEventSink],
            takes_over=takes_over,
        )
    )
    polls = server.add(
        Polls(
            PollClocks(server.reactor, server.wall),
            server.store.checkpoints,
            server[Registry],
            server[LiveGeneration],
            server[IEventSink],
        )
    )
    for service in (schedules, polls):
        server.background.add(service)
    server.operations.add(TimedTriggers(schedules, polls), *OPERATIONS)
    server.lifecycle.subscribe(ServersSeen, lambda event: polls.lead(leads=event.leads))
    server.lifecycle.subscribe(Adopted, lambda event: adopted(schedules, polls, event))
    server.lifecycle.subscribe(VersionEnded, lambda event: sync(schedules, polls, [event.trigger_id]))
    server.lifecycle.subscribe(ReloadsClosed, lambda event: pause(schedules, polls))
    add_gauges(server.metrics, schedules, polls)


def adopted(schedules: Schedules, polls: Polls, event: Adopted) -> None:
    """Follow a reload: of the triggers that it changed, those that have a schedule or had one."""
    plan, known = event.candidate.plan, {*schedules.entries, *polls.entries}
    gone = {*plan.removed} if known else ()
    before = [each for each in known if each in plan.changes or each in gone]
    sync(schedules, polls, [*before, *event.candidate.scheduled])


def sync(schedules: Schedules, polls: Polls, trigger_ids: Sequence[str]) -> None:
    """Apply the changes of these triggers."""
    schedules.sync(trigger_ids)
    polls.sync(trigger_ids)


def pause(schedules: Schedules, polls: Polls) -> None:
    """Start nothing more."""
    schedules.pause()
    polls.pause()


def add_gauges(metrics: Metrics, schedules: Schedules, polls: Polls) -> None:
    """Add the gauges of schedules and polls."""
    metrics.gauge(
        "harn_schedule_next_timestamp_seconds",
        "When a trigger with a schedule fires next, or polls.",
        lambda: {
            (trigger_id,): at
            for service in (schedules, polls)
            for trigger_id in service.entries
            if (at := service.next_of(trigger_id)) is not None
        },
        ("trigger_id",),
    )
    metrics.gauge(
        "harn_schedule_missed",
        "Ticks of a schedule that were missed and passed over, counted once for each time without a server.",
        lambda: {(trigger_id,): float(entry.missed) for trigger_id, entry in schedules.entries.items()},
        ("trigger_id",),
    )
    metrics.gauge(
        "harn_polls",
        "Calls of a trigger's poll function since the server started, those that failed included.",
        lambda: {(trigger_id,): float(entry.calls) for trigger_id, entry in polls.entries.items()},
        ("trigger_id",),
    )
    metrics.gauge(
        "harn_poll_failures",
        "Calls of a trigger's poll function that failed since the server started.",
        lambda: {(trigger_id,): float(entry.failed) for trigger_id, entry in polls.entries.items()},
        ("trigger_id",),
    )
