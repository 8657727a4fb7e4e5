"""How an event was treated, as its delivery's row and attempts say."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import DEAD, DONE, FILTER_ERROR, READY, RETRY_EXHAUSTED, WAITING
from harn.store.treatment import FILTER_ERROR as FILTER_FAILED
from harn.store.treatment import HANDLED, SKIPPED, UNKNOWN, treatment


class TreatmentTests(SynchronousTestCase):
    """`treatment`."""

    def test_deliveries(self) -> None:
        """An event is handled from the call of its handler on; unknown until then, or skipped, or its filter failed."""
        cases = (
            ("accepted", (READY, None, False, None, False), UNKNOWN),
            ("its predicate failed, and is asked again", (WAITING, None, False, "failed", False), UNKNOWN),
            ("its predicate said yes, the handler runs", (READY, None, True, None, False), HANDLED),
            ("the handler failed, and is called again", (WAITING, None, True, "failed", False), HANDLED),
            ("the handler failed for good", (DEAD, RETRY_EXHAUSTED, True, "timeout", False), HANDLED),
            ("the predicate failed for good", (DEAD, RETRY_EXHAUSTED, False, "failed", False), UNKNOWN),
            ("handled, without a predicate", (DONE, None, False, "success", True), HANDLED),
            ("its predicate said no", (DONE, None, False, "skipped", False), SKIPPED),
            ("its filter failed", (DEAD, FILTER_ERROR, False, None, False), FILTER_FAILED),
        )
        for what, kept, expected in cases:
            self.assertEqual(treatment(*kept), expected, what)
