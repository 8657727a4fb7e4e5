"""Statistics of attempts and deliveries within a window of time."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from attrs import evolve

from harn.model.delivery import DEAD, DONE, PREDICATE, SKIPPED, WAITING
from harn.store.statistics import AcceptedGroup, AttemptGroup, DoneGroup, Refused, Span
from harn.testing.stores.kit import NOW, StoreTestCase, attempt_of, binding_of, dead_letter, generation_of

ALL = Span(1, 1000)


class MeasuringTests(StoreTestCase):
    """The promises of `IStatistics`."""

    def test_spans(self) -> None:
        """A window begins with the first row of its time; without one it is empty, and so is that of no rows."""
        statistics = self.store.statistics
        self.assertEqual(self.result_of(statistics.deliveries_since(NOW)).size, 0)
        for number in range(9):
            delivery_id = self.accept_one(f"e{number}", received_at=NOW + number)
            self.settle(delivery_id, attempt=attempt_of(completed_at=NOW + 10.0 * number), result=b"1")
        for since, first in ((0.0, 1), (NOW, 1), (NOW + 0.5, 2), (NOW + 4.0, 5), (NOW + 8.0, 9)):
            self.assertEqual(self.result_of(statistics.deliveries_since(since)), Span(first, 9), since)
        self.assertEqual(self.result_of(statistics.deliveries_since(NOW + 9.0)).size, 0)
        self.assertEqual(self.result_of(statistics.attempts_since(NOW + 35.0)), Span(5, 9))

    def test_attempts(self) -> None:
        """Attempts are grouped by version, end and duration; what is done also by the time since it was received."""
        ids = [self.accept_one(f"e{number}", received_at=NOW - 1.0) for number in range(5)]
        for delivery_id in ids[:2]:
            took = attempt_of(completed_at=NOW + 0.123456)
            self.settle(delivery_id, DONE, result=b"1", attempt=took)
        failed = attempt_of(outcome="timeout", error_class="handler_timeout", completed_at=NOW + 2.0)
        self.settle(ids[2], WAITING, due_at=NOW + 9.0, attempt=failed)
        put_off = attempt_of(outcome="failed", error_class="retry_after", completed_at=NOW - 3.0)
        self.settle(ids[3], WAITING, due_at=NOW + 9.0, attempt=put_off)
        self.settle(ids[4], SKIPPED, skip_reason=PREDICATE, attempt=attempt_of(outcome="skipped"))
        ended, done = self.result_of(self.store.statistics.attempts(ALL, 0.0))
        groups = {
            AttemptGroup("gh", 1, "success", 0.12, 2),
            AttemptGroup("gh", 1, "failed", 2.0, 1),
            AttemptGroup("gh", 1, "retry_after", 0.0, 1),
            AttemptGroup("gh", 1, "skipped", 1.0, 1),
        }
        self.assertEqual(({*ended}, list(done)), (groups, [DoneGroup("gh", 1, 1.1, 2)]))
        ended, done = self.result_of(self.store.statistics.attempts(Span(3, 4), NOW))
        self.assertEqual((list(ended), list(done)), ([AttemptGroup("gh", 1, "failed", 2.0, 1)], []))

    def test_accepted_died_and_refused(self) -> None:
        """Deliveries count when they were received, deaths when they came, refused requests by their minute."""
        for number, trigger_id in enumerate(("gh", "gh", "other")):
            self.accept_one(f"e{number}", trigger_id=trigger_id, received_at=NOW + number)
        self.settle(1, DEAD, dead=dead_letter("given up"))
        self.settle(2, SKIPPED, skip_reason=PREDICATE)
        statistics = self.store.statistics
        found = self.result_of(statistics.accepted(ALL, NOW))
        self.assertEqual({*found}, {AcceptedGroup("gh", 2, 1), AcceptedGroup("other", 1, 0)})
        self.assertEqual(self.result_of(statistics.accepted(ALL, NOW + 2.0)), [AcceptedGroup("other", 1, 0)])
        self.assertEqual(self.result_of(statistics.died(NOW - 60.0)), {"gh": 1})
        self.assertEqual(self.result_of(statistics.died(NOW + 9.0)), {})
        minutes = [Refused(trigger_id="gh", minute=int(NOW // 60) + each, reason="origin", count=2) for each in (0, 1)]
        self.result_of(self.store.totals.add((), minutes, 0))
        self.assertEqual(self.result_of(statistics.refused(NOW)), {"gh": 4})
        self.assertEqual(self.result_of(statistics.refused(NOW + 60.0)), {"gh": 2})

    def test_handlers(self) -> None:
        """The handler is that of the version's definition; of a version that is not recorded there is none."""
        self.adopt(generation_of(1, evolve(binding_of(1, 1), spec=b'{"id": "gh", "handler": "h:on"}')))
        found = self.result_of(self.store.statistics.handlers((("gh", 1), ("gh", 2))))
        self.assertEqual(found, {("gh", 1): "h:on"})
