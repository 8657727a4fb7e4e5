"""Counts of versions, as a subscriber to lifecycle events; the rest of it is held by the tests of who emits them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Chosen, DeadLettered, Lifecycle, Received, Redriven, RequestRefused, VersionEnded
from harn.triggers.counts import VersionCounts


class VersionCountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lifecycle = Lifecycle()
        self.counts = VersionCounts(self.lifecycle)

    def test_on_a_ramp(self) -> None:
        """What a ramping trigger receives counts for the version that is chosen, once it is."""
        self.lifecycle.emit(Received("gh", "github", None))
        self.assertEqual(self.counts.of("gh@v1").received, 0)
        self.lifecycle.emit(Chosen("gh", ("gh@v1", "gh@v2")))
        self.lifecycle.emit(RequestRefused("gh", "github", ("gh@v1", "gh@v2"), 422))
        for binding in ("gh@v1", "gh@v2"):
            self.assertEqual((self.counts.of(binding).received, self.counts.of(binding).refused), (1, 1))

    def test_redriven(self) -> None:
        """Dead letters that are ready again count no more; those of before this server's start never did."""
        self.lifecycle.emit(DeadLettered("gh", "github", "gh@v1", "rejected", 2))
        self.lifecycle.emit(Redriven("gh", "gh@v1", 1))
        self.assertEqual(self.counts.of("gh@v1").dead, 1)
        self.lifecycle.emit(Redriven("gh", "gh@v1", 5))
        self.assertEqual(self.counts.of("gh@v1").dead, 0)

    def test_until_the_version_ends(self) -> None:
        """A version that has ended takes no memory; reading its counts makes none either."""
        self.lifecycle.emit(Received("gh", "github", "gh@v1"))
        self.lifecycle.emit(VersionEnded("gh", 1, "gh@v1", "/hooks/gh", is_last=True))
        self.assertEqual(self.counts.of("gh@v1").received, 0)
        self.lifecycle.emit(Received("gh", "github", "gh@v1"))
        self.assertEqual(self.counts.of("gh@v1").received, 1)

    def test_of_a_version_that_ended_before(self) -> None:
        """A dead letter that no version is left for counts for none."""
        self.lifecycle.emit(DeadLettered("gh", "github", None, "binding_removed", 1))
        self.assertEqual(self.counts.of("gh@v1").dead, 0)
