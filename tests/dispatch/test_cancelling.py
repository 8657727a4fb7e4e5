"""Cancelling a drain: what a version still holds goes to the dead letters, once, whatever happens at that moment."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import AttemptFailed, CallInterrupted, HandlerRaised
from harn.lifecycle import DeadLettered, Settled
from harn.manifest.model import RetrySpec
from harn.model.exchange import Returned
from harn.store.event_log import DEAD_LETTERS
from harn.triggers.binding import DRAINING, TERMINATED, BindingVersion
from tests.dispatch.test_moving_on import WAITS, crowded, finish
from tests.dispatch.world import World, one_trigger


def letters(world: World) -> list[dict[str, Any]]:
    """Return the payloads of all dead letters."""
    found: list[dict[str, Any]] = []
    world.store.event_log.read(DEAD_LETTERS, 0, 1000).addCallback(
        lambda records: found.extend(record.payload for record in records)
    )
    return found


class CancelTests(SynchronousTestCase):
    """A version of a trigger that lives, or is gone."""

    def replaced(self, world: World, **settings: Any) -> BindingVersion:
        """Replace the live version; give the old one."""
        old = world.version()
        world.adopt(one_trigger(**{"timeout": 5.0, **settings}))
        return old

    def assert_cancelled(self, world: World, old: BindingVersion, count: int) -> None:
        """Assert that all its deliveries are dead, counted once, and that it has ended."""
        self.assertEqual(world.dead_reasons(), {"drain_cancelled": count})
        self.assertEqual((old.in_flight, old.state), (0, TERMINATED))
        self.assertEqual({letter["reason"] for letter in letters(world)}, {"drain_cancelled"})
        self.assertEqual(len(letters(world)), count)

    def test_everything_it_holds(self) -> None:
        """What runs, what waits in memory, what the store alone has: all of it, and nothing runs on."""
        for following in (one_trigger(timeout=5.0), {}):
            world = crowded()
            old = world.version()
            world.adopt(following)
            self.assertEqual(self.successResultOf(world.dispatcher.cancel(old)), 5)
            self.assertEqual((world.calls, world.states()), ([], ["dead"] * 5))
            self.assert_cancelled(world, old, 5)
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_what_the_letters_say(self) -> None:
        """A handler that was cut off may have taken effect; it is not counted as an attempt, and the letter says so."""
        world = crowded()
        old = self.replaced(world)
        attempts: list[object] = []
        world.lifecycle.subscribe(
            Settled, lambda event: attempts.extend(each.settlement.attempt for each in event.deliveries)
        )
        world.lifecycle.subscribe(DeadLettered, lambda event: attempts.extend([None] * event.count))
        self.successResultOf(world.dispatcher.cancel(old))
        errors = [letter["final_error"] for letter in letters(world)]
        self.assertEqual(len([error for error in errors if "while it ran; it may have taken effect" in error]), 1)
        self.assertTrue(all("gh@v1" in error for error in errors), errors)
        self.assertEqual({letter["attempt_count"] for letter in letters(world)}, {0})
        self.assertEqual(attempts, [None] * len(errors))

    def test_others_are_left_alone(self) -> None:
        """Its successor's deliveries run on; and of a trigger that lives, waiting retries stay its newest version's."""
        world = World()
        world.adopt(one_trigger(retry=WAITS))
        world.take()
        world.take()
        world.calls[0].raises(HandlerRaised("no"))
        old = self.replaced(world, retry=RetrySpec(backoff="svix", version="pinned"))
        world.take()
        self.assertEqual(self.successResultOf(world.dispatcher.cancel(old)), 1)
        self.assertEqual((world.states(), world.ended), (["waiting", "dead", "ready"], ["gh@v1"]))
        world.clock.advance(5.0)
        self.assertEqual(finish(world), ["gh@v2", "gh@v2"])
        self.assertEqual((world.states(), dict(world.registry.waiting)), (["done", "dead", "done"], {}))

    def test_retries_of_a_trigger_that_is_gone(self) -> None:
        """They are given up too, those of versions that have ended as well; nothing of it is left."""
        world = World()
        world.adopt(one_trigger(retry=WAITS))
        for timeout in (5.0, 6.0, 7.0):
            world.take()
            world.calls[-1].raises(HandlerRaised("no"))
            world.adopt(one_trigger(retry=WAITS, timeout=timeout))
        world.take()
        old = world.version()
        world.adopt({})
        self.assertEqual((world.ended, old.state), (["gh@v1", "gh@v2", "gh@v3"], DRAINING))
        self.assertEqual(self.successResultOf(world.dispatcher.cancel(old)), 4)
        self.assert_cancelled(world, old, 4)
        self.assertEqual((dict(world.registry.waiting), world.interpreters[3].closed), ({}, 1))
        world.clock.advance(100.0)
        self.assertEqual((world.calls, world.clock.getDelayedCalls()), ([], []))

    def test_twice(self) -> None:
        """Who asks while it is under way gets the same answer; who asks later, that nothing was left."""
        world = crowded()
        old = self.replaced(world)
        old.lease()
        world.store.writer.held = True
        both = [world.dispatcher.cancel(old), world.dispatcher.cancel(old)]
        world.store.writer.release()
        self.assertEqual([self.successResultOf(each) for each in both], [5, 5])
        self.assertEqual(self.successResultOf(world.dispatcher.cancel(old)), 0)
        old.release()
        self.assert_cancelled(world, old, 5)

    def test_the_event_log_is_away(self) -> None:
        """It is tried again until it is on disk; nothing runs meanwhile, and the version does not end before."""
        world = crowded()
        old = self.replaced(world)
        world.store.fail_writes = True
        cancelling = world.dispatcher.cancel(old)
        for _ in range(3):
            world.clock.advance(1.0)
            self.assertNoResult(cancelling)
            self.assertEqual((world.calls, old.state), ([], DRAINING))
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual(self.successResultOf(cancelling), 5)
        self.assert_cancelled(world, old, 5)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_the_deadline_passes(self) -> None:
        """Before, meanwhile or after: what moved on has moved on, the rest is given up, and nothing is both."""
        world = crowded()
        old = self.replaced(world)
        self.successResultOf(world.dispatcher.move_on(old))
        self.assertEqual(self.successResultOf(world.dispatcher.cancel(old)), 1)
        self.assertEqual(finish(world), ["gh@v2"] * 4)
        self.assert_cancelled(world, old, 1)

        world = crowded()
        old = self.replaced(world)
        world.store.fail_writes = True
        cancelling = world.dispatcher.cancel(old)
        self.assertEqual(self.successResultOf(world.dispatcher.move_on(old)), 0)
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual(self.successResultOf(cancelling), 5)
        self.assert_cancelled(world, old, 5)

    def test_a_settlement_under_way(self) -> None:
        """What a handler came to just before stands; only what would have been tried again is given up."""
        for retry in (WAITS, RetrySpec()):
            world = World()
            world.adopt(one_trigger(retry=retry))
            outcomes: list[str] = []
            world.lifecycle.subscribe(
                Settled,
                lambda event, seen=outcomes: seen.extend(
                    each.settlement.attempt.outcome for each in event.deliveries if each.settlement.attempt is not None
                ),
            )
            world.take()
            world.take()
            world.store.writer.held = True
            world.calls[0].returns()
            world.calls[0].raises(HandlerRaised("no"))
            old = world.version()
            world.adopt({})
            cancelling = world.dispatcher.cancel(old)
            world.store.writer.release()
            self.assertEqual(self.successResultOf(cancelling), 1)
            world.clock.advance(0)
            self.assertEqual((world.states(), world.calls), (["done", "dead"], []))
            self.assert_cancelled(world, old, 1)
            self.assertEqual(outcomes, ["success", "failed"])
            world.clock.advance(60.0)
            self.assertEqual((dict(world.registry.waiting), world.clock.getDelayedCalls()), ({}, []))

    def test_a_call_that_ends_at_that_moment(self) -> None:
        """A result stands; a failure, or an interruption, is not tried again."""
        cases: tuple[tuple[Returned | Exception, str], ...] = (
            (Returned(b"1"), "done"),
            (HandlerRaised("no"), "dead"),
            (CallInterrupted("died", suspect=True), "dead"),
            (AttemptFailed("odd"), "dead"),
        )
        for answer, state in cases:
            world = World()
            world.adopt(one_trigger())
            world.take()
            world.call().cancelled = answer
            old = self.replaced(world)
            self.assertEqual(self.successResultOf(world.dispatcher.cancel(old)), int(state == "dead"))
            self.assertEqual((world.states(), world.calls, old.in_flight), ([state], [], 0))
            self.assertEqual((world.clock.getDelayedCalls(), world.ended), ([], ["gh@v1"]))

    def test_a_late_request(self) -> None:
        """What a request on it brings afterwards goes to the newest version; of a trigger that is gone it is dead."""
        world = World()
        world.adopt(one_trigger())
        old = world.version()
        old.lease()
        self.replaced(world)
        self.successResultOf(world.dispatcher.cancel(old))
        self.successResultOf(world.take(old))
        self.assertEqual(finish(world), ["gh@v2"])
        old.release()
        world.adopt(one_trigger(timeout=6.0))
        last = world.version()
        last.lease()
        world.adopt({})
        self.successResultOf(world.dispatcher.cancel(last))
        self.successResultOf(world.take(last))
        last.release()
        self.assertEqual((world.states(), world.dead_reasons()), (["done", "dead"], {"drain_cancelled": 1}))
        self.assertEqual((world.ended, world.clock.getDelayedCalls()), (["gh@v1", "gh@v2", "gh@v3"], []))

    def test_after_the_end(self) -> None:
        """A dispatcher that is closed writes nothing more, and leaves no timer."""
        world = crowded()
        old = self.replaced(world)
        world.store.fail_writes = True
        cancelling = world.dispatcher.cancel(old)
        world.dispatcher.close()
        world.store.fail_writes = False
        world.clock.advance(10.0)
        self.assertNoResult(cancelling)
        self.assertEqual((world.states(), world.clock.getDelayedCalls()), (["ready"] * 5, []))
