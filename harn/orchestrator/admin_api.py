"""The admin API of a server: what answers under ``/admin`` for the operations that its features have added."""

from __future__ import annotations

from harn.connectors.catalog import Catalog
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Intake
from harn.listener.admin import Admin
from harn.listener.admin_auth import AdminAuth
from harn.listener.admin_routes import AdminRoutes
from harn.listener.credentials import LiveCredentials
from harn.listener.site import HarnSite
from harn.observability.audit import Audit as PageAudit
from harn.orchestrator.operations import Operations as ServerOperations
from harn.orchestrator.recovery import Recovery
from harn.orchestrator.reload_operations import ReloadOperations
from harn.orchestrator.status import snapshot
from harn.reload.build import Builder
from harn.reload.coordinator import Coordinator
from harn.server import Server
from harn.triggers.registry import Registry


def install(server: Server) -> None:
    """Let the server's site answer under ``/admin``. Installed last: each feature before it may add operations."""
    coordinator, authenticator = server[Coordinator], server[LiveCredentials].admin_authenticator
    auth = AdminAuth(wall=server.wall, authenticator=authenticator, inbox=server.store)
    operations = ServerOperations(
        server.reactor,
        server.store,
        server[Registry],
        server[Intake],
        server[Dispatcher],
        coordinator,
        server[Recovery],
        lambda: snapshot(server)(),
        server.wall,
    )
    reload_operations = ReloadOperations(
        coordinator=coordinator,
        catalog=server[Catalog],
        manifest=server.options.manifest,
        in_thread=server[Builder].in_thread,
    )
    admin = Admin(
        server.wall,
        authenticator,
        server.store,
        PageAudit(wall=server.wall, note=server.note),
        coordinator,
        operations,
        reload_operations,
        AdminRoutes(auth, server.operations),
    )
    server[HarnSite].mount("/admin", admin)
