"""At a drain's deadline: what an old version has not begun goes to the newest, or to the dead letters."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.closing import NAME
from harn.errors import HandlerRaised
from harn.manifest.model import RetrySpec
from harn.triggers.binding import DRAINING, TERMINATED
from tests.dispatch.world import World, one_trigger
from tests.triggers.examples import spec

WAITS = RetrySpec(backoff="svix")


def crowded(count: int = 5, **options: Any) -> World:
    """Make a world in which one delivery of ``gh@v1`` runs, and the others do not fit in memory."""
    world = World(**{"max_outstanding": 1, "max_deliveries": 2, **options})
    world.adopt(one_trigger())
    for _ in range(count):
        world.take()
    return world


def finish(world: World) -> list[str]:
    """Run everything; return the versions in order."""
    ran = []
    while world.calls:
        ran.append(world.calls[0].call.binding)
        world.calls[0].returns()
    return ran


class ToTheNewestTests(SynchronousTestCase):
    def test_everything_not_begun_moves(self) -> None:
        """In memory or in the store, it runs on the newest version; what runs stays; the old one ends with it."""
        world = crowded()
        old = world.version()
        world.adopt(one_trigger(timeout=5.0))
        self.assertEqual(self.successResultOf(world.dispatcher.move_on(old)), 4)
        self.assertEqual((old.in_flight, old.state, world.version().in_flight), (1, DRAINING, 4))
        self.assertEqual([row.version for row in world.rows()], [1] * 5)
        self.assertEqual(finish(world), ["gh@v1", *["gh@v2"] * 4])
        self.assertEqual((world.states(), world.ended, world.version().in_flight), (["done"] * 5, ["gh@v1"], 0))

    def test_waiting_retries_move_too(self) -> None:
        """They run on the newest version when they are due, and so does what comes late to the old one."""
        world = World()
        world.adopt(one_trigger(retry=RetrySpec(backoff="svix", version="pinned")))
        world.take()
        world.take()
        world.calls[0].raises(HandlerRaised("no"))
        old = world.version()
        old.lease()
        world.adopt(one_trigger(retry=RetrySpec(backoff="svix", version="pinned"), timeout=5.0))
        self.assertEqual(self.successResultOf(world.dispatcher.move_on(old)), 0)
        world.take(old)
        self.assertEqual([running.call.binding for running in world.calls], ["gh@v1", "gh@v2"])
        old.release()
        world.clock.advance(5.0)
        self.assertEqual(finish(world), ["gh@v1", "gh@v2", "gh@v2"])
        self.assertEqual(world.ended, ["gh@v1"])

    def test_while_the_store_is_away(self) -> None:
        """It is noted when the store is back; the old version does not end before."""
        world = crowded()
        old = world.version()
        world.adopt(one_trigger(timeout=5.0))
        world.store.fail_writes = True
        moving = world.dispatcher.move_on(old)
        self.assertNoResult(moving)
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual(self.successResultOf(moving), 4)
        self.assertEqual(finish(world), ["gh@v1", *["gh@v2"] * 4])
        self.assertEqual(world.ended, ["gh@v1"])

    def test_many_are_noted_together(self) -> None:
        """What is moved on while the record of closed versions is being written is in the next one, with all others."""
        world = World()
        ids = [f"t{number}" for number in range(50)]
        world.adopt({each: spec(each) for each in ids})
        old = [world.version(each) for each in ids]
        for binding in old:
            binding.lease()
        world.adopt({each: spec(each, timeout=5.0) for each in ids})
        put, written = world.store.checkpoints.put, list[Any]()

        def count(name: str, value: Any) -> Any:
            written.append(value)
            return put(name, value)

        self.patch(world.store.checkpoints, "put", count)
        world.store.writer.held = True
        moving = [world.dispatcher.move_on(binding) for binding in old]
        self.assertEqual([len(value) for value in written], [1])
        world.store.writer.release()
        self.assertEqual([self.successResultOf(each) for each in moving], [0] * 50)
        self.assertEqual([len(value) for value in written], [1, 50])
        self.assertEqual(self.successResultOf(world.store.checkpoints.get(NAME)), {each: [1] for each in ids})

    def test_many_while_the_store_is_away(self) -> None:
        """None of them is taken for written before the store is back."""
        world = World()
        world.adopt({each: spec(each) for each in "abc"})
        old = [world.version(each) for each in "abc"]
        for binding in old:
            binding.lease()
        world.adopt({each: spec(each, timeout=5.0) for each in "abc"})
        world.store.fail_writes = world.store.writer.held = True
        moving = [world.dispatcher.move_on(binding) for binding in old]
        world.store.writer.release()
        for each in moving:
            self.assertNoResult(each)
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual([self.successResultOf(each) for each in moving], [0] * 3)
        self.assertEqual(self.successResultOf(world.store.checkpoints.get(NAME)), {each: [1] for each in "abc"})


class RemovedTests(SynchronousTestCase):
    def test_everything_not_begun_is_a_dead_letter(self) -> None:
        """Queued in memory or in the store: ``binding_removed``; what runs may end well."""
        world = crowded()
        old = world.version()
        world.adopt({})
        self.successResultOf(world.dispatcher.move_on(old))
        self.assertEqual(world.states(), ["ready", *["dead"] * 4])
        self.assertEqual((world.dead_reasons(), world.counted(old).dead, old.in_flight), ({"binding_removed": 4}, 4, 1))
        self.assertEqual(finish(world), ["gh@v1"])
        self.assertEqual((world.states()[0], world.ended), ("done", ["gh@v1"]))

    def test_waiting_retries_run_until_the_deadline(self) -> None:
        """They keep the version draining, run on it when due, and are dead letters at the deadline; then it ends."""
        world = World()
        world.adopt(one_trigger(retry=WAITS))
        world.take()
        world.take()
        for running in world.calls:
            running.raises(HandlerRaised("no"))
        old = world.version()
        world.adopt({})
        self.assertEqual(old.state, DRAINING)
        world.clock.advance(5.0)
        world.calls[0].returns()
        world.calls[0].raises(HandlerRaised("no"))
        self.assertEqual((world.states(), old.state), (["done", "waiting"], DRAINING))
        self.successResultOf(world.dispatcher.move_on(old))
        self.assertEqual((world.states(), old.state), (["done", "dead"], TERMINATED))
        self.assertEqual((dict(world.registry.waiting), world.interpreters[0].closed), ({}, 1))

    def test_what_fails_after_the_deadline_is_not_tried_again(self) -> None:
        """There is nothing left to run it on: one unit of the attempt and the dead letter."""
        for retry in (RetrySpec(), WAITS):
            world = World()
            world.adopt(one_trigger(retry=retry))
            world.take()
            old = world.version()
            world.adopt({})
            self.successResultOf(world.dispatcher.move_on(old))
            world.call().raises(HandlerRaised("no"))
            self.assertEqual((world.states(), world.calls, old.state), (["dead"], [], TERMINATED))
            self.assertEqual(world.dead_reasons(), {"binding_removed": 1})

    def test_a_late_request(self) -> None:
        """What a request on a moved version still brings is accepted, and a dead letter."""
        world = World()
        world.adopt(one_trigger())
        old = world.version()
        old.lease()
        world.adopt({})
        self.successResultOf(world.dispatcher.move_on(old))
        self.assertEqual(len(self.successResultOf(world.take(old)).event_ids), 1)
        self.assertEqual((world.states(), old.in_flight), (["dead"], 1))
        old.release()
        self.assertEqual(world.ended, ["gh@v1"])
