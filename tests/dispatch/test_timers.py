"""The timer of dispatch, and writes that wait for the event log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import LONGEST_SLEEP
from harn.dispatch.timers import Wakeups, Woken, Writes
from harn.errors import EventLogUnavailable
from harn.lifecycle import Lifecycle
from harn.testing.clocks import SteppedWall


class WakeupsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = SteppedWall(self.clock, ahead=1000.0)
        self.woken: list[float] = []
        self.lifecycle = Lifecycle()
        self.lifecycle.subscribe(Woken, lambda event: self.woken.append(self.clock.seconds()))
        self.wakeups = Wakeups(self.clock, self.wall, self.lifecycle)

    def test_the_earliest_counts(self) -> None:
        """However many times are noticed, there is one timer, for the earliest; then none."""
        for due_at in (9.0, 5.0, 7.0):
            self.wakeups.notice(1000.0 + due_at)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1.0] * 10)
        self.assertEqual((self.woken, self.clock.getDelayedCalls()), ([5.0], []))

    def test_a_time_that_has_passed(self) -> None:
        """It wakes in the next turn."""
        self.clock.advance(10.0)
        self.wakeups.notice(1003.0)
        self.assertEqual(self.woken, [])
        self.clock.advance(0)
        self.assertEqual(self.woken, [10.0])

    def test_a_far_time(self) -> None:
        """Who waits for a far time is woken within a minute, to look whether the wall clock has made it due."""
        self.wakeups.notice(1000.0 + 100 * LONGEST_SLEEP)
        self.clock.advance(LONGEST_SLEEP)
        self.assertEqual((self.woken, self.clock.getDelayedCalls()), ([LONGEST_SLEEP], []))

    def test_a_wall_clock_that_is_set_back(self) -> None:
        """What was noticed before it still wakes in its time, though what is noticed after it is due earlier."""
        self.wakeups.notice(1005.0)
        self.wall.step(-500.0)
        self.wakeups.notice(510.0)
        self.clock.advance(5.0)
        self.assertEqual(self.woken, [5.0])

    def test_noticing_while_woken(self) -> None:
        """Who is woken may notice the next time."""

        def wake(event: Woken) -> None:
            if len(self.woken) == 1:
                self.wakeups.notice(1008.0)

        self.lifecycle.subscribe(Woken, wake)
        self.wakeups.notice(1002.0)
        self.clock.pump([1.0] * 8)
        self.assertEqual((self.woken, self.clock.getDelayedCalls()), ([2.0, 8.0], []))

    def test_stop(self) -> None:
        """Afterwards there is no timer, whatever is noticed."""
        self.wakeups.notice(1005.0)
        self.wakeups.stop()
        self.wakeups.notice(1006.0)
        self.wakeups.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.integers(min_value=0, max_value=200), min_size=1, max_size=8))
    def test_never_late(self, times: list[int]) -> None:
        """Whatever was noticed, the first wake is at the earliest time."""
        self.setUp()
        for due_at in times:
            self.wakeups.notice(1000.0 + due_at)
        self.clock.pump([1.0] * 201)
        self.assertEqual(self.woken[0], min(LONGEST_SLEEP, max(1.0, min(times))))


class WritesTests(SynchronousTestCase):
    """Writes that must be made."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.writes = Writes(self.clock)

    def test_insisting(self) -> None:
        """A write is made again until it succeeds, whatever it fails with; an unexpected error is logged."""
        outcomes: list[Deferred[int]] = [fail(EventLogUnavailable("away")), fail(ZeroDivisionError()), succeed(5)]
        done = self.writes.insist("the work", lambda: outcomes.pop(0))
        self.assertNoResult(done)
        self.clock.advance(1.0)
        self.assertEqual((self.has_no_result(done), len(self.writes)), (True, 1))
        self.clock.advance(1.0)
        self.assertEqual((self.successResultOf(done), self.clock.getDelayedCalls(), len(self.writes)), (5, [], 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def has_no_result(self, done: Deferred[int]) -> bool:
        """Return whether it has not fired."""
        return not done.called

    def test_close(self) -> None:
        """Afterwards nothing is written, nothing waits, and nothing fires."""
        waits = self.writes.insist("the work", lambda: fail(EventLogUnavailable("away")))
        self.writes.close()
        late: Deferred[int] = self.writes.insist("the work", lambda: self.fail("it was closed"))
        self.writes.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(2.0)
        self.assertNoResult(waits)
        self.assertNoResult(late)

    def test_close_while_it_is_written(self) -> None:
        """What is being written then is not tried again."""
        tried: list[Deferred[int]] = []

        def write() -> Deferred[int]:
            tried.append(Deferred())
            return tried[-1]

        done = self.writes.insist("the work", write)
        self.writes.close()
        self.assertEqual((self.clock.getDelayedCalls(), len(self.writes)), ([], 0))
        self.clock.advance(2.0)
        self.assertEqual((self.has_no_result(done), len(tried)), (True, 1))
