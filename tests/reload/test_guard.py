"""The guard against half a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.reload.guard import would_remove_most


class GuardTests(SynchronousTestCase):
    """`would_remove_most`."""

    def test_where_it_begins(self) -> None:
        """More than half and at least two: exactly half is let through, and so is the only trigger."""
        held = {live: [gone for gone in range(live + 1) if would_remove_most(gone, live)] for live in range(6)}
        self.assertEqual(held, {0: [], 1: [], 2: [2], 3: [2, 3], 4: [3, 4], 5: [3, 4, 5]})

    @given(st.integers(0, 20_000), st.integers(0, 20_000))
    def test_of_what_is_left(self, removed: int, left: int) -> None:
        """Two triggers or more are held exactly when fewer stay than go; one never is."""
        self.assertEqual(would_remove_most(removed, removed + left), removed >= 2 and left < removed)

    @given(st.integers(1, 20_000), st.integers(0, 20_000))
    def test_more_is_no_safer(self, live: int, removed: int) -> None:
        """What is held stays held when more triggers go, or when fewer were there."""
        if would_remove_most(removed, live):
            self.assertTrue(would_remove_most(removed + 1, live))
            self.assertTrue(would_remove_most(removed, live - 1))
