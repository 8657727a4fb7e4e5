"""The two timers of dispatch: for waiting retries, and for what the event log could not do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.second_tries import SecondTries
from harn.dispatch.wakeups import LONGEST_SLEEP, Wakeups
from harn.errors import EventLogUnavailable


class WakeupsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.woken: list[float] = []
        self.wakeups = Wakeups(self.clock, lambda: self.woken.append(self.clock.seconds()))

    def test_the_earliest_counts(self) -> None:
        """However many times are noticed, there is one timer, for the earliest; then none."""
        for due_at in (9.0, 5.0, 7.0):
            self.wakeups.notice(due_at)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1.0] * 10)
        self.assertEqual((self.woken, self.clock.getDelayedCalls()), ([5.0], []))

    def test_a_time_that_has_passed(self) -> None:
        """It wakes in the next turn."""
        self.clock.advance(10.0)
        self.wakeups.notice(3.0)
        self.assertEqual(self.woken, [])
        self.clock.advance(0)
        self.assertEqual(self.woken, [10.0])

    def test_sleeps_in_steps(self) -> None:
        """A far time is looked at again each minute, without waking anybody."""
        self.wakeups.notice(150.0)
        self.clock.pump([LONGEST_SLEEP] * 2)
        self.assertEqual((self.woken, len(self.clock.getDelayedCalls())), ([], 1))
        self.clock.advance(30.0)
        self.assertEqual(self.woken, [150.0])

    def test_noticing_while_woken(self) -> None:
        """Who is woken may notice the next time."""

        def wake() -> None:
            self.woken.append(self.clock.seconds())
            if len(self.woken) == 1:
                wakeups.notice(8.0)

        wakeups = Wakeups(self.clock, wake)
        wakeups.notice(2.0)
        self.clock.pump([1.0] * 8)
        self.assertEqual((self.woken, self.clock.getDelayedCalls()), ([2.0, 8.0], []))

    def test_stop(self) -> None:
        """Afterwards there is no timer, whatever is noticed."""
        self.wakeups.notice(5.0)
        self.wakeups.stop()
        self.wakeups.notice(6.0)
        self.wakeups.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.integers(min_value=0, max_value=200), min_size=1, max_size=8))
    def test_never_late(self, times: list[int]) -> None:
        """Whatever was noticed, the first wake is at the earliest time."""
        self.setUp()
        for due_at in times:
            self.wakeups.notice(float(due_at))
        self.clock.pump([1.0] * 201)
        self.assertEqual(self.woken[0], max(1.0, min(times)))


class SecondTriesTests(SynchronousTestCase):
    def test_all_together_and_in_order(self) -> None:
        """One timer serves everything that waits; what waits again waits a whole interval."""
        clock = Clock()
        again = SecondTries(clock)
        called: list[str] = []
        again.add(lambda: (called.append("a"), again.add(lambda: called.append("c"))))
        clock.advance(0.5)
        again.add(lambda: called.append("b"))
        clock.advance(0.5)
        self.assertEqual(called, ["a", "b"])
        clock.advance(1.0)
        self.assertEqual((called, clock.getDelayedCalls()), (["a", "b", "c"], []))

    def test_insisting(self) -> None:
        """Work is done again until it is done, whatever it fails with; what nobody expects is logged."""
        clock = Clock()
        again = SecondTries(clock)
        outcomes: list[Deferred[int]] = [fail(EventLogUnavailable("away")), fail(ZeroDivisionError()), succeed(5)]
        done = Deferred.fromCoroutine(again.insist("the work", lambda: outcomes.pop(0)))
        self.assertNoResult(done)
        clock.advance(1.0)
        self.assertNoResult(done)
        clock.advance(1.0)
        self.assertEqual((self.successResultOf(done), clock.getDelayedCalls()), (5, []))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_close(self) -> None:
        """Afterwards nothing is called, and nothing waits."""
        clock = Clock()
        again = SecondTries(clock)
        again.add(lambda: self.fail("it was closed"))
        again.close()
        again.add(lambda: self.fail("it was closed"))
        again.close()
        self.assertEqual(clock.getDelayedCalls(), [])
        clock.advance(2.0)
