"""Background services of a server: heartbeat, retention, the state file, orphans."""

from __future__ import annotations

from harn.orchestrator.reaping import OrphanReaper, is_parent_of_orphans
from harn.orchestrator.state_file import StateFile, StateFileKeeper
from harn.rollout.rollouts import Rollouts
from harn.server import Server
from harn.store.heartbeat import HeartbeatService
from harn.store.retention import RetentionPolicy, RetentionService


def install(server: Server) -> None:
    """Add the background services."""
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
    )
