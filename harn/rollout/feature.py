"""Rollouts as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

from harn.dispatch.dispatcher import Dispatcher
from harn.reload.build import Builder
from harn.reload.coordinator import Coordinator
from harn.rollout.operations import OPERATIONS, RolloutService
from harn.rollout.reverting import Reverter
from harn.rollout.rollouts import Rollouts
from harn.rollout.startup import Startup
from harn.server import Server
from harn.triggers.registry import Registry


def install(server: Server) -> None:
    """Add automatic rollback and ramps of the live generation, and the start of the first one."""
    coordinator, registry = server[Coordinator], server[Registry]
    rollouts = server.add(
        Rollouts(
            server.reactor,
            server.wall,
            server.store.generations,
            server.store.checkpoints,
            registry,
            coordinator,
            server.lifecycle,
        )
    )
    dispatcher, probations = server[Dispatcher], rollouts.probations
    server.add(Reverter(server.reactor, registry, dispatcher, coordinator, probations, server.lifecycle))
    server.add(
        Startup(
            coordinator=coordinator,
            rollouts=rollouts,
            builder=server[Builder],
            last_good=server.options.last_good,
        )
    )
    server.operations.add(RolloutService(rollouts=rollouts, coordinator=coordinator), *OPERATIONS)
