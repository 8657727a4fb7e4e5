"""Large bodies: released while their delivery waits, read back when it begins, and bounded while it runs."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import CallInterrupted, HandlerRaised
from harn.manifest.model import RetrySpec
from harn.model.delivery import LARGE_BODY
from tests.dispatch.world import World, one_trigger

SIZE = LARGE_BODY + 1
LARGE = b"x" * SIZE
SMALL = b"s" * 10


class LargeBodyTests(SynchronousTestCase):
    def world(self, **options: Any) -> World:
        """Make a world with one trigger, whose failures are tried again at once."""
        made = World(**options)
        made.adopt(one_trigger(retry=RetrySpec(max=3)))
        return made

    def sizes(self, world: World) -> list[int]:
        """Return the sizes of the bodies that run."""
        return [len(running.call.body) for running in world.calls]

    def test_begins_at_once(self) -> None:
        """One whose turn comes at once is not read back; when it has ended, nothing is held any more."""
        world = self.world()
        world.store.reader.held = True
        world.take(body=LARGE)
        self.assertEqual(world.call().call.body, LARGE)
        self.assertGreater(world.dispatcher.bytes_in_hand, SIZE)
        world.call().returns()
        self.assertEqual((world.states(), world.dispatcher.bytes_in_hand), (["done"], 0))

    def test_waits_without_its_body(self) -> None:
        """One that waits holds no body; it is read back, whole, when its turn comes."""
        world = self.world(max_outstanding=1)
        bodies = [SMALL, LARGE + b"1", LARGE + b"2"]
        for body in bodies:
            world.take(body=body)
        self.assertLess(world.dispatcher.bytes_in_hand, 10_000)
        seen = []
        for _ in bodies:
            seen.append(world.call().call.body)
            world.call().returns()
        self.assertEqual((seen, world.states()), (bodies, ["done"] * 3))
        self.assertEqual((world.version().in_flight, world.dispatcher.bytes_in_hand), (0, 0))

    def test_so_much_at_once(self) -> None:
        """Large bodies run beside each other as far as there is room; small ones pass those that wait for it."""
        world = self.world(max_bytes=2 * SIZE, max_outstanding=10)
        for body in (LARGE, LARGE, LARGE, SMALL, LARGE, SMALL):
            world.take(body=body)
        self.assertEqual(self.sizes(world), [SIZE, SIZE, 10, 10])
        self.assertEqual(world.dispatcher.queued, 2)
        world.calls[-1].returns()
        self.assertEqual(self.sizes(world), [SIZE, SIZE, 10])
        world.calls[0].returns()
        self.assertEqual(self.sizes(world), [SIZE, 10, SIZE])
        while world.calls:
            world.calls[0].returns()
        self.assertEqual((world.states(), world.dispatcher.bytes_in_hand), (["done"] * 6, 0))

    def test_in_their_order(self) -> None:
        """One that waits for room is not passed by others that are large, though they would fit: else it waits long."""
        world = self.world(max_bytes=3 * SIZE, max_outstanding=10)
        for body in (LARGE, LARGE, LARGE + LARGE, LARGE, LARGE, SMALL):
            world.take(body=body)
        self.assertEqual(self.sizes(world), [SIZE, SIZE, 10])
        world.calls[0].returns()
        self.assertEqual(self.sizes(world), [SIZE, 10, 2 * SIZE])
        while world.calls:
            world.calls[0].returns()
        self.assertEqual(world.states(), ["done"] * 6)

    def test_one_that_is_larger_than_the_bound(self) -> None:
        """It runs, without another large one beside it."""
        world = self.world(max_bytes=LARGE_BODY)
        for body in (LARGE, LARGE, SMALL):
            world.take(body=body)
        self.assertEqual(self.sizes(world), [SIZE, 10])
        world.calls[0].returns()
        self.assertEqual(self.sizes(world), [10, SIZE])

    def test_tried_again(self) -> None:
        """After a failure, and after an interruption, it is read back for the next time."""
        world = self.world()
        world.take(body=LARGE)
        world.call().raises(HandlerRaised("no"))
        self.assertEqual((world.call().call.attempt, world.call().call.body), (2, LARGE))
        world.call().raises(CallInterrupted("it died", suspect=False))
        world.clock.advance(0)
        self.assertEqual((world.call().call.attempt, world.call().call.body), (2, LARGE))
        world.call().returns()
        self.assertEqual((world.states(), world.dispatcher.bytes_in_hand), (["done"], 0))

    def test_event_log_away(self) -> None:
        """A body that cannot be read costs no attempt; it is read as soon as it can be."""
        world = self.world(max_outstanding=1)
        for body in (SMALL, LARGE):
            world.take(body=body)
        world.store.fail_reads = True
        world.call().returns()
        world.clock.pump([1.0] * 3)
        self.assertEqual((world.calls, world.dispatcher.bytes_in_hand < 10_000), ([], True))
        world.store.fail_reads = False
        world.clock.advance(1.0)
        self.assertEqual((world.call().call.attempt, world.call().call.body), (1, LARGE))

    def test_cancelled_while_it_is_read(self) -> None:
        """Cancelling its drain ends it; the body that comes late is discarded."""
        world = self.world(max_outstanding=1)
        for body in (SMALL, LARGE):
            world.take(body=body)
        version = world.version()
        world.store.reader.held = True
        world.call().returns()
        self.assertEqual(len(world.dispatcher.in_progress), 1)
        world.adopt({})
        cancelling = world.dispatcher.cancel(version)
        world.store.reader.release()
        self.successResultOf(cancelling)
        self.assertEqual((world.states(), world.ended), (["done", "dead"], ["gh@v1"]))
        self.assertEqual(world.dispatcher.bytes_in_hand, 0)

    def test_after_a_restart(self) -> None:
        """What an earlier server left is taken up without large bodies, and run with them."""
        world = self.world()
        for _ in range(3):
            world.take(body=LARGE)
        world.store.close()
        later = World(world.store, world.clock, max_bytes=SIZE)
        later.adopt(one_trigger(retry=RetrySpec(max=3)))
        recovery = self.successResultOf(later.store.recovery.recover(world.clock.seconds(), 10))
        later.dispatcher.take_over(recovery.backlog)
        for number in range(3):
            self.assertEqual(later.call().call.body, LARGE)
            self.assertEqual(later.dispatcher.queued, 2 - number)
            later.call().returns()
        self.assertEqual((later.states(), later.dispatcher.bytes_in_hand), (["done"] * 3, 0))
