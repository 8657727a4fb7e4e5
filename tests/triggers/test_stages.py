"""The stages of a binding version, and the table of its legal moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.triggers.binding import ACTIVE, DRAINING, MOVES, REGISTERING, TERMINATED, Stage
from tests.triggers.examples import version


class StageTests(SynchronousTestCase):
    def test_every_stage_has_its_moves(self) -> None:
        """Each stage can be reached and left, but the first and the last."""
        self.assertEqual(MOVES.keys(), set(Stage))
        reached = {stage for following in MOVES.values() for stage in following}
        self.assertEqual(set(Stage) - reached, {Stage.REGISTERING})
        self.assertEqual([stage for stage in Stage if not MOVES[stage]], [Stage.TERMINATED])

    @given(st.lists(st.sampled_from(Stage), max_size=8))
    def test_only_legal_moves(self, wanted: list[Stage]) -> None:
        """A move that is not in the table is refused and changes nothing; the same stage again is accepted."""
        binding = version(1)
        for stage in wanted:
            before = binding.stage
            if stage is before or stage in MOVES[before]:
                binding.become(stage)
                self.assertIs(binding.stage, stage)
            else:
                self.assertRaises(AssertionError, binding.become, stage)
                self.assertIs(binding.stage, before)

    def test_what_is_shown(self) -> None:
        """Whatever happens to its deliveries, a version that begins nothing more is shown as draining."""
        shown = {}
        for path in (
            (),
            (Stage.ACTIVE,),
            (Stage.DRAINING,),
            (Stage.DRAINING, Stage.CLOSED),
            (Stage.DRAINING, Stage.CANCELLED),
            (Stage.DRAINING, Stage.TERMINATED),
        ):
            binding = version(1)
            for stage in path:
                binding.become(stage)
            shown[binding.stage] = (binding.state, binding.is_closed, binding.is_cancelled)
        self.assertEqual(
            shown,
            {
                Stage.REGISTERING: (REGISTERING, False, False),
                Stage.ACTIVE: (ACTIVE, False, False),
                Stage.DRAINING: (DRAINING, False, False),
                Stage.CLOSED: (DRAINING, True, False),
                Stage.CANCELLED: (DRAINING, True, True),
                Stage.TERMINATED: (TERMINATED, False, False),
            },
        )
