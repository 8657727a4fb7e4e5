"""
Background services of a server: heartbeat, retention, state file, orphans; what the process does at each reload.

Orphans that end become children of the server where it is process 1 of a container. Twisted reaps the processes that it
started, and a guard those of handlers (`harn.vm.child.guard`). The rest are processes of others, such as a command of
``docker exec`` that left some running.
"""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from twisted.internet.process import reapProcessHandlers
from twisted.logger import Logger

from harn.lifecycle import ServerStarted
from harn.orchestrator.process import Freezer, import_early
from harn.orchestrator.state_file import StateFile, StateFileKeeper
from harn.processes import adopts_orphans, children_of, is_ended
from harn.reload.events import Adopted
from harn.rollout.rollouts import Rollouts
from harn.server import Server
from harn.store.recovery import HeartbeatService
from harn.store.retention import RetentionPolicy, RetentionService
from harn.triggers.registry import Registry

log = Logger(namespace="harn")
INTERVAL = 5.0
"""Seconds between two looks; what has ended and was not reaped at two of them is an orphan."""


def install(server: Server) -> None:
    """Add the background services, and what follows each reload."""
    server.lifecycle.subscribe(Adopted, Freezer(server.reactor).adopted)
    server.lifecycle.subscribe(ServerStarted, lambda event: server.reactor.callInThread(import_early))
    background = server.background
    background.add(HeartbeatService(server.reactor, server.store, wall=server.wall))
    background.add(RetentionService(server.reactor, server.store, lambda: retention_policy(server), wall=server.wall))
    background.add(StateFileKeeper(server.reactor, server[StateFile]))
    if is_parent_of_orphans():
        background.add(OrphanReaper(server.reactor, Children()))


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


def is_parent_of_orphans() -> bool:
    """Return whether this process is given those that have lost their parent."""
    return os.getpid() == 1 or adopts_orphans()


class Children:
    """The children of this process."""

    def ended(self) -> list[int]:
        """Return the process ids of those that have ended and were not reaped."""
        return [each for each in children_of(os.getpid()) if is_ended(each)]

    def reap(self, pid: int) -> None:
        """Reap one that has ended."""
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


class OrphanReaper(TimerService):
    """
    Reaps orphans, but never a process that Twisted waits for, nor one that other code is about to reap.

    :param awaited: the process ids that Twisted waits for.
    """

    def __init__(self, clock: IReactorTime, children: Children, awaited: Container[int] = reapProcessHandlers) -> None:
        TimerService.__init__(self, INTERVAL, self.look)
        self.clock: IReactorTime = clock
        self._children = children
        self._awaited = awaited
        self._seen: set[int] = set()

    def look(self) -> None:
        """Reap what had ended at the last look too."""
        ended = {each for each in self._children.ended() if each not in self._awaited}
        orphans = ended & self._seen
        self._seen = ended - orphans
        for each in orphans:
            self._children.reap(each)
        if orphans:
            log.debug("{count} orphans were reaped", count=len(orphans))
