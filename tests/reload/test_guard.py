"""The guard against half a file."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.triggers.reconcile import would_remove_most


class GuardTests(SynchronousTestCase):
    """`would_remove_most`: which shares of the live triggers a change may remove."""

    def test_where_it_begins(self) -> None:
        """More than half and at least two: exactly half is let through, and so is the only trigger."""
        held = {live: [gone for gone in range(live + 1) if would_remove_most(gone, live)] for live in range(6)}
        self.assertEqual(held, {0: [], 1: [], 2: [2], 3: [2, 3], 4: [3, 4], 5: [3, 4, 5]})
