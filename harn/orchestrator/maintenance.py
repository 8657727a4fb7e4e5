"""
Background services of a server: heartbeat, retention, state file, orphans; and settings of its process: the
interpreter's switch interval, the garbage collector.

Where the server is process 1 of a container, processes that lose their parent become its children. Twisted reaps the
processes that it started, and a guard reaps those of handlers (`harn.vm.child.guard`). The others come from outside,
for example from a command of ``docker exec`` that left processes running.

A full garbage collection walks every object of the live generation, and no request is served meanwhile. So all objects
that are alive are frozen after start-up, and after adopts that brought many new bindings: no later collection walks
them. A frozen object is freed only by its reference count, which is why generations hold no cycles.

Objects are not frozen after every adopt. An object in a cycle that is needed only for a moment (a request that Klein
serves, the last task of a pool's thread) is never freed if it is frozen at that moment. A reload that changes one
trigger adds less work to a collection than such a loss would cost.

The collector is off while a server starts: nearly all objects that a start makes stay alive, and walking them again and
again took a seventh of the start's processor time.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Container
from contextlib import suppress
from importlib import import_module

from msgspec import Struct
from twisted.application.internet import TimerService
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.process import reapProcessHandlers
from twisted.logger import Logger
from zope.interface import implementer

from harn.lifecycle import ServerStarted
from harn.listener.admin import Admin
from harn.listener.push import Push
from harn.orchestrator.state_directory import StateFile, StateFileKeeper
from harn.processes import adopts_orphans, children_of, is_ended
from harn.reload.interfaces import Adopted, ReloadBegan, ReloadEnded
from harn.rollout.rollouts import Rollouts
from harn.server import Server
from harn.store.recovery import HeartbeatService
from harn.store.retention import IRetentionRules, RetentionPolicy, RetentionService
from harn.triggers.registry import Registry

log = Logger(namespace="harn")


INTERVAL = 5.0
"""Seconds between two checks. A process that has ended and was not reaped at two checks in a row is an orphan."""


def install(server: Server) -> None:
    """Add the background services, and the freezer that follows reloads."""
    freezer = Freezer(server.reactor)
    server.services.add_closing(freezer)
    server.lifecycle.subscribe(Adopted, freezer.adopted)
    server.lifecycle.subscribe(ReloadBegan, freezer.reload_began)
    server.lifecycle.subscribe(ReloadEnded, freezer.reload_ended)
    server.lifecycle.subscribe(ServerStarted, lambda event: finish_start(server, freezer))
    background = server.background
    if not server.store.is_shared:  # a shared store's membership sends the heartbeats
        background.add(HeartbeatService(server.reactor, server.store, wall=server.wall))
    background.add(RetentionService(server.reactor, server.store, RetentionRules(server), wall=server.wall))
    background.add(StateFileKeeper(server.reactor, server[StateFile]))
    if is_parent_of_orphans():
        background.add(OrphanReaper(server.reactor, Children()))


def finish_start(server: Server, freezer: Freezer) -> None:
    """Load in a thread the modules and pages that the start did not wait for; then freeze all objects."""

    def load() -> None:
        import_early()
        server[Admin].load()
        server[Push].load()

    loading = server.threads.call(load)
    loading.addErrback(lambda failure: log.failure("modules for later requests cannot be loaded", failure))
    loading.addCallback(lambda _: freezer.begin())


@implementer(IRetentionRules)
class RetentionRules(Struct, frozen=True):
    """The retention rules: the settings of the live generation, and the generations that a rollback may need."""

    server: Server

    def policy(self) -> RetentionPolicy:
        """See `IRetentionRules.policy`."""
        retention, needed = self.server.settings.retention, self.server[Rollouts].needed()
        return RetentionPolicy(
            events=retention.events,
            dead=retention.dead,
            max_bytes=retention.max_bytes,
            generations=retention.generations,
            kept=needed.generations,
            versions=needed.versions,
            triggers=tuple(self.server[Registry].active),
        )


def is_parent_of_orphans() -> bool:
    """Return whether processes that have lost their parent become children of this one."""
    return os.getpid() == 1 or adopts_orphans()


class Children:
    """The children of this process."""

    def ended(self) -> list[int]:
        """Return the process ids of the children that have ended and were not reaped."""
        return [each for each in children_of(os.getpid()) if is_ended(each)]

    def reap(self, pid: int) -> None:
        """Reap a child that has ended."""
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


class OrphanReaper(TimerService):
    """
    Reaps orphans, except processes that Twisted waits for and those that other code is about to reap.

    :param awaited: the process ids that Twisted waits for.
    """

    def __init__(self, clock: IReactorTime, children: Children, awaited: Container[int] = reapProcessHandlers) -> None:
        TimerService.__init__(self, INTERVAL, self.look)
        self.clock: IReactorTime = clock
        self._children = children
        self._awaited = awaited
        self._seen: set[int] = set()

    def look(self) -> None:
        """Reap the processes that had already ended at the previous check."""
        ended = {each for each in self._children.ended() if each not in self._awaited}
        orphans = ended & self._seen
        self._seen = ended - orphans
        for each in orphans:
            self._children.reap(each)
        if orphans:
            log.debug("{count} orphans were reaped", count=len(orphans))


SWITCH_INTERVAL = 0.0005
"""
Seconds that a thread may keep the interpreter's lock while the reactor waits for it. A reload computes in a thread;
with Python's default interval (5 ms) the reactor may wait that long each time it wakes up during a reload.
"""


LATE = ("harn.observability.exposition", "harn.listener.klein_pages", "treq.client", "encodings.idna")
"""Modules that are imported after the start, so that their first use does not have to import them."""


def set_switch_interval() -> None:
    """Make threads hand the interpreter's lock over sooner."""
    sys.setswitchinterval(SWITCH_INTERVAL)


def import_early() -> None:
    """Import `LATE` while file descriptors are available to read modules. Slow: called in a thread."""
    for name in LATE:
        import_module(name)


AFTER_REPORT = 0.1
"""Seconds after the end of a reload within which its report is sent."""
FREEZE_AFTER = 500
"""The number of new binding versions since the last freeze from which on freezing again pays."""


class Freezer:
    """
    Freezes all objects after the start, and after adopts once they have brought `FREEZE_AFTER` new versions.

    It does so in a later turn of the reactor, once for all adopts before that turn. The collector is off during a
    reload, whose new objects stay alive, and walks them once, after the report. A reload that brings thousands of
    versions is frozen without a collection before: that would walk just these versions, and the only garbage is the
    little that the reload itself left.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_begun = self._is_reloading = False
        self._is_due = False
        self._collects = False
        self._fresh = self._live = 0
        self._resuming: IDelayedCall | None = None

    def begin(self) -> None:
        """Freeze the objects that the start has made. Nothing is frozen before this call."""
        self._is_begun = self._collects = True
        self._plan()

    def close(self) -> None:
        """Start the collector; reloads that end later leave it on."""
        if self._is_begun:
            self._is_begun = False
            resuming, self._resuming = self._resuming, None
            if resuming is not None:
                resuming.cancel()
            gc.enable()

    def reload_began(self, event: ReloadBegan) -> None:
        """
        Stop the collector.

        Collect the young objects first in a server with many versions, and in one whose reloads follow each other so
        quickly that the collector did not run between them.
        """
        self._is_reloading = True
        if self._is_begun:
            resuming, self._resuming = self._resuming, None
            if resuming is not None:
                resuming.cancel()
            if self._live >= FREEZE_AFTER or resuming is not None:
                gc.collect(1)
            gc.disable()

    def reload_ended(self, event: ReloadEnded) -> None:
        """Start the collector again after `AFTER_REPORT`, so that no report waits for a collection."""
        self._is_reloading = False
        if self._is_begun:
            self._resuming = self._clock.callLater(AFTER_REPORT, self._resume)

    def _resume(self) -> None:
        """Start the collector; in a server with many versions, collect the young objects first."""
        self._resuming = None
        if self._live >= FREEZE_AFTER:
            gc.collect(1)
        gc.enable()

    def adopted(self, event: Adopted) -> None:
        """Freeze in a later turn, if there are `FREEZE_AFTER` new versions since the last freeze."""
        plan = event.candidate.plan
        fresh = len(plan.added) + len(plan.modified)
        self._live = fresh + len(plan.unchanged)
        self._fresh += fresh
        if self._fresh >= FREEZE_AFTER:
            self._collects |= fresh < FREEZE_AFTER
            self._plan()

    def _plan(self) -> None:
        if self._is_begun and not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._freeze)

    def _freeze(self) -> None:
        if self._collects:
            gc.collect()
        gc.freeze()
        if not self._is_reloading and self._resuming is None:  # a reload makes thousands of young objects
            gc.enable()
        self._is_due = self._collects = False
        self._fresh = 0
