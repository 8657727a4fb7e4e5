"""Orphans that the server is given as process 1, and the settings of its process."""

from __future__ import annotations

import gc
import os
import resource
from types import SimpleNamespace
from typing import Any, cast
from unittest import skipIf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.listener.connection_limit import SURPLUS
from harn.listener.descriptors import LEAST, RESERVED, connections_within, open_files, raise_open_files
from harn.orchestrator.maintenance import (
    AFTER_REPORT,
    FREEZE_AFTER,
    INTERVAL,
    Children,
    Freezer,
    OrphanReaper,
    is_parent_of_orphans,
)
from harn.triggers.reconcile import Plan


class ScriptedChildren(Children):
    """Children that end when the test says so."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.reaped: list[int] = []

    def ended(self) -> list[int]:
        """See `Children.ended`."""
        return sorted(self.gone)

    def reap(self, pid: int) -> None:
        """See `Children.reap`."""
        self.reaped.append(pid)


class OrphanReaperTests(SynchronousTestCase):
    """The reaper by a clock."""

    def setUp(self) -> None:
        """Start one."""
        children = ScriptedChildren()
        self.ended, self.reaped = children.gone, children.reaped
        self.clock = Clock()
        self.awaited: dict[int, Any] = {}
        self.reaper = OrphanReaper(self.clock, children, self.awaited)
        self.reaper.startService()
        self.addCleanup(self.reaper.stopService)

    def test_orphans_are_reaped(self) -> None:
        """What has ended and waits at two looks is reaped, once."""
        self.ended |= {7, 8}
        self.clock.advance(INTERVAL)
        self.assertEqual(self.reaped, [])
        self.clock.advance(INTERVAL)
        self.assertEqual(sorted(self.reaped), [7, 8])
        self.ended.clear()
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(len(self.reaped), 2)

    def test_statuses_of_others(self) -> None:
        """What Twisted waits for is left to it, and so is what its starter reaps soon."""
        self.awaited[7] = object()
        self.ended |= {7, 8}
        self.clock.advance(INTERVAL)
        self.ended.discard(8)
        self.clock.advance(INTERVAL)
        self.ended |= {8}  # another process, of the same number
        self.clock.advance(INTERVAL)
        self.assertEqual(self.reaped, [])

    @skipIf(is_parent_of_orphans(), "the tests run as process 1")
    def test_not_for_everybody(self) -> None:
        """A process with a parent for its orphans needs no reaper."""
        self.assertFalse(is_parent_of_orphans())


class ProcessTests(SynchronousTestCase):
    def test_open_files(self) -> None:
        """The soft limit is raised towards what is wanted and never lowered, and never above the hard one."""
        limits = [(256, 4096)]
        self.patch(resource, "getrlimit", lambda which: limits[-1])
        self.patch(resource, "setrlimit", lambda which, pair: limits.append(pair))
        self.assertEqual(raise_open_files(300), 300)
        self.assertEqual(raise_open_files(200), 300)
        self.assertEqual(raise_open_files(), 4096)
        self.assertEqual(limits, [(256, 4096), (300, 4096), (4096, 4096)])

    def test_connections_within(self) -> None:
        """Connections leave a reserve of the open files to all that must continue; there are always a few."""
        self.assertEqual(connections_within(1024, 40), 1024 - 40 - RESERVED)
        self.assertEqual(connections_within(64, 40), LEAST)
        self.assertGreater(connections_within(resource.RLIM_INFINITY, 40), 10_000)
        self.assertGreater(RESERVED, SURPLUS + 40)
        before = open_files()
        with open(os.devnull):
            self.assertEqual(open_files(), before + 1)

    def test_freezer(self) -> None:
        """It freezes after the turn, after the start and when much is new, once for all that came before."""
        frozen: list[int] = []
        self.patch(gc, "freeze", lambda: frozen.append(1))
        clock = Clock()
        freezer = Freezer(clock)
        freezer.adopted(adopting(FREEZE_AFTER))
        self.assertEqual(clock.getDelayedCalls(), [])
        freezer.begin()
        seen = []
        for fresh in (1, 1, FREEZE_AFTER - 1, 1, FREEZE_AFTER):
            freezer.adopted(adopting(fresh))
            freezer.adopted(adopting(0))
            before = len(frozen)
            clock.advance(0)
            seen.append(len(frozen) - before)
        self.assertEqual((seen, clock.getDelayedCalls()), ([1, 0, 1, 0, 1], []))

    def test_the_collector_rests(self) -> None:
        """The collector rests until the start is frozen, and in reloads; with many triggers it collects beside them."""
        done: list[object] = []
        self.patch(gc, "enable", lambda: done.append("enable"))
        self.patch(gc, "disable", lambda: done.append("disable"))
        self.patch(gc, "freeze", lambda: done.append("freeze"))
        self.patch(gc, "collect", lambda generation=2: done.append(generation))
        clock, event = Clock(), cast(Any, None)
        freezer = Freezer(clock)
        freezer.reload_began(event)
        freezer.adopted(adopting(2))
        freezer.reload_ended(event)
        self.assertEqual(done, [])
        freezer.begin()
        clock.advance(0)
        self.assertEqual(done, [2, "freeze", "enable"])
        done.clear()
        for fresh, expected in (
            (FREEZE_AFTER, ["disable", "freeze", "reported", 1, "enable"]),
            (1, [1, "disable", "reported", "enable"]),
            (1, ["disable", "reported", "enable"]),
        ):
            freezer.reload_began(event)
            freezer.adopted(adopting(fresh))
            clock.advance(0)
            freezer.reload_ended(event)
            clock.advance(AFTER_REPORT / 2)
            done.append("reported")
            clock.advance(AFTER_REPORT)
            self.assertEqual(done, expected, fresh)
            done.clear()

    def test_close(self) -> None:
        """At the end the collector runs, also where a reload is under way, and no timer is left."""
        done: list[str] = []
        self.patch(gc, "enable", lambda: done.append("enable"))
        self.patch(gc, "disable", lambda: done.append("disable"))
        event = cast(Any, None)
        for ends in (True, False):
            clock = Clock()
            freezer = Freezer(clock)
            freezer.close()
            freezer.begin()
            clock.advance(0)
            done.clear()
            freezer.reload_began(event)
            if ends:
                freezer.reload_ended(event)
            freezer.close()
            freezer.reload_ended(event)
            self.assertEqual((done, clock.getDelayedCalls()), (["disable", "enable"], []))

    def test_reload_after_reload(self) -> None:
        """The collector stays off when another reload begins soon after one; young objects are collected between."""
        done: list[object] = []
        clock, event = Clock(), cast(Any, None)
        freezer = Freezer(clock)
        freezer.begin()
        clock.advance(0)
        self.patch(gc, "enable", lambda: done.append("enable"))
        self.patch(gc, "disable", lambda: done.append("disable"))
        self.patch(gc, "collect", lambda generation=2: done.append(generation))
        for _ in range(2):
            freezer.reload_began(event)
            freezer.reload_ended(event)
        freezer.reload_began(event)
        clock.advance(AFTER_REPORT)
        self.assertEqual(done, ["disable", 1, "disable", 1, "disable"])
        freezer.reload_ended(event)
        clock.advance(AFTER_REPORT)
        self.assertEqual(done[5:], ["enable"])
        self.assertEqual(clock.getDelayedCalls(), [])


def adopting(fresh: int) -> Any:
    """Make the event of a generation with so many new bindings."""
    return SimpleNamespace(candidate=SimpleNamespace(plan=Plan(added=tuple(map(str, range(fresh))))))
