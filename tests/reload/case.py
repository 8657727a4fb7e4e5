"""What tests of generations share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.reload.report import ReloadReport
from tests.reload.world import World, fake


class GenerationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))

    def started(self, *triggers: str, **more: str) -> ReloadReport:
        """Write the manifest and start."""
        self.world.manifest(*triggers, **more)
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)
        return report

    def reloaded(self, *triggers: str, **more: str) -> ReloadReport:
        """Write the manifest, if any triggers are given, and reload."""
        if triggers:
            self.world.manifest(*triggers, **more)
        report = self.successResultOf(self.world.reload())
        self.assertTrue(report.ok, report)
        return report

    def restarted(self) -> ReloadReport:
        """End the server and start the next one on the same folder and store."""
        self.world = self.world.restarted()
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)
        return report


class CoordinatorCase(SynchronousTestCase):
    """A world with two triggers, ``a`` and ``b``, that serves."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))
        self.world.manifest(fake("a"), fake("b"))
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)

    def reload(self, **more: Any) -> ReloadReport:
        """Reload, and give the report."""
        return self.successResultOf(self.world.reload(**more))

    def reloaded(self, **more: Any) -> ReloadReport:
        """Reload, see it succeed, and give the report."""
        report = self.reload(**more)
        self.assertTrue(report.ok, report)
        return report
