"""Counts of attempts, when they are settled, and the deliveries that a version holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import (
    AttemptFailed,
    CallInterrupted,
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)
from harn.lifecycle import Settled, VersionEnded
from harn.manifest.model import RetrySpec
from harn.model.delivery import Workload
from tests.dispatch.test_moving_on import crowded
from tests.dispatch.world import World, one_trigger

COUNTED = (
    HandlerRaised("no"),
    HandlerTimedOut("no"),
    ResultInvalid("no"),
    ResultTooLarge("no"),
    PredicateRaised("no"),
    InterpreterDied("no"),
)
ASKED_FOR = (HandlerRejected("no"), HandlerRetryAfter("later", 0.0))
ONCE = RetrySpec(max=1)


class AttemptTests(SynchronousTestCase):
    """``attempted`` and ``attempts_failed``."""

    def test_every_kind(self) -> None:
        """Failures of the code count against it; a wait that a handler asks for, and an interruption, do not."""
        cases: list[tuple[Exception, tuple[int, int]]] = [
            *((error, (1, 1)) for error in COUNTED),
            *((error, (1, 0)) for error in ASKED_FOR),
            (AttemptFailed("ours"), (1, 0)),
            (CallInterrupted("died", suspect=True), (0, 0)),
        ]
        for error, expected in cases:
            world = World()
            world.adopt(one_trigger(retry=ONCE))
            world.take()
            world.call().raises(error)
            counts = world.counted()
            self.assertEqual((counts.attempted, counts.attempts_failed), expected, repr(error))

    def test_failures_that_are_shown(self) -> None:
        """``failed`` counts failed attempts, but not those that the handler put off; their end is a dead letter."""
        for error in (*COUNTED, HandlerRejected("no"), AttemptFailed("ours")):
            world = World()
            world.adopt(one_trigger(retry=ONCE))
            world.take()
            world.call().raises(error)
            self.assertEqual((world.counted().failed, world.counted().dead), (1, 1), repr(error))
        world = World()
        world.adopt(one_trigger(retry=RetrySpec(max=2)))
        world.take()
        for _ in range(2):
            world.call().raises(HandlerRetryAfter("later", 0.0))
        self.assertEqual((world.counted().failed, world.counted().dead, world.counted().attempted), (0, 1, 2))

    def test_results(self) -> None:
        """A handler that succeeds, and a predicate that says no, are attempts that did not fail."""
        world = World()
        world.adopt(one_trigger())
        for result in (b"1", None):
            world.take()
            world.call().returns(result)
        self.assertEqual((world.counted().attempted, world.counted().attempts_failed), (2, 0))

    def test_each_version_its_own(self) -> None:
        """A retry on the newest version is that one's attempt."""
        world = World()
        world.adopt(one_trigger(retry=RetrySpec(max=2)))
        world.take()
        old = world.version()
        world.adopt(one_trigger(retry=RetrySpec(max=2), timeout=5.0))
        old.lease()  # a version that has ended has no counts any more
        world.call().raises(HandlerRaised("no"))
        world.call().returns()
        counts = [(each.attempted, each.attempts_failed) for each in (world.counted(old), world.counted())]
        self.assertEqual(counts, [(1, 1), (1, 0)])


class SettledTests(SynchronousTestCase):
    """What a subscriber to `Settled` may rely on."""

    def watched(self) -> tuple[World, list[tuple[str, int, int]]]:
        """Make a world; give what a subscriber saw of each attempt: the version and its counts."""
        world = World()
        world.adopt(one_trigger())
        seen: list[tuple[str, int, int]] = []

        def settled(event: Settled) -> None:
            for each in event.deliveries:
                counts = world.metrics.version(each.binding)
                seen.append((each.binding, counts.attempted, counts.attempts_failed))

        world.lifecycle.subscribe(Settled, settled)
        return world, seen

    def test_after_each_attempt(self) -> None:
        """It is emitted when the outcome is on disk, and by then the attempt is counted."""
        world, seen = self.watched()
        world.take()
        world.store.writer.held = True
        world.call().raises(HandlerRaised("no"))
        self.assertEqual(seen, [])
        world.store.writer.release()
        self.assertEqual(seen, [("gh@v1", 1, 1)])
        world.call().returns()
        self.assertEqual(seen, [("gh@v1", 1, 1), ("gh@v1", 2, 1)])

    def test_without_an_attempt(self) -> None:
        """A delivery that is given up without an attempt says so."""
        world = World()
        world.adopt(one_trigger())
        attempts: list[object] = []
        world.lifecycle.subscribe(
            Settled, lambda event: attempts.extend(each.settlement.attempt for each in event.deliveries)
        )
        world.take()
        version = world.version()
        world.adopt({})
        self.successResultOf(world.dispatcher.cancel(version))
        self.assertEqual((world.states(), attempts), (["dead"], [None]))

    def test_before_the_version_ends(self) -> None:
        """The last delivery of a draining version is settled before that ends."""
        world, seen = self.watched()
        world.take()
        world.adopt({})
        order: list[str] = []
        world.lifecycle.subscribe(Settled, lambda event: order.append("settled"))
        world.lifecycle.subscribe(VersionEnded, lambda event: order.append("ended"))
        world.call().returns()
        self.assertEqual((order, seen), (["settled", "ended"], [("gh@v1", 1, 0)]))

    def test_one_that_raises(self) -> None:
        """It is logged, and costs the delivery nothing."""
        world, _ = self.watched()
        world.lifecycle.subscribe(Settled, lambda event: 1 // 0)
        world.take()
        world.call().raises(HandlerRaised("no"))
        world.call().returns()
        self.assertEqual((world.states(), world.version().in_flight), (["done"], 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_one_that_acts_at_once(self) -> None:
        """A subscriber may replace the version and redrive its failures: the next attempt is the new one's."""
        world = World(max_outstanding=1)
        world.adopt(one_trigger(retry=RetrySpec(max=2)))
        bad = world.version()

        def settled(event: Settled) -> None:
            if event.deliveries[0].binding == bad.key and world.counted(bad).attempts_failed == 3:
                world.adopt(one_trigger(timeout=5.0))
                world.dispatcher.move_and_redrive(bad, 0.0)

        world.lifecycle.subscribe(Settled, settled)
        for _ in range(4):
            world.take()
        for _ in range(3):
            world.call().raises(HandlerRaised("no"))
        ran = []
        while world.calls:
            ran.append(world.call().call.binding)
            world.call().returns()
        self.assertEqual((ran, world.states()), (["gh@v2"] * 4, ["done"] * 4))
        self.assertEqual((world.ended, world.version().in_flight), (["gh@v1"], 0))


class WorkloadTests(SynchronousTestCase):
    """`Dispatcher.workload`."""

    def test_memory_and_store(self) -> None:
        """What runs, what waits in memory or in the store alone, and what was interrupted and comes back."""
        world = crowded(max_outstanding=2)
        version = world.version()
        self.assertEqual(world.dispatcher.workload([version]), {version: Workload(2, 3)})
        world.calls[0].raises(CallInterrupted("killed", suspect=False))
        self.assertEqual(world.dispatcher.workload([version]), {version: Workload(2, 3)})
        world.dispatcher.apply(1)
        world.calls[0].returns()
        world.calls[0].returns()
        world.clock.advance(0)
        self.assertEqual(world.dispatcher.workload([version]), {version: Workload(1, 2)})

    def test_each_version_its_own(self) -> None:
        """Versions that are not asked for are not in it; one without work is."""
        world = crowded(3)
        old = world.version()
        world.adopt(one_trigger(timeout=5.0))
        world.take()
        self.assertEqual(
            world.dispatcher.workload([old, world.version()]), {old: Workload(1, 2), world.version(): Workload(0, 1)}
        )
        self.assertEqual(world.dispatcher.workload([]), {})
        self.assertEqual(world.dispatcher.workload([world.version()]), {world.version(): Workload(0, 1)})

    @given(st.integers(0, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 12))
    def test_it_adds_up(self, count: int, outstanding: int, window: int, ends: int) -> None:
        """Whatever fits where: running and queued are together the deliveries that are not done."""
        world = crowded(count, max_outstanding=outstanding, max_deliveries=window)
        for _ in range(min(ends, count)):
            world.calls[0].returns()
        version = world.version()
        load = world.dispatcher.workload([version])[version]
        self.assertEqual(load.running, len(world.calls))
        self.assertEqual(load.running + load.queued, version.in_flight)
        self.assertEqual(version.in_flight, count - min(ends, count))
