"""Cancelling single deliveries, wherever they are at that moment."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import CallInterrupted, EventLogUnavailable, HandlerRaised
from harn.lifecycle import Settled
from harn.manifest.model import RetrySpec
from tests.dispatch.world import World, one_trigger


class CancellationTests(SynchronousTestCase):
    """`Dispatcher.cancel_delivery`."""

    def world(self, count: int = 4, **options: Any) -> World:
        """Make a world in which one delivery runs, and others wait, in memory and in the store."""
        world = World(**{"max_outstanding": 1, "max_deliveries": 2, **options})
        world.adopt(one_trigger(retry=RetrySpec(backoff="svix")))
        self.skipped: list[str | None] = []
        world.lifecycle.subscribe(
            Settled, lambda event: self.skipped.extend(each.settlement.skip_reason for each in event.deliveries)
        )
        for _ in range(count):
            world.take()
        return world

    def cancel(self, world: World, index: int) -> Deferred[bool]:
        """Cancel a delivery, by its place."""
        row = world.rows()[index]
        return world.dispatcher.cancel_delivery(row.event_id, row.delivery_id)

    def finish(self, world: World) -> None:
        """Run everything to its end, and check that nothing is left."""
        for _ in range(20):
            for running in list(world.calls):
                running.returns()
            world.clock.advance(10.0)
        self.assertEqual((world.version().in_flight, world.dispatcher.bytes_in_hand), (0, 0))
        self.assertEqual((dict(world.registry.waiting), world.clock.getDelayedCalls()), ({}, []))

    def test_wherever_it_is(self) -> None:
        """What runs, waits in memory, or is in the store alone: it ends as skipped, and never begins again."""
        for index in range(4):
            world = self.world()
            self.assertTrue(self.successResultOf(self.cancel(world, index)))
            self.assertEqual(self.skipped, ["cancelled"])
            self.finish(world)
            self.assertEqual(world.states(), ["skipped" if each == index else "done" for each in range(4)])

    def test_one_that_waits(self) -> None:
        """A retry that waits for its time is no longer counted."""
        world = self.world(1)
        world.call().raises(HandlerRaised("no"))
        self.assertTrue(self.successResultOf(self.cancel(world, 0)))
        self.finish(world)
        self.assertEqual((world.states(), self.skipped), (["skipped"], [None, "cancelled"]))

    def test_one_that_was_interrupted(self) -> None:
        """It does not come back."""
        world = self.world(1)
        world.call().raises(CallInterrupted("died", suspect=False))
        self.assertTrue(self.successResultOf(self.cancel(world, 0)))
        self.finish(world)
        self.assertEqual(world.states(), ["skipped"])

    def test_one_that_has_ended(self) -> None:
        """There is nothing to cancel."""
        world = self.world(1)
        world.call().returns()
        self.assertFalse(self.successResultOf(self.cancel(world, 0)))
        self.assertFalse(self.successResultOf(world.dispatcher.cancel_delivery("unknown", 7)))
        self.assertEqual(world.states(), ["done"])

    def test_while_it_is_settled(self) -> None:
        """A result stands; what would have been tried again is cancelled."""
        for error, states in ((None, ["done"]), (HandlerRaised("no"), ["skipped"])):
            world = self.world(1)
            world.store.writer.held = True
            if error is None:
                world.call().returns()
            else:
                world.call().raises(error)
            cancelling = self.cancel(world, 0)
            self.assertNoResult(cancelling)
            world.store.writer.release()
            self.assertEqual(self.successResultOf(cancelling), error is not None)
            self.finish(world)
            self.assertEqual(world.states(), states)

    def test_while_it_is_read(self) -> None:
        """A read that is under way brings nothing back of what was cancelled meanwhile."""
        world = self.world()
        world.store.reader.held = True
        world.call().returns()
        world.call().returns()
        row = world.rows()[2]
        self.assertEqual(len(world.store.reader.waiting), 1)
        cancelling = world.dispatcher.cancel_delivery(row.event_id, row.delivery_id)
        world.store.reader.release()
        self.assertTrue(self.successResultOf(cancelling))
        self.finish(world)
        self.assertEqual(world.states(), ["done", "done", "skipped", "done"])

    def test_event_log_away(self) -> None:
        """What is in the store alone stays as it was."""
        world = self.world()
        world.store.fail_writes = True
        self.failureResultOf(self.cancel(world, 3), EventLogUnavailable)
        world.store.fail_writes = False
        self.finish(world)
        self.assertEqual(world.states(), ["done"] * 4)

    def test_left_out_of_a_read(self) -> None:
        """A read leaves out what is being cancelled; where that fails it is read again, and begins."""
        world = self.world()
        world.store.writer.held = True
        cancelling = self.cancel(world, 3)
        for _ in range(3):
            world.call().returns()
        self.assertEqual((world.calls, world.dispatcher.stored(world.version())), ([], 1))
        world.store.fail_writes = True
        world.store.writer.release()
        self.failureResultOf(cancelling, EventLogUnavailable)
        self.assertEqual(len(world.calls), 1)
        world.store.fail_writes = False
        self.finish(world)
        self.assertEqual(world.states(), ["done"] * 4)

    def test_before_the_news_of_its_commit(self) -> None:
        """What is found in the store before its request was answered does not begin; where that fails it does."""
        for fails in (False, True):
            world = self.world(0)
            world.store.writer.held = True
            world.take()
            world.store.writer.run()
            cancelling = self.cancel(world, 0)
            world.store.writer.deliver()
            self.assertEqual(world.calls, [])
            world.store.fail_writes = fails
            world.store.writer.release()
            if fails:
                self.failureResultOf(cancelling, EventLogUnavailable)
                world.store.fail_writes = False
            else:
                self.assertTrue(self.successResultOf(cancelling))
            self.assertEqual(len(world.calls), int(fails))
            self.finish(world)
            self.assertEqual(world.states(), ["done" if fails else "skipped"])

    def test_no_counts_of_what_has_ended(self) -> None:
        """Neither a version that has ended nor a trigger that is gone has counts again."""
        world = self.world(1)
        world.call().raises(HandlerRaised("no"))
        world.adopt(one_trigger(retry=RetrySpec(backoff="svix"), timeout=7.0))
        self.assertEqual(world.ended, ["gh@v1"])
        self.assertTrue(self.successResultOf(self.cancel(world, 0)))
        self.assertNotIn("gh@v1", world.metrics.versions)
        world.take()
        world.call().raises(HandlerRaised("no"))
        world.adopt({})
        self.assertTrue(self.successResultOf(self.cancel(world, 1)))
        self.assertEqual(world.ended, ["gh@v1", "gh@v2"])
        self.assertEqual((world.metrics.versions, world.metrics.triggers), ({}, {}))
