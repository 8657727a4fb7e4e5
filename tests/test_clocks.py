"""The two clocks of a server: the reactor's, which is monotonic, and the wall's, which may jump."""

from __future__ import annotations

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import LONGEST_SLEEP, BackSteps, WallClock, rfc3339, sleep_until, use_monotonic_time
from harn.testing.clocks import SteppedWall


class MonotonicReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a reactor of our own: nothing runs it but these tests."""
        self.reactor = SelectReactor()
        self.addCleanup(self._close)

    def _close(self) -> None:
        for each in self.reactor.removeAll() + list(self.reactor._internalReaders):
            each.connectionLost(Failure(ConnectionAbortedError()))

    def test_a_wall_clock_that_jumps(self) -> None:
        """A call that is planned fires in its time, though the wall clock is set back, or forward, by an hour."""
        use_monotonic_time(self.reactor)
        called: list[str] = []
        self.reactor.callLater(0.0, called.append, "now")
        self.reactor.callLater(1000.0, called.append, "later")
        now = time.time()
        for jump in (-3600.0, 3600.0):
            self.patch(time, "time", lambda jump=jump: now + jump)
            self.reactor.runUntilCurrent()
            self.assertEqual(called, ["now"])
            self.assertTrue(900.0 < (self.reactor.timeout() or 0.0) <= 1000.0)

    def test_what_others_have_planned(self) -> None:
        """Calls that were planned before keep their order and their distance, and can still be moved."""
        called: list[str] = []
        calls = [self.reactor.callLater(seconds, called.append, f"{seconds}") for seconds in (300.0, 0.0, 100.0)]
        use_monotonic_time(self.reactor)
        use_monotonic_time(self.reactor)
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["0.0"])
        self.assertTrue(0.0 < (self.reactor.timeout() or 0.0) <= 100.0)
        calls[0].reset(0.0)
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["0.0", "300.0"])


class WallClockTests(SynchronousTestCase):
    def test_the_system_s(self) -> None:
        """The wall clock is the system's, and goes back with it."""
        self.patch(time, "time", lambda: 1_700_000_000.25)
        self.assertEqual(WallClock().seconds(), 1_700_000_000.25)
        self.assertEqual(rfc3339(WallClock().seconds()), "2023-11-14T22:13:20.250Z")

    def test_steps_back(self) -> None:
        """A step back is noticed once, however far it goes; a slow clock, or a step forward, is ignored."""
        clock = Clock()
        wall = SteppedWall(clock, ahead=1000.0)
        steps = BackSteps(clock, wall)
        seen = []
        for step in (0.0, -3600.0, 0.0, 7200.0, -0.5, -0.5, -1800.0):
            clock.advance(10.0)
            wall.step(step)
            seen.append(steps.look())
        self.assertEqual(seen, [0.0, 3600.0, 0.0, 0.0, 0.0, 0.0, 1800.0])

    def test_sleeping(self) -> None:
        """No sleep lasts longer than a minute before the wall clock is read again, nor less than no time."""
        clock = Clock()
        wall = SteppedWall(clock, ahead=1000.0)
        self.assertEqual([sleep_until(each, wall) for each in (999.0, 1010.0, 5000.0)], [0.0, 10.0, LONGEST_SLEEP])
        wall.step(-20.0)
        self.assertEqual(sleep_until(1010.0, wall), 30.0)
        clock.advance(30.0)
        self.assertEqual(sleep_until(1010.0, wall), 0.0)
