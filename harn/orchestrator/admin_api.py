"""The admin API of a server as features: the operations on the server as a whole, synthetic events, the routes."""

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


def install_server_operations(server: Server) -> None:
    """Add the operations on the server as a whole."""
    whole = ServerService(
        store=server.store,
        metrics=server.metrics,
        registry=server[Registry],
        dispatcher=server[Dispatcher],
        coordinator=server[Coordinator],
        recovery=server[Recovery],
        backlogs=server[Backlogs],
        document=lambda: snapshot(server)(),
    )
    server.operations.add(whole, *server_operations.OPERATIONS)


def install_synthetic_events(server: Server) -> None:
    """Add the operations that send synthetic events, made from the examples of the live connectors."""
    coordinator = server[Coordinator]

    def example(trigger_id: str) -> Example | None:
        live = coordinator.current
        return live.connectors[trigger_id].value.example if live is not None and trigger_id in live.connectors else None

    events = SyntheticEvents(server.reactor, server.wall, server[Registry], server[Intake], server[Dispatcher], example)
    server.operations.add(events, *dispatch_operations.OPERATIONS)


def install(server: Server) -> None:
    """Mount the admin API at ``/admin``. Installed last: each feature before it may add operations."""
    operations = server.operations
    operations.add(operations, show_api)
    auth = AdminAuth(
        wall=server.wall, authenticator=server[LiveCredentials].admin_authenticator, inbox=server.store.inbox
    )
    server[HarnSite].mount("/admin", Admin(auth, operations))
