"""The history of a server's generations, and plans of the next one."""

from __future__ import annotations

from harn.history.operations import OPERATIONS, HistoryService
from harn.history.plan import Planner
from harn.history.replay import RuleReplayer
from harn.reload.build import Builder
from harn.reload.coordinator import Coordinator
from harn.reload.interfaces import IPlanner
from harn.server import Server
from harn.triggers.interfaces import IVersionDeliveries
from harn.triggers.registry import Registry


def install_planner(server: Server) -> None:
    """Add the planner of dry runs, which the reload feature needs."""
    replayer = RuleReplayer(server.store.deliveries, server.threads)
    server.add(Planner(server[Registry], server[IVersionDeliveries], replayer, server.threads), IPlanner)


def install(server: Server) -> None:
    """Add the operations on the generations that served."""
    service = HistoryService(
        store=server.store.generations,
        coordinator=server[Coordinator],
        rules=server[Builder].rules(),
        manifest=server.options.manifest,
        threads=server.threads,
    )
    server.operations.add(service, *OPERATIONS)
