"""How an event was treated, told from what is kept of its delivery."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import DEAD, DONE, FILTER_ERROR, READY, RETRY_EXHAUSTED, WAITING
from harn.store.treatment import FILTER_ERROR as FILTER_FAILED
from harn.store.treatment import HANDLED, SKIPPED, UNKNOWN, treatment

OUTCOMES = st.lists(st.sampled_from(["success", "skipped", "failed", "timeout", "denied"]), max_size=4)
REASONS = st.sampled_from([None, FILTER_ERROR, RETRY_EXHAUSTED])


class TreatmentTests(SynchronousTestCase):
    @given(st.sampled_from([READY, WAITING, DONE, DEAD]), REASONS, st.booleans(), OUTCOMES)
    def test_any_delivery(self, state, reason, passed, outcomes):
        """Each delivery is treated in one of four ways; an event whose handler was called is never unknown."""
        said = treatment(state, reason, passed, outcomes[-1] if outcomes else None, "success" in outcomes)
        self.assertIn(said, (HANDLED, SKIPPED, FILTER_FAILED, UNKNOWN))
        self.assertEqual(said == FILTER_FAILED, state == DEAD and reason == FILTER_ERROR)
        if said == SKIPPED:
            self.assertEqual((state, outcomes[-1]), (DONE, "skipped"))
        if passed or "success" in outcomes:
            self.assertNotEqual(said, UNKNOWN)
        elif said == HANDLED:
            self.fail("nobody called its handler")
