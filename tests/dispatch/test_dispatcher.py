"""Running deliveries and making their outcomes durable."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import LONGEST_SLEEP, rfc3339
from harn.errors import (
    CallInterrupted,
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    InterpreterDied,
)
from harn.manifest.model import RetrySpec
from harn.testing.clocks import START
from harn.triggers.binding import DRAINING
from tests.dispatch.world import World, happened, one_trigger

WAITS = RetrySpec(backoff="svix")


class DispatcherTests(SynchronousTestCase):
    def world(self, retry: RetrySpec | None = None, **options: Any) -> World:
        """Make a world with one trigger."""
        made = World(**options)
        made.adopt(one_trigger(retry=RetrySpec() if retry is None else retry))
        return made


class RunningTests(DispatcherTests):
    def test_done(self) -> None:
        """A result is one durable unit, after which nothing is held."""
        world = self.world()
        world.take()
        world.store.writer.held = True
        running = world.call()
        self.assertEqual((running.call.binding, running.call.attempt, running.call.body), ("gh@v1", 1, b"{}"))
        running.returns(b'{"ok":true}')
        self.assertEqual(world.version().in_flight, 1)
        world.store.writer.release()
        self.assertEqual((world.states(), world.version().in_flight), (["done"], 0))
        self.assertEqual(world.counted().dispatched, 1)

    def test_shown_without_its_event(self) -> None:
        """What an error shows of a delivery holds neither headers nor body."""
        world = self.world()
        world.take(body=b"private")
        (delivery,) = world.dispatcher.in_progress.values()
        self.assertEqual(repr(delivery), f"<Delivery 1 of {world.rows()[0].event_id}, RUNNING>")

    def test_skipped(self) -> None:
        """A predicate that says no ends the delivery: done, skipped, not dispatched_ok."""
        world = World()
        world.adopt(one_trigger(when="handlers:when"))
        world.take()
        assert world.call().call.predicate is not None
        world.call().returns(None)
        stats = world.metrics.trigger("gh", "github")
        self.assertEqual((world.states(), stats.dispatched_skipped, stats.dispatched_ok), (["skipped"], 1, 0))
        self.assertEqual((stats.predicate_false, stats.predicate_true), (1, 0))

    def test_a_destination_that_raises(self) -> None:
        """Of events that begin at once it fails one attempt alone: the others begin, and it is tried again later."""
        world = self.world(WAITS)
        interpreter = world.interpreters[0]
        begin = interpreter.begin

        def raises_once(*arguments: Any, **options: Any) -> Any:
            interpreter.begin = begin
            raise ValueError("it cannot be called")

        interpreter.begin = raises_once
        taken = self.successResultOf(world.take(None, happened(dedupe_key="d-1"), happened(dedupe_key="d-2")))
        self.assertEqual((len(taken.event_ids), world.states()), (2, ["waiting", "ready"]))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        world.call().returns()
        self.assertEqual((world.states(), world.version().in_flight), (["waiting", "done"], 0))

    def test_the_predicate_runs_once(self) -> None:
        """A retry after the handler itself failed does not ask the predicate again."""
        world = World()
        world.adopt(one_trigger(when="handlers:when"))
        world.take()
        world.call().raises(HandlerRaised("no"))
        self.assertIsNone(world.call().call.predicate)
        world.call().returns()
        stats = world.metrics.trigger("gh", "github")
        self.assertEqual((stats.predicate_true, stats.dispatched_ok, stats.retries), (1, 1, 1))

    def test_so_many_at_once(self) -> None:
        """Never more than the limit run; raising it begins more at once, in order."""
        world = self.world(max_outstanding=2)
        for _ in range(5):
            world.take()
        self.assertEqual((len(world.calls), world.dispatcher.queued), (2, 3))
        world.calls[0].returns()
        self.assertEqual((len(world.calls), world.dispatcher.queued), (2, 2))
        world.dispatcher.apply(3)
        self.assertEqual(len(world.calls), 3)
        world.dispatcher.apply(1)
        world.calls[0].returns()
        self.assertEqual((len(world.calls), world.dispatcher.queued), (2, 1))
        while world.calls:
            world.calls[0].returns()
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 5, 0))

    def test_thousands_at_once(self) -> None:
        """A backlog whose every step ends at once needs no deep stack."""
        world = self.world(max_outstanding=1)
        for _ in range(3000):
            world.take()
        interpreter = world.interpreters[0]
        first = world.call()

        def at_once(*arguments: Any, alone: bool = False) -> Any:
            running = begin(*arguments, alone=alone)
            interpreter.calls[-1].returns()
            return running

        begin, interpreter.begin = interpreter.begin, cast("Any", at_once)  # one instance's own way
        first.returns()
        self.assertEqual((set(world.states()), world.version().in_flight), ({"done"}, 0))

    def test_runs_on_the_version_that_accepted_it(self) -> None:
        """What is queued when its trigger changes or goes runs on its own version; what comes later on the new one."""
        world = self.world(max_outstanding=1)
        world.take()
        world.take()
        old = world.version()
        world.adopt(one_trigger(timeout=5.0))
        world.take()
        self.assertEqual(old.state, DRAINING)
        world.adopt({})
        ran = []
        while world.calls:
            ran.append(world.call().call.binding)
            world.call().returns()
        self.assertEqual((ran, world.ended), (["gh@v1", "gh@v1", "gh@v2"], ["gh@v1", "gh@v2"]))
        self.assertEqual([interpreter.closed for interpreter in world.interpreters], [1, 1, 0])

    def test_a_running_call_keeps_its_interpreter(self) -> None:
        """An unchanged binding is re-pointed; the call in the old interpreter continues, and then that closes."""
        world = self.world()
        world.take()
        world.adopt(one_trigger(retry=RetrySpec()))
        self.assertEqual([interpreter.closed for interpreter in world.interpreters], [0, 0])
        world.take()
        self.assertEqual([interpreter.running for interpreter in world.interpreters], [1, 1])
        world.calls[0].returns()
        self.assertEqual([interpreter.closed for interpreter in world.interpreters], [1, 0])


class RetryTests(DispatcherTests):
    def test_immediate(self) -> None:
        """It is tried again at once, so often, and then dead."""
        world = self.world(RetrySpec(max=3))
        world.take()
        for attempt in (1, 2, 3):
            self.assertEqual(world.call().call.attempt, attempt)
            world.call().raises(HandlerRaised("no"))
        self.assertEqual((world.calls, world.states()), ([], ["dead"]))
        self.assertEqual(world.dead_reasons(), {"retry_exhausted": 1})
        self.assertEqual((world.version().in_flight, world.counted().failed, world.counted().dead), (0, 3, 1))

    def test_waiting_holds_nothing(self) -> None:
        """Between attempts there is a row and one timer; when due it takes its lease again."""
        world = self.world(WAITS)
        world.take()
        world.call().raises(HandlerRaised("no"))
        self.assertEqual((world.states(), world.version().in_flight, world.dispatcher.queued), (["waiting"], 0, 0))
        self.assertEqual((dict(world.registry.waiting), len(world.clock.getDelayedCalls())), ({"gh": 1}, 1))
        world.clock.advance(4.9)
        self.assertEqual(world.calls, [])
        world.clock.advance(0.1)
        self.assertEqual((world.call().call.attempt, dict(world.registry.waiting)), (2, {}))
        world.call().returns()
        self.assertEqual((world.states(), world.version().in_flight), (["done"], 0))

    def test_a_fixed_handler_picks_up_failures(self) -> None:
        """When due it runs on the newest version; immediate ones, too."""
        world = self.world(WAITS)
        world.take()
        world.call().raises(HandlerRaised("no"))
        world.adopt(one_trigger(retry=WAITS), {"gh": "fixed"})
        self.assertEqual(world.ended, ["gh@v1"])
        world.clock.advance(5.0)
        self.assertEqual(world.call().call.binding, "gh@v2")
        world.adopt(one_trigger(retry=RetrySpec()))
        world.call().raises(HandlerRetryAfter("now", 0.0))
        self.assertEqual(world.call().call.binding, "gh@v3")
        world.call().returns()
        self.assertEqual((world.states(), world.ended), (["done"], ["gh@v1", "gh@v2"]))

    def test_pinned(self) -> None:
        """A pinned one runs on its own version as long as that drains, then on the newest."""
        pinned = RetrySpec(backoff="svix", version="pinned")
        world = self.world(pinned)
        world.take()
        world.take()
        world.calls[0].raises(HandlerRaised("no"))
        world.adopt(one_trigger(retry=pinned, timeout=5.0))
        world.clock.advance(5.0)
        self.assertEqual([running.call.binding for running in world.calls], ["gh@v1", "gh@v1"])
        world.calls[1].raises(HandlerRaised("no"))
        world.calls[0].returns()
        self.assertEqual(world.ended, ["gh@v1"])
        world.clock.advance(300.0)
        self.assertEqual((world.call().call.binding, world.call().call.attempt), ("gh@v2", 3))

    def test_reject(self) -> None:
        """``Reject`` ends it at once."""
        world = self.world(WAITS)
        world.take()
        world.call().raises(HandlerRejected("not ours"))
        self.assertEqual((world.states(), world.dead_reasons()), (["dead"], {"rejected": 1}))

    def test_retry_after(self) -> None:
        """``RetryAfter`` sets the time."""
        world = self.world()
        world.take()
        world.call().raises(HandlerRetryAfter("later", 70.0))
        world.clock.pump([10.0] * 6)
        self.assertEqual(world.calls, [])
        world.clock.advance(10.0)
        self.assertEqual(world.call().call.attempt, 2)

    def test_a_wall_clock_that_is_set_forward(self) -> None:
        """A retry that is due by the time of day is begun within a minute."""
        world = self.world()
        world.take()
        world.call().raises(HandlerRetryAfter("later", 3000.0))
        world.wall.step(3600.0)
        world.clock.advance(LONGEST_SLEEP)
        self.assertEqual(world.call().call.attempt, 2)

    def test_a_wall_clock_that_is_set_back(self) -> None:
        """Retries keep their delays: what waits is due earlier by as much, what fails after the step is not."""
        world = self.world()
        for seconds in (50.0, 4000.0):
            world.take()
            world.calls[-1].raises(HandlerRetryAfter("later", seconds))
        world.take()
        world.clock.advance(10.0)
        world.wall.step(-3600.0)
        world.call().raises(HandlerRetryAfter("later", 100.0))
        begun: list[float] = []
        for _ in range(80):
            world.clock.advance(50.0)
            for running in world.calls:
                begun.append(world.clock.seconds() - START)
                running.returns()
        self.assertEqual((begun, world.states()), ([60.0, 110.0, 4010.0], ["done"] * 3))

    def test_a_step_back_while_the_event_log_is_away(self) -> None:
        """Retries follow the wall clock when the event log is back."""
        world = self.world()
        world.take()
        world.call().raises(HandlerRetryAfter("later", 100.0))
        world.wall.step(-3600.0)
        world.store.fail_writes = True
        world.clock.pump([10.0] * 12)
        self.assertEqual(world.calls, [])
        world.store.fail_writes = False
        world.clock.advance(1.0)
        world.clock.advance(0.0)
        self.assertEqual(world.call().call.attempt, 2)

    def test_an_attempt_across_a_step(self) -> None:
        """An attempt is as long as it took, and ends at the time of day, though the wall clock was set meanwhile."""
        world = self.world()
        world.take()
        world.clock.advance(2.0)
        world.wall.step(-3600.0)
        world.clock.advance(3.0)
        world.call().returns()
        records = self.successResultOf(world.store.event_log.read("trigger.attempts", 0, 10))
        self.assertEqual([each.occurred_at for each in records], [world.wall.seconds()])
        self.assertEqual(records[0].payload["started_at"], rfc3339(world.wall.seconds() - 5.0))

    def test_an_unexpected_error_is_an_attempt(self) -> None:
        """What an interpreter should not raise is logged and costs an attempt."""
        world = self.world(RetrySpec(max=1))
        world.take()
        world.call().raises(RuntimeError("bug"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(world.dead_reasons(), {"retry_exhausted": 1})

    def test_due_while_the_answer_is_under_way(self) -> None:
        """A retry that falls due before the answer to the query of due ones has come is not lost."""
        world = self.world(RetrySpec(backoff="exponential", base=1.0, jitter=0.0))
        world.take()
        world.clock.advance(0.5)
        world.take()
        for running in world.calls:
            world.clock.advance(0.25)
            running.raises(HandlerRaised("no"))
        world.store.writer.held = True
        world.clock.advance(0.8)
        self.assertEqual(len(world.store.writer.waiting), 0)
        world.store.writer.run()
        world.clock.advance(0.5)
        world.store.writer.release()
        world.clock.advance(0.1)
        self.assertEqual(len(world.calls), 2)

    def test_due_before_the_news_that_it_waits(self) -> None:
        """A retry whose settling and time come while the store is slow runs once, when both are reported."""
        world = self.world(WAITS)
        world.take()
        world.take()
        first, second = world.calls
        first.raises(HandlerRaised("no"))
        world.clock.advance(4.9)
        world.store.writer.held = True
        second.raises(HandlerRetryAfter("soon", 0.05))
        world.store.writer.run()
        world.clock.advance(0.1)
        self.assertEqual(world.calls, [])
        world.store.writer.release()
        world.clock.advance(0)
        self.assertEqual({running.call.event_id for running in world.calls}, {row.event_id for row in world.rows()})
        while world.calls:
            world.calls[0].returns()
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 2, 0))

    def test_many_due_at_once(self) -> None:
        """Due retries come in as there is room, and all come."""
        world = self.world(WAITS, max_deliveries=3)
        for _ in range(20):
            world.take()
        while world.calls:
            world.calls[0].raises(HandlerRaised("no"))
        self.assertEqual(world.states(), ["waiting"] * 20)
        world.clock.advance(5.0)
        for _ in range(100):
            self.assertLessEqual(world.dispatcher.queued, 3)
            if world.calls:
                world.calls[0].returns()
            else:
                world.clock.advance(1.0)
        self.assertEqual((world.states(), world.version().in_flight), (["done"] * 20, 0))

    def test_due_retries_wait_for_the_store(self) -> None:
        """Reads that fail are tried again; nothing is lost, nothing runs twice."""
        world = self.world(WAITS)
        world.take()
        world.call().raises(HandlerRaised("no"))
        world.store.fail_reads = True
        world.clock.advance(7.0)
        self.assertEqual(world.calls, [])
        world.store.fail_reads = False
        world.clock.advance(1.0)
        world.call().returns()
        self.assertEqual((world.states(), world.clock.getDelayedCalls()), (["done"], []))


class SettlingTests(DispatcherTests):
    def test_event_log_away(self) -> None:
        """An outcome that cannot be written is written later; the handler does not run again."""
        world = self.world()
        world.take()
        world.store.fail_writes = True
        world.call().returns()
        world.clock.pump([1.0] * 3)
        self.assertEqual((world.calls, world.states(), world.version().in_flight), ([], ["ready"], 1))
        world.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual((world.calls, world.states(), world.version().in_flight), ([], ["done"], 0))
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_watch(self) -> None:
        """Every watcher of an event receives its next settling, once; one that gives up does not."""
        world = self.world(WAITS)
        (event_id,) = self.successResultOf(world.take()).event_ids
        first, second, third = (world.dispatcher.watch(event_id) for _ in range(3))
        third.cancel()
        self.failureResultOf(third)
        world.call().raises(HandlerRaised("no"))
        for watcher in (first, second):
            self.assertEqual(self.successResultOf(watcher).settlement.state, "waiting")
        world.dispatcher.watch(event_id).addErrback(lambda _: None).cancel()
        world.clock.advance(5.0)
        world.call().returns()


class InterruptionTests(DispatcherTests):
    def test_a_bystander_loses_no_attempt(self) -> None:
        """It runs again with the same number, before what has waited longer but never began."""
        world = self.world(max_outstanding=1)
        for _ in range(3):
            world.take()
        first = world.call().call
        world.call().raises(CallInterrupted("killed for another", suspect=False))
        world.clock.advance(0)
        self.assertNotEqual(world.call().call.event_id, first.event_id)
        world.call().returns()
        again = world.call()
        self.assertEqual((again.call.event_id, again.call.attempt, again.alone), (first.event_id, 1, False))
        self.assertEqual(world.version().in_flight, 2)

    def test_alone_after_two_deaths(self) -> None:
        """Present at two deaths that no call caused for certain, it runs alone; only a death there is its own."""
        world = self.world(RetrySpec(max=1))
        world.take()
        for _ in range(2):
            self.assertFalse(world.call().alone)
            world.call().raises(CallInterrupted("died", suspect=True))
            world.clock.advance(0.05)
        self.assertTrue(world.call().alone)
        self.assertEqual(world.call().call.attempt, 1)
        world.call().raises(InterpreterDied("it was this one"))
        self.assertEqual((world.states(), world.dead_reasons()), (["dead"], {"retry_exhausted": 1}))

    def test_an_interpreter_that_refuses_everything_does_not_spin(self) -> None:
        """The pauses between interrupted calls grow to a second."""
        world = self.world()
        world.take()
        calls = 0
        for _ in range(1000):
            if world.calls:
                world.call().raises(CallInterrupted("no process", suspect=False))
                calls += 1
            world.clock.advance(0.01)
        self.assertTrue(10 <= calls <= 20, calls)
