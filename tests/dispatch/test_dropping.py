"""Dropping deliveries that other servers have taken over: what waits, what runs, what is being settled."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import CallInterrupted, HandlerRaised
from harn.lifecycle import Fenced, Interrupted, Settled, TakenAway
from harn.manifest.model import RetrySpec
from harn.store.deliveries import Backlog
from tests.dispatch.world import World
from tests.triggers.examples import spec


class DroppingTests(SynchronousTestCase):
    def world(self, **options: Any) -> World:
        """Make a world with a trigger that retries later, and what it drops and settles counted."""
        world = World(**{"max_outstanding": 2, **options})
        world.adopt({"gh": spec("gh", retry=RetrySpec(backoff="svix"))})
        self.dropped: list[int] = []
        self.settled: list[str] = []
        world.lifecycle.subscribe(TakenAway, lambda event: self.dropped.append(event.count))
        world.lifecycle.subscribe(
            Settled, lambda event: self.settled.extend([each.event_id for each in event.deliveries])
        )
        return world

    def fence(self, world: World) -> None:
        """Emit that others have taken over its deliveries, and that it continues under another number."""
        world.lifecycle.emit(Fenced(1, 2))

    def test_what_waits(self) -> None:
        """It leaves memory with its leases, and nothing of it begins any more; what comes then is run."""
        world = self.world()
        for _ in range(5):
            world.take()
        self.assertEqual((len(world.calls), world.dispatcher.queued), (2, 3))
        self.fence(world)
        self.assertEqual((world.dispatcher.queued, world.version().in_flight, self.dropped), (0, 2, [3]))
        for call in list(world.calls):
            call.returns()
        self.assertEqual((world.calls, self.settled, world.version().in_flight), ([], [], 0))
        self.assertEqual(self.dropped, [3, 1, 1])
        world.take()
        world.call().returns()
        self.assertEqual(len(self.settled), 1)

    def test_what_was_cut_off(self) -> None:
        """A call that ended with its interpreter is not made again."""
        world = self.world()
        world.take()
        self.fence(world)
        world.call().raises(CallInterrupted("it is closed", suspect=False))
        world.clock.advance(5.0)
        self.assertEqual((world.calls, world.version().in_flight), ([], 0))

    def test_what_is_to_run_again(self) -> None:
        """What is to begin again in a moment does not; nor does what waits for a retry."""
        world = self.world()
        world.take()
        world.call().raises(HandlerRaised("no"))
        world.take()
        world.call().raises(CallInterrupted("it is closed", suspect=False))
        self.assertEqual(sum(world.registry.waiting.values()), 1)
        self.fence(world)
        self.assertEqual(sum(world.registry.waiting.values()), 0)
        world.clock.advance(1.0)
        self.assertEqual((world.calls, self.dropped, world.version().in_flight), ([], [2], 0))

    def retake(self, world: World, number: int = 1) -> None:
        """Take over the deliveries under its own earlier number, as when no other server has done so."""
        rows = [row for row in world.rows() if row.state == "ready"]
        world.dispatcher.take_over([Backlog(trigger_id="gh", version=number, ready=len(rows), waiting=0)])

    def test_what_runs_and_is_its_own_again(self) -> None:
        """What it takes over itself is run again once the old handler has ended, and not before."""
        world = self.world()
        world.take()
        self.fence(world)
        self.retake(world)
        self.assertEqual((len(world.calls), world.dispatcher.stored(world.version())), (1, 1))
        world.call().returns()
        self.assertEqual((len(world.calls), self.settled), (1, []))
        world.call().returns()
        self.assertEqual((len(self.settled), world.calls, world.version().in_flight), (1, [], 0))
        self.assertEqual(world.states(), ["done"])

    def test_an_old_handler_that_ends_during_the_read(self) -> None:
        """The read that left its delivery out is followed by another one."""
        world = self.world()
        world.take()
        self.fence(world)
        ready, unanswered = world.store.deliveries.ready, Deferred[Any]()
        self.patch(world.store.deliveries, "ready", lambda *given: unanswered)
        self.retake(world)
        self.patch(world.store.deliveries, "ready", ready)
        world.call().returns()
        self.assertEqual(world.calls, [])
        unanswered.callback([])
        world.call().returns()
        self.assertEqual((world.states(), world.version().in_flight), (["done"], 0))

    def test_what_the_store_refuses(self) -> None:
        """An outcome that comes when another server has the delivery is dropped, and nothing counts it."""
        world = self.world()
        refused: Deferred[Any] = Deferred()
        interrupted: list[int] = []
        world.lifecycle.subscribe(Interrupted, lambda event: interrupted.append(event.delivery_id))
        self.patch(world.store.deliveries, "settle", lambda *given: refused)
        world.take()
        (delivery_id,) = world.dispatcher.in_progress
        world.call().returns()
        refused.callback({delivery_id})
        self.assertEqual((self.settled, self.dropped, world.version().in_flight), ([], [1], 0))
        self.assertEqual(interrupted, [delivery_id])
