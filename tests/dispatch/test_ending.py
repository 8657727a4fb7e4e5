"""The end of one server and the start of the next."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import CallInterrupted, HandlerRaised
from harn.manifest.model import RetrySpec
from harn.model.delivery import WAITING, Settlement
from harn.store.deliveries import Backlog
from tests.dispatch.world import World, one_trigger

WAITS = RetrySpec(backoff="svix")


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(max_outstanding=1)
        self.world.adopt(one_trigger())

    def take(self, count: int) -> None:
        """Accept so many events."""
        for _ in range(count):
            self.world.take()

    def test_nothing_to_do(self) -> None:
        """It is over at once."""
        self.successResultOf(self.world.dispatcher.drain(10))

    def test_begins_no_more_than_it_may(self) -> None:
        """What runs and so many more end; the rest stays in the store, ready for the next server."""
        self.take(5)
        drained = self.world.dispatcher.drain(2)
        for _ in range(3):
            self.assertNoResult(drained)
            self.world.call().returns()
        self.successResultOf(drained)
        self.assertEqual((self.world.calls, self.world.dispatcher.queued), ([], 2))
        self.assertEqual(self.world.states(), ["done"] * 3 + ["ready"] * 2)

    def test_waits_for_outcomes_on_disk(self) -> None:
        """An outcome that cannot be written yet holds it."""
        self.take(1)
        drained = self.world.dispatcher.drain(0)
        self.world.store.fail_writes = True
        self.world.call().returns()
        self.assertNoResult(drained)
        self.world.store.fail_writes = False
        self.world.clock.advance(1.0)
        self.successResultOf(drained)

    def test_event_log_gone(self) -> None:
        """Once the event log needs a restart, nothing more begins, not even to end the server: it would run twice."""
        self.take(5)
        self.world.store.abandon("its files were removed")
        self.world.call().returns()
        self.world.clock.pump([1.0] * 5)
        self.assertEqual(self.world.calls, [])
        self.world.dispatcher.drain(10)
        self.assertEqual((self.world.calls, self.world.dispatcher.queued), ([], 4))

    def test_waits_for_what_was_interrupted(self) -> None:
        """A bystander that waits to run again is not lost."""
        self.take(1)
        drained = self.world.dispatcher.drain(1)
        self.world.call().raises(CallInterrupted("killed", suspect=False))
        self.assertNoResult(drained)
        self.world.clock.advance(0)
        self.world.call().returns()
        self.successResultOf(drained)

    def test_retries_are_left_alone(self) -> None:
        """No retry is taken up any more, whenever it is due, and no timer stays."""
        self.world.adopt(one_trigger(retry=WAITS))
        self.take(1)
        self.world.call().raises(HandlerRaised("no"))
        self.take(1)
        drained = self.world.dispatcher.drain(10)
        self.world.call().raises(HandlerRaised("no"))
        self.successResultOf(drained)
        self.assertEqual((self.world.states(), self.world.clock.getDelayedCalls()), (["waiting"] * 2, []))

    def test_nothing_begins_after_it_is_over(self) -> None:
        """A read of the store that ends later brings nothing to run."""
        world = World(max_outstanding=1, max_deliveries=1)
        world.adopt(one_trigger())
        for _ in range(4):
            world.take()
        world.store.reader.held = True
        drained = world.dispatcher.drain(10)
        while world.calls:
            world.call().returns()
        self.successResultOf(drained)
        world.store.reader.release()
        self.assertEqual((world.calls, world.states()), ([], ["done", "done", "ready", "ready"]))

    def test_close(self) -> None:
        """Nothing begins any more, nothing is written, and no timer stays."""
        self.take(4)
        self.world.call().raises(CallInterrupted("killed", suspect=False))
        self.world.store.fail_writes = True
        self.world.call().returns()
        self.world.dispatcher.close()
        self.world.dispatcher.apply(10)
        self.world.clock.advance(10.0)
        self.assertEqual((len(self.world.calls), self.world.clock.getDelayedCalls()), (1, []))
        self.assertEqual(self.world.states(), ["ready"] * 4)


class ResumeTests(SynchronousTestCase):
    def restarted(self, before: World, **options: int) -> World:
        """Begin again on what a server left behind, with the same trigger at the same version."""
        before.dispatcher.close()
        before.store.close()
        world = World(before.store, before.clock, **{"max_outstanding": 1, "max_deliveries": 2, **options})
        world.adopt(one_trigger(retry=before.version().spec.retry))
        self.recover(world)
        return world

    def recover(self, world: World) -> None:
        """Perform the steps of a recovery: take the rows over, take their leases, look ahead."""
        backlog: tuple[Backlog, ...] = self.successResultOf(
            world.store.recovery.recover(world.clock.seconds(), 10)
        ).backlog
        world.dispatcher.take_over(backlog)
        world.dispatcher.resume(self.successResultOf(world.store.deliveries.next_due()))

    def test_everything_unfinished_goes_on(self) -> None:
        """Ready rows run in order, waiting ones when they are due; new events come after."""
        before = World(max_outstanding=2)
        before.adopt(one_trigger(retry=WAITS))
        for _ in range(6):
            before.take()
        before.calls[0].raises(HandlerRaised("no"))
        world = self.restarted(before)
        world.take()
        ran = []
        while world.calls:
            ran.append(world.call().call.event_id)
            world.call().returns()
        rows = world.rows()
        self.assertEqual(ran, [row.event_id for row in rows[1:]])
        world.clock.advance(5.0)
        self.assertEqual((world.call().call.event_id, world.call().call.attempt), (rows[0].event_id, 2))
        world.call().returns()
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 7, 0))

    def test_a_due_retry_ahead_of_the_backlog_runs_once(self) -> None:
        """A retry that is due, fails and is ready again before the reading gets to it is not read a second time."""
        before = World(max_outstanding=1)
        before.adopt(one_trigger(retry=RetrySpec(backoff="exponential", base=1.0, jitter=0.0)))
        for _ in range(6):
            before.take()
        rows = before.rows()
        waiting = self.successResultOf(before.store.deliveries.find(rows[4].event_id))[0]
        self._wait(before, waiting.delivery_id)
        world = self.restarted(before, max_deliveries=2)
        world.adopt(one_trigger(retry=RetrySpec()))
        world.dispatcher.apply(10)
        world.clock.advance(1.0)
        attempts: dict[str, int] = {}
        for _ in range(30):
            if not world.calls:
                world.clock.advance(1.0)
                continue
            ids = [running.call.event_id for running in world.calls]
            self.assertEqual(len(set(ids)), len(ids))
            running = world.calls[-1]
            attempts[running.call.event_id] = attempts.get(running.call.event_id, 0) + 1
            if attempts[running.call.event_id] == 1:
                running.raises(HandlerRaised("no"))
            else:
                running.returns()
        self.assertEqual(world.states(), ["done"] * 6)
        self.assertEqual(set(attempts.values()), {2})
        self.assertEqual(sum(binding.in_flight for binding in world.registry), 0)

    def test_what_ran_at_a_crash(self) -> None:
        """What runs when a server crashes counts that, what has ended or was not begun does not."""
        before = World(max_outstanding=2)
        before.adopt(one_trigger())
        for _ in range(4):
            before.take()
        before.calls[0].returns()
        before.dispatcher.close()
        world = World(before.store, before.clock, max_outstanding=2)
        world.adopt(one_trigger())
        self.recover(world)
        self.assertEqual([row.crashes for row in world.rows()], [0, 1, 1, 0])
        while world.calls:
            world.calls[0].returns()
        self.assertEqual(world.states(), ["done"] * 4)

    def test_a_row_that_was_read_back_is_noted_first(self) -> None:
        """It may have killed the last server, so it runs once the note is there; a new one runs at once."""
        before = World(max_outstanding=1)
        before.adopt(one_trigger())
        before.take()
        before.dispatcher.close()
        noted: list[Deferred[None]] = []

        def begins(delivery_id: int) -> Deferred[None]:
            noted.append(Deferred())
            return noted[-1]

        self.patch(before.store.deliveries, "begins", begins)
        world = World(before.store, before.clock)
        world.adopt(one_trigger())
        self.recover(world)
        self.assertEqual((len(noted), world.calls, len(world.dispatcher.in_progress)), (1, [], 1))
        world.take()
        self.assertEqual((len(noted), len(world.calls)), (1, 1))
        noted[0].callback(None)
        self.assertEqual(len(world.calls), 2)
        for running in list(world.calls):
            running.returns()
        self.assertEqual((world.states(), world.dispatcher.in_progress), (["done"] * 2, {}))

    def _wait(self, world: World, delivery_id: int) -> None:
        settlement = Settlement(
            delivery_id=delivery_id, state=WAITING, version=1, attempts=1, due_at=world.clock.seconds() + 1.0
        )
        self.successResultOf(world.store.deliveries.settle(settlement))

    def test_recovery_while_serving(self) -> None:
        """An operator may have rows taken over long after the start: they are older than all that came since."""
        before = World(max_outstanding=1)
        before.adopt(one_trigger())
        for _ in range(3):
            before.take()
        before.dispatcher.close()
        before.store.close()
        world = World(before.store, before.clock, max_outstanding=1)
        world.adopt(one_trigger())
        for _ in range(3):
            world.take()
        world.call().returns()
        self.recover(world)
        ran = []
        while world.calls:
            ran.append(world.call().call.event_id)
            world.call().returns()
        self.assertEqual((len(ran), len(set(ran))), (5, 5))
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 6, 0))

    def test_rows_of_a_trigger_that_is_gone(self) -> None:
        """What no version is left for is a dead letter, ready or waiting."""
        before = World(max_outstanding=2)
        before.adopt(one_trigger(retry=WAITS))
        for _ in range(3):
            before.take()
        before.calls[0].raises(HandlerRaised("no"))
        before.dispatcher.close()
        before.store.close()
        world = World(before.store, before.clock)
        world.adopt({})
        backlog = self.successResultOf(world.store.recovery.recover(world.clock.seconds(), 10)).backlog
        world.store.fail_writes = True
        world.dispatcher.take_over(backlog)
        world.dispatcher.resume(self.successResultOf(world.store.deliveries.next_due()))
        world.clock.advance(5.0)
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual((world.states(), world.calls), (["dead"] * 3, []))
        self.assertEqual((world.dead_reasons(), dict(world.registry.waiting)), ({"binding_removed": 3}, {}))

    def test_a_version_that_stands_in(self) -> None:
        """Leases that it took over for rows of a version that cannot be revived are found, also when it drains."""
        before = World(max_outstanding=1)
        before.adopt(one_trigger())
        for _ in range(5):
            before.take()
        before.dispatcher.close()
        before.store.close()
        world = World(before.store, before.clock, max_outstanding=1, max_deliveries=1)
        world.numbers["gh"] = 1
        world.adopt(one_trigger(timeout=5.0))
        self.recover(world)
        world.adopt(one_trigger(timeout=6.0))
        ran: list[str] = []
        while world.calls:
            ran.append(world.call().call.binding)
            world.call().returns()
        self.assertEqual((ran, world.ended), (["gh@v2"] * 5, ["gh@v2"]))
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 5, 0))


class StopTests(SynchronousTestCase):
    def test_a_drain_under_way_is_not_answered_by_close(self) -> None:
        """A caller that waits for the drain has a time limit of its own; closing does not claim that it has ended."""
        world = World()
        world.adopt(one_trigger())
        world.take()
        drained: Deferred[None] = world.dispatcher.drain(0)
        world.dispatcher.close()
        self.assertNoResult(drained)
