"""Schedules as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

from harn.connectors.interfaces import IEventSink
from harn.lifecycle import VersionEnded
from harn.observability.metrics import Metrics
from harn.reload.interfaces import Adopted, ReloadsClosed
from harn.schedules.operations import OPERATIONS
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
    server.background.add(schedules)
    server.operations.add(schedules, *OPERATIONS)
    server.lifecycle.subscribe(Adopted, lambda event: adopted(schedules, event))
    server.lifecycle.subscribe(VersionEnded, lambda event: schedules.sync([event.trigger_id]))
    server.lifecycle.subscribe(ReloadsClosed, lambda event: schedules.pause())
    add_gauges(server.metrics, schedules)


def adopted(schedules: Schedules, event: Adopted) -> None:
    """Follow a reload."""
    plan = event.candidate.plan
    schedules.sync((*plan.added, *plan.modified, *plan.removed))


def add_gauges(metrics: Metrics, schedules: Schedules) -> None:
    """Add the gauges of schedules."""
    metrics.gauge(
        "harn_schedule_next_timestamp_seconds",
        "When a trigger with a schedule fires next.",
        lambda: {
            (trigger_id,): at for trigger_id in schedules.entries if (at := schedules.next_of(trigger_id)) is not None
        },
        ("trigger_id",),
    )
    metrics.gauge(
        "harn_schedule_missed",
        "Ticks of a schedule that were missed and passed over, counted once for each time without a server.",
        lambda: {(trigger_id,): float(entry.missed) for trigger_id, entry in schedules.entries.items()},
        ("trigger_id",),
    )
