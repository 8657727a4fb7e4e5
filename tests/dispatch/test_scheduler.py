"""Turns among triggers: who begins next, how many, and who waits for whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import LARGE_BODY
from tests.dispatch.world import World
from tests.triggers.examples import spec


class FairnessTests(SynchronousTestCase):
    """Triggers with deliveries at the same time."""

    def world(self, *trigger_ids: str, settings: dict[str, Any] | None = None, **options: Any) -> World:
        """Make a world with these triggers; ``settings`` are of the first."""
        world = World(**options)
        specs = {each: spec(each) for each in trigger_ids}
        if settings is not None:
            specs[trigger_ids[0]] = spec(trigger_ids[0], **settings)
        world.adopt(specs)
        return world

    def take(self, world: World, trigger_id: str, count: int = 1, body: bytes = b"{}") -> None:
        """Accept so many events."""
        for _ in range(count):
            world.take(world.version(trigger_id), body=body)

    def running(self, world: World) -> Counter[str]:
        """Count the handlers that run, by trigger."""
        return Counter(running.call.trigger_id for running in world.calls)

    def order(self, world: World) -> str:
        """Run everything one after the other; return the triggers in order."""
        ran = ""
        while world.calls:
            running = world.calls[0]
            ran += running.call.trigger_id
            running.returns()
        return ran

    def test_turns(self) -> None:
        """However many one has, another waits for its turn alone."""
        world = self.world("a", "b", "c", max_outstanding=1)
        self.take(world, "a", 6)
        self.take(world, "b", 2)
        self.take(world, "c")
        self.assertEqual(self.order(world), "abcabaaaa")

    def test_weights(self) -> None:
        """A trigger of weight 3 begins three for each one of another."""
        world = self.world("a", "b", settings={"weight": 3}, max_outstanding=1)
        self.take(world, "b")
        self.take(world, "a", 9)
        self.take(world, "b", 3)
        self.assertEqual(self.order(world), "b" + "aaab" * 3)

    def test_a_limit(self) -> None:
        """No more of a trigger run than it may, whatever is free; others are not held up; a reload applies another."""
        world = self.world("a", "b", settings={"max_outstanding": 2}, max_outstanding=8)
        self.take(world, "a", 6)
        self.take(world, "b", 2)
        self.assertEqual(self.running(world), {"a": 2, "b": 2})
        world.calls[0].returns()
        self.assertEqual(self.running(world), {"a": 2, "b": 2})
        world.adopt({"a": spec("a", max_outstanding=3), "b": spec("b")})
        world.dispatcher.apply(8)
        self.assertEqual(self.running(world), {"a": 3, "b": 2})

    def test_places_are_left_for_others(self) -> None:
        """Of several triggers one takes seven of eight places at most; where it is the only one, it takes all."""
        world = self.world("a", "b", "c", max_outstanding=64)
        self.take(world, "a", 100)
        self.assertEqual(self.running(world), {"a": 56})
        self.take(world, "b")
        self.assertEqual(self.running(world), {"a": 56, "b": 1})
        alone = self.world("a", max_outstanding=64)
        self.take(alone, "a", 100)
        self.assertEqual(self.running(alone), {"a": 64})

    def test_few_places_are_all_taken(self) -> None:
        """With few places none is kept free: the other waits for the first handler that ends, and no longer."""
        world = self.world("a", "b", max_outstanding=4)
        self.take(world, "a", 20)
        self.take(world, "b")
        self.assertEqual(self.running(world), {"a": 4})
        world.calls[0].returns()
        self.assertEqual(self.running(world), {"a": 3, "b": 1})

    def test_memory_is_shared(self) -> None:
        """A flood takes half of the memory; the events of another trigger are still handed over in memory."""
        world = self.world("a", "b", max_outstanding=1, max_deliveries=100)
        self.take(world, "a", 300)
        self.assertEqual(world.dispatcher.queued, 50)
        world.store.reader.held = True
        self.take(world, "b", 20)
        self.assertEqual((world.dispatcher.queued, world.dispatcher.stored(world.version("b"))), (70, 0))
        world.calls[0].returns()
        self.assertEqual(self.running(world), {"b": 1})

    def test_a_large_body_that_waits_for_room(self) -> None:
        """It keeps small ones of other triggers from nothing, and later large ones from its turn."""
        large = b"x" * (LARGE_BODY + 1)
        world = self.world("a", "b", max_outstanding=10, max_bytes=2 * len(large))
        self.take(world, "a", 2, large)
        self.take(world, "a", 1, large + large[:9])
        self.take(world, "b", 1, large)
        self.take(world, "b", 2)
        self.assertEqual(self.running(world), {"a": 2, "b": 2})
        world.calls[0].returns()
        self.assertEqual(self.running(world), {"a": 1, "b": 2})
        while world.calls:
            world.calls[0].returns()
        self.assertEqual(set(world.states()), {"done"})

    def test_everything_ends(self) -> None:
        """Many triggers with more than memory holds: each delivery runs once, and nothing is left."""
        ids = [f"t{number}" for number in range(12)]
        world = self.world(*ids, max_outstanding=5, max_deliveries=7)
        for each in ids:
            self.take(world, each, 9)
        ran = Counter[str]()
        while world.calls:
            running = world.calls[-1]
            ran[running.call.trigger_id] += 1
            running.returns()
        self.assertEqual(ran, dict.fromkeys(ids, 9))
        self.assertEqual({binding.in_flight for binding in world.registry}, {0})
        self.assertEqual((world.dispatcher.queued, world.dispatcher.bytes_in_hand), (0, 0))


class RoomTests(SynchronousTestCase):
    """`Room`."""

    def test_always_some_for_an_empty_queue(self) -> None:
        """While anything is free, a queue that holds nothing may take one."""
        world = World(max_outstanding=0, max_deliveries=3)
        world.adopt({each: spec(each) for each in "abcde"})
        for each in "aabbccddee":
            world.take(world.version(each))
        self.assertEqual(world.dispatcher.queued, 3)
