"""Statistics as features of a server; see `harn.server.Server`."""

from __future__ import annotations

from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import INBOX_TOPIC
from harn.lifecycle import ServersSeen
from harn.reload.interfaces import Adopted
from harn.server import Server
from harn.statistics.gauges import Backlogs, DiskWatch, add_disk_gauges, add_gauges
from harn.statistics.operations import OPERATIONS, StatisticsService
from harn.statistics.totals import TotalsFlusher, TriggerTotals
from harn.triggers.registry import Registry


def install_totals(server: Server, *, takes_over: bool = False) -> None:
    """
    Add the totals of triggers. Called before the features that count, so that the totals end after these.

    :param takes_over: whether this server replaces another program, which still serves and adds its own counts.
    """
    totals = server.add(
        TriggerTotals(server.reactor, server.wall, server.store.totals, server.metrics, takes_over=takes_over)
    )
    server.lifecycle.subscribe(ServersSeen, lambda event: totals.leave_to_others() if event.others else None)
    server.lifecycle.subscribe(Adopted, lambda event: totals.begin())
    server.background.add(TotalsFlusher(server.reactor, totals))
    server.services.add_closing(totals)


def install(server: Server) -> None:
    """Add the backlogs of triggers, the operations that show statistics, and the use of the disk, with their gauges."""
    backlogs = server.add(
        Backlogs(
            server.reactor, server.wall, server.store.totals, server[Dispatcher], server[Registry], server.lifecycle
        )
    )
    server.lifecycle.subscribe(Adopted, lambda event: backlogs.begin())
    server.background.add(backlogs)
    add_gauges(server.metrics, server.wall, backlogs)
    service = StatisticsService(
        clock=server.reactor,
        wall=server.wall,
        store=server.store.statistics,
        totals=server[TriggerTotals],
        backlogs=backlogs,
        registry=server[Registry],
        metrics=server.metrics,
    )
    server.operations.add(service, *OPERATIONS)
    server.metrics.appends_of(INBOX_TOPIC)
    disk = DiskWatch(server)
    server.background.add(disk)
    add_disk_gauges(server.metrics, disk)
