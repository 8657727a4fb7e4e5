"""Any order of accepting, failing, reloading, moving on and losing the store: nothing is lost, nothing leaks."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.destinations.targets import LocalFunctions
from harn.errors import (
    AttemptFailed,
    CallInterrupted,
    EventLogUnavailable,
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    HandlerTimedOut,
    InterpreterDied,
    RouteUnknown,
)
from harn.manifest.model import RetrySpec, TriggerSpec
from harn.triggers.binding import DRAINING, BindingVersion
from tests.dispatch.world import World, happened
from tests.triggers.examples import spec

IDS = ("a", "b")
TRIGGERS = st.sampled_from(IDS)
RETRIES = st.sampled_from(
    (
        RetrySpec(max=3),
        RetrySpec(max=3, version="pinned"),
        RetrySpec(max=3, backoff="svix"),
        RetrySpec(max=3, backoff="svix", version="pinned"),
    )
)
FAILURES = st.sampled_from(
    (
        HandlerRaised("no"),
        HandlerTimedOut("no"),
        HandlerRejected("no"),
        HandlerRetryAfter("later", 2.0),
        HandlerRetryAfter("now", 0.0),
        InterpreterDied("no"),
    )
)


class Dispatching(RuleBasedStateMachine):
    """
    A server's life, in any order.

    The store's two threads do their work, and tell of it, when a rule says so: every interleaving that the store on
    SQLite may show.
    """

    @initialize(max_deliveries=st.integers(1, 3), max_outstanding=st.integers(1, 3), retry=RETRIES)
    def begin(self, max_deliveries: int, max_outstanding: int, retry: RetrySpec) -> None:
        """Start with both triggers, and a window of hardly any size."""
        self.world = World(max_deliveries=max_deliveries, max_outstanding=max_outstanding)
        self.accepted: dict[str, int] = {}
        self.ran: dict[str, int] = {}
        self.leased: list[BindingVersion] = []
        self.edits = 0
        self.cancels: set[str] = set()
        self.redriven = 0
        redrive = self.world.store.deliveries.redrive

        def count(count: int) -> int:
            self.redriven += count
            return count

        self.world.store.deliveries.redrive = lambda *which: redrive(*which).addCallback(count)
        self.triggers: dict[str, TriggerSpec] = {}
        for trigger_id in IDS:
            self.triggers[trigger_id] = spec(trigger_id, retry=retry, dedupe_key="event.dedupe_key")
        self.world.adopt(self.triggers)

    # Requests

    @precondition(lambda self: self.triggers)
    @rule(data=st.data(), keys=st.lists(st.integers(0, 40), min_size=1, max_size=3))
    def accept(self, data: st.DataObject, keys: list[int]) -> None:
        """Accept a request with one or more events, some of them duplicates, for a live version or one it began on."""
        live = [self.world.version(trigger_id) for trigger_id in sorted(self.triggers)]
        binding = data.draw(st.sampled_from([*live, *self.leased]))

        def kept(taken: Any) -> None:
            for event_id in taken.event_ids:
                self.accepted[event_id] = binding.version

        self.world.take(binding, *(happened(dedupe_key=str(key)) for key in keys)).addCallbacks(kept, lambda _: None)

    @precondition(lambda self: self.triggers and len(self.leased) < 3)
    @rule(data=st.data())
    def headers_are_in(self, data: st.DataObject) -> None:
        """Begin a request, which holds its version until it ends."""
        binding = self.world.version(data.draw(st.sampled_from(sorted(self.triggers))))
        binding.lease()
        self.leased.append(binding)

    @precondition(lambda self: self.leased)
    @rule()
    def request_ends(self) -> None:
        """End a request, which releases its version."""
        self.leased.pop(0).release()

    # Handlers

    @precondition(lambda self: self.world.calls)
    @rule(data=st.data(), result=st.sampled_from((b"null", None)))
    def returns(self, data: st.DataObject, result: bytes | None) -> None:
        """End a handler well, or its predicate with no."""
        data.draw(st.sampled_from(self.world.calls)).returns(result)

    @precondition(lambda self: self.world.calls)
    @rule(data=st.data(), error=FAILURES)
    def fails(self, data: st.DataObject, error: AttemptFailed) -> None:
        """Fail a handler."""
        data.draw(st.sampled_from(self.world.calls)).raises(error)

    @precondition(lambda self: self.world.calls)
    @rule(data=st.data(), suspect=st.booleans())
    def interpreter_dies(self, data: st.DataObject, suspect: bool) -> None:
        """Interrupt all calls of one interpreter."""
        interpreter = data.draw(st.sampled_from(self.world.calls)).interpreter
        for running in list(interpreter.calls):
            running.raises(CallInterrupted("died", suspect=suspect))

    # Reloads

    @rule(trigger_id=TRIGGERS, retry=RETRIES)
    def edit(self, trigger_id: str, retry: RetrySpec) -> None:
        """Add or change a trigger."""
        self.edits += 1
        timeout = 30.0 + self.edits
        self.triggers[trigger_id] = spec(trigger_id, retry=retry, dedupe_key="event.dedupe_key", timeout=timeout)
        self.world.adopt(self.triggers)

    @rule(trigger_id=TRIGGERS)
    def remove(self, trigger_id: str) -> None:
        """Remove a trigger."""
        self.triggers.pop(trigger_id, None)
        self.world.adopt(self.triggers)

    @rule()
    def touch(self) -> None:
        """Replace only the interpreter."""
        self.world.adopt(self.triggers)

    @precondition(lambda self: any(not binding.is_closed for binding in self.world.registry.draining()))
    @rule(data=st.data())
    def deadline(self, data: st.DataObject) -> None:
        """End a draining version's time."""
        due = [binding for binding in self.world.registry.draining() if not binding.is_closed]
        self.world.dispatcher.move_on(data.draw(st.sampled_from(due)))

    @precondition(lambda self: self.world.registry.draining())
    @rule(data=st.data(), ago=st.sampled_from((0.0, 1.0, 1000.0)))
    def judged_bad(self, data: st.DataObject, ago: float) -> None:
        """Redrive the failures of a version that was replaced because it failed too often."""
        binding = data.draw(st.sampled_from(self.world.registry.draining()))
        self.world.dispatcher.move_and_redrive(binding, self.world.clock.seconds() - ago)

    @precondition(lambda self: self.world.registry.draining())
    @rule(data=st.data())
    def cancelled(self, data: st.DataObject) -> None:
        """Cancel a draining version; none of its deliveries runs on, or begins on it any more."""
        binding = data.draw(st.sampled_from(self.world.registry.draining()))
        self.world.dispatcher.cancel(binding)
        assert binding.key not in [running.call.binding for running in self.world.calls]
        self.cancels.add(binding.key)

    @rule(trigger_id=st.sampled_from((*IDS, None)), seconds=st.sampled_from((None, 3.0, 300.0)))
    def pause(self, trigger_id: str | None, seconds: float | None) -> None:
        """Pause a trigger, or the server."""
        asked = self.world.pauses.pause(trigger_id, seconds, "me")
        Deferred.fromCoroutine(asked).addErrback(lambda failure: failure.trap(EventLogUnavailable, RouteUnknown))

    @rule(trigger_id=st.sampled_from((*IDS, None)), rate=st.sampled_from((None, 2.0)))
    def resume(self, trigger_id: str | None, rate: float | None) -> None:
        """Resume a trigger, or the server."""
        asked = self.world.pauses.resume(trigger_id, rate)
        Deferred.fromCoroutine(asked).addErrback(lambda failure: failure.trap(EventLogUnavailable, RouteUnknown))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        """Cancel one delivery."""
        row = data.draw(st.sampled_from(self.world.rows()))
        asked = self.world.dispatcher.cancel_delivery(row.event_id, row.delivery_id)
        asked.addErrback(lambda failure: failure.trap(EventLogUnavailable))

    # The store and time

    @rule(held=st.booleans(), writer=st.booleans())
    def hold(self, held: bool, writer: bool) -> None:
        """Block one of the store's threads, or unblock it."""
        thread = self.world.store.writer if writer else self.world.store.reader
        if held:
            thread.held = True
        else:
            thread.release()

    @rule(writer=st.booleans())
    def store_does(self, writer: bool) -> None:
        """Run the waiting work of one of them, without reporting it yet."""
        (self.world.store.writer if writer else self.world.store.reader).run()

    @rule(writer=st.booleans())
    def store_tells(self, writer: bool) -> None:
        """Report the work that one of them has done."""
        (self.world.store.writer if writer else self.world.store.reader).deliver()

    @rule(writes=st.booleans(), reads=st.booleans())
    def store_fails(self, writes: bool, reads: bool) -> None:
        """Make the disk full, or remove it, or restore it."""
        self.world.store.fail_writes, self.world.store.fail_reads = writes, reads

    @rule(seconds=st.sampled_from((0.0, 0.05, 1.0, 5.0, 400.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.clock.advance(seconds)

    # What always holds

    @invariant()
    def nothing_runs_twice(self) -> None:
        """Check that no delivery runs twice at once, and never more run than may."""
        if not hasattr(self, "world"):
            return
        running = [each.call.event_id for each in self.world.calls]
        assert len(set(running)) == len(running), running
        assert len(running) <= self.world.dispatcher.max_outstanding

    @invariant()
    def versions_only_rise(self) -> None:
        """Check that a delivery runs on the version that accepted it, or on a later one, and never goes back."""
        if not hasattr(self, "world"):
            return
        for running in self.world.calls:
            event_id, version = running.call.event_id, int(running.call.binding.rpartition("@v")[2])
            assert version >= self.accepted.get(event_id, 1), running.call.binding
            assert version >= self.ran.get(event_id, 1), running.call.binding
            self.ran[event_id] = version
            assert running.call.binding not in self.cancels, running.call.binding

    @invariant()
    def what_runs_is_unfinished(self) -> None:
        """Check that nothing done or dead runs, and that memory holds each delivery once."""
        if not hasattr(self, "world"):
            return
        states = {row.event_id: row.state for row in self.world.rows()} if not self.world.store.fail_reads else {}
        for running in self.world.calls:
            assert states.get(running.call.event_id) not in ("done", "skipped", "dead"), running.call.event_id

    @invariant()
    def leases_are_counted(self) -> None:
        """Check that no count is negative, a closed interpreter runs nothing, and one that is needed is open."""
        if not hasattr(self, "world"):
            return
        for binding in self.world.registry:
            assert binding.in_flight >= 0, binding
            assert binding.in_flight > 0 or binding.state != DRAINING or self.world.registry.waiting[binding.id], (
                binding
            )
            assert isinstance(binding.destination, LocalFunctions)
            assert binding.destination.interpreter.holders > 0
        for interpreter in self.world.interpreters:
            assert interpreter.closed <= 1
            assert not (interpreter.closed and interpreter.calls)

    def teardown(self) -> None:
        """End everything, and check that every accepted delivery has an end, and nothing is held any more."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.store.fail_writes = world.store.fail_reads = False
        world.store.writer.release()
        world.store.reader.release()
        while self.leased:
            self.request_ends()
        for trigger_id in (*IDS, None):
            resumed = Deferred.fromCoroutine(world.pauses.resume(trigger_id, None))
            resumed.addErrback(lambda failure: failure.trap(RouteUnknown))
        for _ in range(200):
            for running in list(world.calls):
                running.returns()
            for binding in world.registry.draining():
                if not binding.is_closed:
                    world.dispatcher.move_on(binding)
            world.clock.advance(400.0 if not world.calls else 0.05)
        rows = world.rows()
        assert {row.state for row in rows} <= {"done", "skipped", "dead", "replayed"}, [
            (row.delivery_id, row.state) for row in rows
        ]
        assert {row.event_id for row in rows} == set(self.accepted)
        counted = Counter[str]()
        for trigger_id in IDS:
            counted.update(world.dead_reasons(trigger_id))
        died = len([row for row in rows if row.state in ("dead", "replayed")])
        assert counted.total() == died + self.redriven, (died, counted, self.redriven)
        assert [binding for binding in world.registry if binding.in_flight or world.dispatcher.stored(binding)] == []
        assert list(world.registry) == list(world.registry.active.values())
        assert not +world.registry.waiting, world.registry.waiting
        open_still = [interpreter for interpreter in world.interpreters if not interpreter.closed]
        assert open_still == world.interpreters[-1:]
        assert world.clock.getDelayedCalls() == []


class DispatchingTests(SynchronousTestCase):
    def test_any_order(self) -> None:
        """Whatever happens in whatever order, the invariants hold, and in the end everything has ended."""
        profile = settings(
            max_examples=int(os.environ.get("HARN_EXAMPLES", "150")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Dispatching, settings=profile)
