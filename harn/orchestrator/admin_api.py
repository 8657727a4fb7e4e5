"""The admin API of a server: its operations, beside those that other features have added, and its routes."""

from __future__ import annotations

from harn.dispatch import operations as dispatch_operations
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Intake
from harn.dispatch.synthetic import Example, SyntheticEvents
from harn.listener.admin import Admin
from harn.listener.admin_auth import AdminAuth
from harn.listener.credentials import LiveCredentials
from harn.listener.site import HarnSite
from harn.operations.openapi import show_api
from harn.orchestrator import operations as server_operations
from harn.orchestrator.operations import ServerService
from harn.orchestrator.recovery import Recovery
from harn.orchestrator.status import snapshot
from harn.reload.coordinator import Coordinator
from harn.server import Server
from harn.statistics.backlogs import Backlogs
from harn.triggers.registry import Registry


def install(server: Server) -> None:
    """Mount the admin API at ``/admin``. Installed last: each feature before it may add operations."""
    coordinator, operations = server[Coordinator], server.operations
    whole = ServerService(
        store=server.store,
        metrics=server.metrics,
        registry=server[Registry],
        dispatcher=server[Dispatcher],
        coordinator=coordinator,
        recovery=server[Recovery],
        backlogs=server[Backlogs],
        document=lambda: snapshot(server)(),
    )
    operations.add(whole, *server_operations.OPERATIONS)
    operations.add(synthetic_events(server), *dispatch_operations.OPERATIONS)
    operations.add(operations, show_api)
    auth = AdminAuth(
        wall=server.wall, authenticator=server[LiveCredentials].admin_authenticator, inbox=server.store.inbox
    )
    server[HarnSite].mount("/admin", Admin(auth, operations))


def synthetic_events(server: Server) -> SyntheticEvents:
    """Return the maker of synthetic events, with the examples of the live connectors."""
    coordinator = server[Coordinator]

    def example(trigger_id: str) -> Example | None:
        live = coordinator.current
        return live.connectors[trigger_id].value.example if live is not None and trigger_id in live.connectors else None

    return SyntheticEvents(server.reactor, server.wall, server[Registry], server[Intake], server[Dispatcher], example)
