"""A version that failed: deliveries that it has not begun, and those that failed on it, run on its successor."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import HandlerRaised, HandlerRejected
from harn.manifest.model import RetrySpec
from harn.testing.clocks import START
from harn.triggers.binding import BindingVersion
from tests.dispatch.test_moving_on import finish
from tests.dispatch.world import World, one_trigger

BAD = RetrySpec(max=3)


class RedrivingTests(SynchronousTestCase):
    def failed(self, count: int = 3, *, queued: int = 0, **options: Any) -> World:
        """Make this many deliveries of a version dead letters, and leave others that it has not begun."""
        world = World(**{"max_outstanding": 1, **options})
        world.adopt(one_trigger(retry=BAD))
        for _ in range(count):
            world.take()
            for _ in range(3):
                world.call().raises(HandlerRaised("no"))
        for _ in range(queued):
            world.take()
        return world

    def replaced(self, world: World) -> BindingVersion:
        """Adopt the good version; give the bad one."""
        bad = world.version()
        world.adopt(one_trigger(retry=BAD, timeout=5.0))
        return bad

    def assert_even(self, world: World) -> None:
        """Assert that no lease is left, and that the old version has ended."""
        version = world.version()
        self.assertEqual((version.in_flight, world.dispatcher.stored(version), world.ended), (0, 0, ["gh@v1"]))
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_dead_letters_come_back(self) -> None:
        """They run on the new version with all of their attempts, after what was queued in memory; counts go down."""
        world = self.failed(3, queued=3)
        bad = self.replaced(world)
        self.assertEqual(world.counted(bad).dead, 3)
        self.assertEqual(self.successResultOf(world.dispatcher.move_and_redrive(bad, START)), 5)
        self.assertEqual((world.counted(bad).dead, world.version().in_flight), (0, 5))
        attempts = [world.call().call.attempt]
        world.call().returns()  # the bad version's own, which it had begun
        while world.calls:
            self.assertEqual(world.call().call.binding, "gh@v2")
            attempts.append(world.call().call.attempt)
            world.call().returns()
        self.assertEqual((attempts, world.states()), ([1] * 6, ["done"] * 6))
        self.assert_even(world)
        self.assertEqual(world.dead_reasons(), {"retry_exhausted": 3})  # a counter never goes back

    def test_more_than_memory_holds(self) -> None:
        """However many there are, each runs once."""
        world = self.failed(9, queued=5, max_deliveries=2)
        bad = self.replaced(world)
        self.successResultOf(world.dispatcher.move_and_redrive(bad, START))
        self.assertEqual(finish(world), ["gh@v1", *["gh@v2"] * 13])
        self.assertEqual(world.states(), ["done"] * 14)
        self.assert_even(world)

    def test_only_what_is_its_own_fault(self) -> None:
        """What died before, was rejected by the handler, or is another version's stays dead."""
        world = self.failed(1)
        world.take()
        world.call().raises(HandlerRejected("not ours"))
        world.clock.advance(10.0)
        since = world.clock.seconds()
        world.take()
        for _ in range(3):
            world.call().raises(HandlerRaised("no"))
        bad = self.replaced(world)
        world.take()
        for _ in range(3):
            world.call().raises(HandlerRaised("no"))
        self.assertEqual(self.successResultOf(world.dispatcher.move_and_redrive(bad, since)), 1)
        self.assertEqual(finish(world), ["gh@v2"])
        self.assertEqual(world.states(), ["dead", "dead", "done", "dead"])
        self.assertEqual((world.counted().dead, world.ended), (1, ["gh@v1"]))

    def test_what_still_runs(self) -> None:
        """Deliveries that become dead letters on the bad version later are redriven then."""
        world = World()
        world.adopt(one_trigger(retry=RetrySpec(max=1)))
        world.take()
        world.take()
        bad = self.replaced(world)
        self.assertEqual(self.successResultOf(world.dispatcher.move_and_redrive(bad, START)), 0)
        world.calls[0].returns()
        world.call().raises(HandlerRaised("no"))
        self.assertEqual((world.call().call.binding, world.call().call.attempt), ("gh@v2", 1))
        self.assertEqual((finish(world), world.states(), world.counted(bad).dead), (["gh@v2"], ["done", "done"], 0))
        self.assert_even(world)

    def test_the_event_log_is_away(self) -> None:
        """It is tried again, on the version that is live by then; nothing runs twice."""
        world = self.failed(2, queued=3)
        bad = self.replaced(world)
        world.store.fail_writes = True
        taking = world.dispatcher.move_and_redrive(bad, START)
        world.clock.advance(3.0)
        self.assertNoResult(taking)
        world.adopt(one_trigger(retry=BAD, timeout=6.0))
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual(self.successResultOf(taking), 4)
        self.assertEqual(finish(world), ["gh@v1", *["gh@v3"] * 2, *["gh@v2"] * 2])
        self.assertEqual(sorted(world.ended), ["gh@v1", "gh@v2"])

    def test_a_trigger_that_is_gone(self) -> None:
        """There is no version to run it on: as at the deadline; dead letters stay dead."""
        world = self.failed(1, queued=3)
        bad = world.version()
        world.adopt({})
        self.assertEqual(self.successResultOf(world.dispatcher.move_and_redrive(bad, START)), 2)
        finish(world)
        self.assertEqual(world.states(), ["dead", "done", "dead", "dead"])
        self.assertEqual(world.dead_reasons(), {"retry_exhausted": 1, "binding_removed": 2})
        self.assertEqual(world.ended, ["gh@v1"])
