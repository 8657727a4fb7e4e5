"""Background services of a server: heartbeat, retention, state file, orphans; what the process does at each reload."""

from __future__ import annotations

from harn.orchestrator.notices import ReloadNotices
from harn.orchestrator.process import Freezer
from harn.orchestrator.reaping import OrphanReaper, is_parent_of_orphans
from harn.orchestrator.state_file import StateFile, StateFileKeeper
from harn.reload.events import Adopted
from harn.rollout.rollouts import Rollouts
from harn.server import Server
from harn.store.heartbeat import HeartbeatService
from harn.store.retention import RetentionPolicy, RetentionService
from harn.systemd.notify import ServiceManager
from harn.triggers.registry import Registry


def install(server: Server) -> None:
    """Add the background services, and what follows each reload."""
    server.lifecycle.subscribe(Adopted, Freezer(server.reactor).adopted)
    ReloadNotices(server[ServiceManager], server.lifecycle)
    background = server.background
    background.add(HeartbeatService(server.reactor, server.store, wall=server.wall))
    background.add(RetentionService(server.reactor, server.store, lambda: retention_policy(server), wall=server.wall))
    background.add(StateFileKeeper(server.reactor, server[StateFile]))
    if is_parent_of_orphans():
        background.add(OrphanReaper(server.reactor))


def retention_policy(server: Server) -> RetentionPolicy:
    """Return what is trimmed now: by the settings, but nothing that a rollback may need."""
    retention, needed = server.settings.retention, server[Rollouts].needed()
    return RetentionPolicy(
        events=retention.events,
        dead=retention.dead,
        max_bytes=retention.max_bytes,
        generations=retention.generations,
        kept=needed.generations,
        versions=needed.versions,
        triggers=tuple(server[Registry].active),
    )
