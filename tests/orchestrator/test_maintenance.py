"""Orphans that the server is given as process 1."""

from typing import Any
from unittest import skipIf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.orchestrator.maintenance import INTERVAL, Children, OrphanReaper, is_parent_of_orphans


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
