"""
Figures of triggers: attempts and deliveries within a window of time, totals over all servers, unfinished deliveries.
"""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from harn.model.delivery import DEAD, DONE, PREDICATE, SKIPPED, WAITING
from harn.store.statistics import (
    AcceptedGroup,
    AttemptGroup,
    DoneGroup,
    IdRange,
    RefusedCount,
    TriggerBacklog,
    TriggerTotal,
    TriggerUnfinished,
)
from harn.testing.stores.kit import KEEP, NOW, StoreTestCase, attempt_of, binding_of, dead_letter, generation_of

ALL = IdRange(1, 1000)


class WindowTests(StoreTestCase):
    """The promises of `IStatistics`."""

    def test_spans(self) -> None:
        """A window begins with the first row of its time; without one it is empty, and so is that of no rows."""
        statistics = self.store.statistics
        self.assertEqual(self.result_of(statistics.deliveries_since(NOW)).size, 0)
        for number in range(9):
            delivery_id = self.accept_one(f"e{number}", received_at=NOW + number)
            self.settle(delivery_id, attempt=attempt_of(completed_at=NOW + 10.0 * number), result=b"1")
        for since, first in ((0.0, 1), (NOW, 1), (NOW + 0.5, 2), (NOW + 4.0, 5), (NOW + 8.0, 9)):
            self.assertEqual(self.result_of(statistics.deliveries_since(since)), IdRange(first, 9), since)
        self.assertEqual(self.result_of(statistics.deliveries_since(NOW + 9.0)).size, 0)
        self.assertEqual(self.result_of(statistics.attempts_since(NOW + 35.0)), IdRange(5, 9))

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
        ended, done = self.result_of(self.store.statistics.attempts(IdRange(3, 4), NOW))
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
        minutes = [
            RefusedCount(trigger_id="gh", minute=int(NOW // 60) + each, reason="origin", count=2) for each in (0, 1)
        ]
        self.result_of(self.store.totals.add((), minutes, 0))
        self.assertEqual(self.result_of(statistics.refused(NOW)), {"gh": 4})
        self.assertEqual(self.result_of(statistics.refused(NOW + 60.0)), {"gh": 2})

    def test_handlers(self) -> None:
        """The handler is that of the version's definition; of a version that is not recorded there is none."""
        self.adopt(generation_of(1, replace(binding_of(1, 1), spec=b'{"id": "gh", "handler": "h:on"}')))
        found = self.result_of(self.store.statistics.handlers((("gh", 1), ("gh", 2))))
        self.assertEqual(found, {("gh", 1): "h:on"})


DIED = dead_letter("given up")


class TotalTests(StoreTestCase):
    """The promises of `ITotals`."""

    def test_added(self) -> None:
        """Counts add up and the later times stay, over a restart, too; a trigger without events has no totals."""
        totals = self.store.totals
        self.assertEqual(self.result_of(totals.totals()), {})
        first = TriggerTotal(trigger_id="gh", accepted=2, refused=1, last_success=NOW)
        other = TriggerTotal(trigger_id="other", refused=5)
        self.result_of(
            totals.add((first, other), (RefusedCount(trigger_id="gh", minute=7, reason="origin", count=1),), 2)
        )
        self.restart()
        totals = self.store.totals
        second = TriggerTotal(trigger_id="gh", accepted=3, last_success=NOW - 1.0, last_failure=NOW + 1.0)
        self.result_of(totals.add((second,), (RefusedCount(trigger_id="gh", minute=7, reason="origin", count=4),), 5))
        whole = TriggerTotal(trigger_id="gh", accepted=5, refused=1, last_success=NOW, last_failure=NOW + 1.0)
        self.assertEqual(self.result_of(totals.totals()), {"gh": whole, "other": other})

    def test_counted_on(self) -> None:
        """What no total counts yet is counted once, in slices, up to an id."""
        totals = self.store.totals
        for number in range(5):
            self.accept_one(f"e{number}", trigger_id="other" if number == 3 else "gh")
        self.result_of(totals.add((TriggerTotal(trigger_id="gh", accepted=1),), (), 1))
        self.assertEqual(self.result_of(totals.highest()), 5)
        self.assertEqual(self.result_of(totals.uncounted(100)), {"gh": 3, "other": 1})
        self.assertEqual([self.result_of(totals.count_on(4, 2)) for _ in range(3)], [2, 1, 0])
        self.result_of(totals.add((), (), 3))  # a server that was slower does not set it back
        self.assertEqual(self.result_of(totals.uncounted(100)), {"gh": 1})
        found = self.result_of(totals.totals())
        self.assertEqual({key: each.accepted for key, each in found.items()}, {"gh": 3, "other": 1})

    def test_latest_attempts(self) -> None:
        """The last success and failure are those of attempts; a retry of the handler's choice is not a failure."""
        ids = [self.accept_one(f"e{number}") for number in range(4)]
        self.settle(ids[0], DONE, result=b"1", attempt=attempt_of(completed_at=NOW + 1.0))
        failed = attempt_of(outcome="failed", error_class="handler_error", completed_at=NOW + 2.0)
        self.settle(ids[1], WAITING, due_at=NOW + 9.0, attempt=failed)
        put_off = attempt_of(outcome="failed", error_class="retry_after", completed_at=NOW + 3.0)
        self.settle(ids[2], WAITING, due_at=NOW + 9.0, attempt=put_off)
        self.settle(ids[3], SKIPPED, skip_reason="predicate", attempt=attempt_of(outcome="skipped"))
        total = TriggerTotal(trigger_id="gh", last_success=NOW + 1.0, last_failure=NOW + 2.0)
        self.assertEqual(self.result_of(self.store.totals.latest_attempts(100)), {"gh": total})
        found = self.result_of(self.store.totals.latest_attempts(2))
        self.assertEqual(found, {"gh": TriggerTotal(trigger_id="gh")})

    def test_dead_now(self) -> None:
        """Dead letters count as long as they are dead letters."""
        ids = [self.accept_one(f"e{number}", trigger_id="gh" if number else "other") for number in range(3)]
        for delivery_id in ids:
            self.settle(delivery_id, DEAD, dead=DIED)
        self.assertEqual(self.result_of(self.store.totals.dead()), {"gh": 2, "other": 1})
        self.assertEqual(self.result_of(self.store.deliveries.redrive("gh", 1, 2, NOW - 9.0)), 2)
        self.assertEqual(self.result_of(self.store.totals.dead()), {"other": 1})
        self.assertEqual(self.trim_all(KEEP, NOW + 31 * 86400.0), 1)
        self.assertEqual(self.result_of(self.store.totals.dead()), {})

    def test_backlogs(self) -> None:
        """The oldest of each kind over all versions, without what runs; what is due by now is ready since then."""
        a, b = (self.accept_one(f"a{number}", received_at=NOW + number) for number in range(2))
        self.accept_one("a2", version=2, received_at=NOW - 5.0)
        c, d = (self.accept_one(f"b{number}", trigger_id="other", received_at=NOW - number) for number in range(2))
        self.settle(c, WAITING, due_at=NOW + 60.0)
        self.settle(d, WAITING, due_at=NOW + 30.0)

        def found(now: float, *running: int) -> Mapping[str, TriggerBacklog]:
            return self.result_of(self.store.totals.backlogs(now, running))

        gh = TriggerBacklog(trigger_id="gh", oldest_ready=NOW - 5.0)
        other = TriggerBacklog(trigger_id="other", oldest_waiting=NOW, next_due=NOW + 30.0)
        self.assertEqual(found(NOW), {"gh": gh, "other": other})
        late = TriggerBacklog(trigger_id="other", oldest_ready=NOW + 30.0, oldest_waiting=NOW, next_due=NOW + 30.0)
        self.assertEqual(found(NOW + 40.0)["other"], late)
        running = found(NOW + 40.0, a, b, d)
        self.assertEqual(running["other"].next_due, NOW + 60.0)
        self.assertEqual(running["gh"].oldest_ready, NOW - 5.0)
        counts = {each.trigger_id: each for each in self.result_of(self.store.totals.unfinished())}
        self.assertEqual(counts["gh"], TriggerUnfinished(trigger_id="gh", ready=3, waiting=0))
        self.assertEqual(counts["other"], TriggerUnfinished(trigger_id="other", ready=0, waiting=2))
        for delivery_id in (a, b, c, d):
            self.settle(delivery_id)
        self.assertEqual(found(NOW), {"gh": gh})

    def test_refusals_are_removed(self) -> None:
        """What is known of refused requests goes with events of that age; their total stays."""
        refused = [
            RefusedCount(trigger_id="gh", minute=int(NOW // 60) + each, reason="origin", count=1) for each in (0, 1)
        ]
        self.result_of(self.store.totals.add((TriggerTotal(trigger_id="gh", refused=2),), refused, 0))
        self.assertEqual(self.trim_all(KEEP, NOW + KEEP.events + 60.0), 1)
        self.assertEqual(self.result_of(self.store.totals.totals())["gh"].refused, 2)

    def test_totals_of_gone_triggers_are_removed(self) -> None:
        """The totals of a trigger that is not served go with its last row; those of others stay, rows or not."""
        totals, week = self.store.totals, NOW + KEEP.events + 120.0
        refused = (RefusedCount(trigger_id="refused", minute=int(week // 60), reason="origin", count=1),)
        names = ("served", "gone", "done", "waits", "refused")
        self.result_of(totals.add([TriggerTotal(trigger_id=each, accepted=1) for each in names], refused, 0))
        self.result_of(totals.add((TriggerTotal(trigger_id="lately", last_success=week - 1.0),), (), 0))
        done, waits = (self.accept_one(each, trigger_id=each, received_at=NOW) for each in ("done", "waits"))
        self.settle(waits, WAITING, due_at=week)
        self.clock.advance(KEEP.events)
        self.settle(done)

        def left(now: float, *served: str) -> set[str]:
            self.trim_all(replace(KEEP, triggers=served), now)
            return {*self.result_of(totals.totals())}

        self.assertEqual(left(week), {*names, "lately"})  # it is not known what is served
        self.assertEqual(left(week, "served"), {*names, "lately"} - {"gone"})
        self.assertEqual(left(week + KEEP.events + 120.0, "served"), {"served", "waits"})
        self.settle(waits)
        self.assertEqual(left(week + 3 * KEEP.events, "served"), {"served"})
