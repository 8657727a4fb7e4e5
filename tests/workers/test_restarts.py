"""When a worker is started again."""

from __future__ import annotations

from itertools import accumulate, pairwise

from twisted.trial.unittest import SynchronousTestCase

from harn.workers.restarts import FIRST, LONGEST, STABLE, Restarts


class RestartsTests(SynchronousTestCase):
    """The pause until the next start."""

    def test_a_worker_that_served_long(self) -> None:
        """The end of a worker that lived long says nothing about the next one: the pause is the first one again."""
        failing = Restarts().after(0.1).after(0.1).after(0.1)
        self.assertGreater(failing.pause, FIRST)
        self.assertEqual(failing.after(STABLE).pause, FIRST)

    def test_short_lives(self) -> None:
        """Each short life in a row doubles the pause, up to a limit, however many there are."""
        ends = list(accumulate(range(100), lambda before, _: before.after(STABLE - 0.1), initial=Restarts()))[1:]
        pauses = [each.pause for each in ends]
        self.assertEqual(pauses[:3], [FIRST, FIRST * 2, FIRST * 4])
        self.assertEqual(pauses[-1], LONGEST)
        self.assertTrue(all(before <= after for before, after in pairwise(pauses)))
