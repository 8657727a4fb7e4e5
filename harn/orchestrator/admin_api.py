"""The admin API of a server: the operations of every room, each with the service that it asks."""

from __future__ import annotations

from harn.connectors.catalog import Catalog
from harn.dispatch.intake import Intake
from harn.listener.admin import Admin
from harn.listener.admin_auth import AdminAuth
from harn.listener.admin_routes import AdminRoutes
from harn.observability.audit import Audit as PageAudit
from harn.operations.audit import Audit
from harn.operations.registry import Operations
from harn.orchestrator.operations import Operations as ServerOperations
from harn.orchestrator.parts import Parts
from harn.orchestrator.reload_operations import ReloadOperations
from harn.orchestrator.settings import LiveSettings
from harn.reload import drain_operations
from harn.reload.archive import InThread
from harn.reload.drain_operations import DrainService
from harn.rollout import operations as rollout_operations
from harn.rollout.operations import RolloutService
from harn.rollout.trials import Trials


def mount_admin_api(
    parts: Parts, settings: LiveSettings, trials: Trials, intake: Intake, catalog: Catalog, in_thread: InThread
) -> None:
    """Let the server's site answer under ``/admin``."""
    operations = make_operations(parts, trials)
    auth = AdminAuth(wall=parts.wall, authenticator=settings.admin_authenticator, inbox=parts.store)
    admin = Admin(
        parts.wall,
        settings.admin_authenticator,
        parts.store,
        PageAudit(wall=parts.wall, note=parts.publisher.note),
        parts.coordinator,
        ServerOperations(
            parts.reactor,
            parts.store,
            parts.registry,
            intake,
            parts.dispatcher,
            parts.coordinator,
            parts.recovery,
            lambda: parts.snapshot()(),
            parts.wall,
        ),
        ReloadOperations(
            coordinator=parts.coordinator, catalog=catalog, manifest=parts.options.manifest, in_thread=in_thread
        ),
        AdminRoutes(auth, operations),
    )
    parts.site.mount("/admin", admin)


def make_operations(parts: Parts, trials: Trials) -> Operations:
    """Return the operations of a server."""
    operations = Operations(Audit(wall=parts.wall, note=parts.publisher.note))
    operations.add(
        DrainService(
            wall=parts.wall,
            store=parts.store,
            registry=parts.registry,
            dispatcher=parts.dispatcher,
            drains=parts.drains,
        ),
        *drain_operations.OPERATIONS,
    )
    operations.add(RolloutService(trials=trials, coordinator=parts.coordinator), *rollout_operations.OPERATIONS)
    return operations
