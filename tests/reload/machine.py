"""A server that is edited, called, broken and restarted at random, and held to what it promises after each step."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from harn.connectors.interfaces import NormalizedEvent
from harn.dispatch.decisions import Arrival
from harn.errors import EventLogUnavailable, HandlerRaised, HandlerRejected
from harn.reload.report import PREVIOUS, ReloadReport
from harn.store.retention import RetentionPolicy
from harn.triggers.routing import Route, bucket
from tests.reload import invariants
from tests.reload.expected import (
    RETRIES,
    ROLLOUTS,
    Content,
    Notebook,
    Wish,
    rows_of,
    served,
    source_of,
)
from tests.reload.watched import WatchedWorld

IDS = ("a", "b", "c", "d")
MODULES = ("handlers", "more")
STORM = 18
"""Deliveries that are enough for a ramp to be evaluated."""
WISHES = st.builds(
    Wish,
    module=st.sampled_from(MODULES),
    timeout=st.sampled_from((3, 4)),
    retry=st.sampled_from(sorted(RETRIES)),
    rollout=st.sampled_from((*ROLLOUTS, "rising")),
)
GRACE = 12.0
"""Seconds: a step of a ramp, but less than a stage of a reload may take."""


class ServerMachine(RuleBasedStateMachine):
    """
    One server after the other on one folder.

    :ivar wanted: what the manifest on disk says, by trigger. ``code``: the number in each module on disk.
    :ivar requests: those whose headers are in, and not more.
    :ivar was_away: the store has failed since the server's start. ``unanswered``: what operators wait for.
    """

    world: WatchedWorld

    @initialize(is_narrow=st.sampled_from((False, False, True)))
    def begin(self, is_narrow: bool) -> None:
        """Start with three triggers."""
        observer: Any = self.logged
        self.observer = observer
        globalLogPublisher.addObserver(observer)
        self.folder = Path(tempfile.mkdtemp(prefix="harn-machine-"))
        self.book = Notebook(is_narrow=is_narrow)
        self.code = dict.fromkeys(MODULES, 0)
        self.wanted = {trigger_id: Wish("handlers", 3) for trigger_id in IDS[:3]}
        self.requests: list[Route] = []
        self.taken = 0
        self.was_away = False
        self.unanswered = 0
        self.world = WatchedWorld(self.book, self.folder)
        self.narrow()
        self.save()
        assert self.asked(self.world.start()).ok

    def teardown(self) -> None:
        """End everything, and check that nothing is left."""
        if hasattr(self, "world"):
            try:
                if sys.exc_info()[0] is None:
                    self.let_end()
            finally:
                globalLogPublisher.removeObserver(self.observer)
                self.world.close()
                shutil.rmtree(self.folder)
            assert not self.world.plugin.alive
            assert not self.world.clock.getDelayedCalls(), self.world.clock.getDelayedCalls()

    def logged(self, event: Any) -> None:
        """Hold every failure that is logged to be one that was made here."""
        failure = event.get("log_failure")
        self.book.hold(failure is None or failure.check(RuntimeError), failure and failure.getTraceback())

    def narrow(self) -> None:
        """Allow few handlers at once, or many."""
        self.world.dispatcher.apply(2 if self.book.is_narrow else 1000)

    # What is on disk

    def save(self) -> None:
        """Write everything."""
        self.book.disk = content = Content.of(self.wanted, self.code)
        for module, number in self.code.items():
            self.world.write(f"{module}.py", source_of(number))
        self.world.write("harn.toml", content.text)

    @rule(trigger_id=st.sampled_from(IDS), wish=WISHES)
    def edit(self, trigger_id: str, wish: Wish) -> None:
        """Add or modify a trigger."""
        self.wanted[trigger_id] = wish
        self.save()

    @rule(trigger_ids=st.sets(st.sampled_from(IDS), min_size=1))
    def remove(self, trigger_ids: set[str]) -> None:
        """Remove triggers."""
        for trigger_id in trigger_ids:
            self.wanted.pop(trigger_id, None)
        self.save()

    @rule(module=st.sampled_from(MODULES), number=st.integers(0, 2))
    def edit_code(self, module: str, number: int) -> None:
        """Edit a module, perhaps back to an earlier text."""
        self.code[module] = number
        self.save()

    @precondition(lambda self: self.wanted and self.book.disk is not None)
    @rule(kind=st.sampled_from(("toml", "key", "function", "syntax")))
    def spoil(self, kind: str) -> None:
        """Write something that no reload may adopt."""
        self.book.disk = None
        if kind in ("toml", "key"):
            text = Content.of(self.wanted, self.code).text
            self.world.write("harn.toml", text + ("\n[[triggers" if kind == "toml" else "\ncolour = 1\n"))
        for module in MODULES if kind in ("function", "syntax") else ():
            self.world.write(f"{module}.py", "def on_ev(event): ...\n" if kind == "function" else "def on_event(:\n")

    def came(self, asked: Deferred[Any]) -> Any:
        """Move the clock past the time of a stage that hangs; return the outcome: a result, or a failure."""
        found: list[Any] = []
        asked.addBoth(found.append)
        if not found:
            self.world.clock.advance(30.0)
        (outcome,) = found
        return outcome

    def asked(self, asked: Deferred[ReloadReport]) -> ReloadReport:
        """Return the report."""
        report = self.came(asked)
        assert isinstance(report, ReloadReport), report
        return report

    @property
    def live(self) -> int:
        """The live generation."""
        return self.world.coordinator.generation

    def kept(self) -> list[int]:
        """Return the generations that can be gone back to, the newest first."""
        return served(self.world)

    # Events and handlers

    @precondition(lambda self: self.world.live())
    @rule(data=st.data())
    def request_comes(self, data: st.DataObject) -> None:
        """Send a whole request with one event."""
        self.deliver(data.draw(st.sampled_from(sorted(self.world.live()))))

    def deliver(self, trigger_id: str) -> None:
        """Send a whole request with one event, if a route takes it."""
        if trigger_id in self.world.live():
            self.begin_request(trigger_id)
            self.take(self.requests.pop())

    @precondition(lambda self: self.world.live() and len(self.requests) < 3)
    @rule(data=st.data())
    def headers_are_in(self, data: st.DataObject) -> None:
        """Begin a request, which holds what it needs until it ends."""
        self.begin_request(data.draw(st.sampled_from(sorted(self.world.live()))))

    def begin_request(self, trigger_id: str) -> None:
        """Lease a route."""
        route = self.world.table.tree[f"/triggers/{trigger_id}"]
        route.lease()
        self.requests.append(route)

    @precondition(lambda self: self.requests)
    @rule()
    def request_ends(self) -> None:
        """Complete the body of the oldest: its event is accepted by the version that it leased."""
        self.take(self.requests.pop(0))

    def take(self, route: Route) -> None:
        """Accept an event by a route that is leased, and release that."""
        self.taken += 1
        key, ramp = f"d{self.taken}", route.ramp
        expected = route.binding
        if ramp is not None and bucket(ramp.fresh.id, key) >= ramp.share:
            expected = ramp.stable
        arrival = Arrival(headers={}, body=b"{}", received_at=self.world.clock.seconds())
        event = NormalizedEvent(kind="thing", dedupe_key=key)
        outcome = self.came(self.world.intake.take(route.binding, arrival, [event], ramp=ramp))
        route.release()
        if isinstance(outcome, Failure):
            assert outcome.check(EventLogUnavailable), outcome
            assert self.world.store.fail_writes
        else:
            assert outcome.bindings == (expected.key,), (outcome, expected)
            self.book.accepted(outcome.event_ids[0], expected.key)

    @precondition(lambda self: self.world.calls)
    @rule(data=st.data(), how=st.sampled_from(("returns", "raises", "raises", "rejects")))
    def call_ends(self, data: st.DataObject, how: str) -> None:
        """End a handler."""
        self.end(data.draw(st.integers(0, len(self.world.calls) - 1)), how)

    def end(self, index: int, how: str) -> None:
        """End a call."""
        running = self.world.calls[index]
        error = {"returns": None, "raises": HandlerRaised("no"), "rejects": HandlerRejected("no")}[how]
        self.book.ended(running.call.event_id, error, is_rejected=how == "rejects")
        if error is None:
            running.returns()
        else:
            running.raises(error)

    @precondition(lambda self: self.world.live())
    @rule(data=st.data(), fails=st.booleans())
    def many_come(self, data: st.DataObject, fails: bool) -> None:
        """Send so many that a new version can be evaluated by them."""
        self.storm(data.draw(st.sampled_from(sorted(self.world.live()))), fails=fails)

    def storm(self, trigger_id: str, *, fails: bool) -> None:
        """Deliver much; all handlers of the trigger fail, or all do well."""
        for _ in range(STORM):
            self.deliver(trigger_id)
        for _ in range(4 * STORM):
            found = [at for at, each in enumerate(self.world.calls) if each.call.trigger_id == trigger_id]
            if not found:
                break
            self.end(found[0], "raises" if fails else "returns")

    # Time, the store, and the next server

    @rule(seconds=st.sampled_from((1.0, GRACE, 25.0, 400.0)))
    def wait(self, seconds: float) -> None:
        """Move the clock on, past the deadline of drains perhaps."""
        self.world.clock.advance(seconds)

    @rule(fails=st.sampled_from((("writes",), ("reads",), ("writes", "reads"))))
    def store_is_away(self, fails: tuple[str, ...]) -> None:
        """Fill the disk, or remove it."""
        store = self.world.store
        store.fail_writes, store.fail_reads = "writes" in fails or store.fail_writes, "reads" in fails
        self.was_away = True

    @precondition(lambda self: self.was_away)
    @rule()
    def store_is_back(self) -> None:
        """Restore the disk; what waited for it is written soon."""
        self.world.store.fail_writes = self.world.store.fail_reads = False
        for _ in range(3):
            self.world.clock.advance(1.0)
        assert invariants.is_quiet(self.world)

    @precondition(lambda self: not self.world.store.fail_writes)
    @rule(generations=st.integers(1, 3))
    def trim(self, generations: int) -> None:
        """Trim old generations; the live one, and one that may still be rolled back to automatically, stay."""
        needed = self.world.rollouts.needed()
        policy = RetentionPolicy(
            events=1e9, dead=1e9, generations=generations, kept=needed.generations, versions=needed.versions
        )
        while self.came(self.world.store.trim(policy, self.world.clock.seconds(), 100)):
            pass

    @rule(how=st.sampled_from(("plain", "plain", "spoilt", "writes", "reads")))
    def restart(self, how: str) -> None:
        """End the server and start the next one on what there is; from the last good generation, if that is bad."""
        while self.requests:
            self.requests.pop().release()
        trials = self.on_trial() if invariants.is_kept(self.world) else None
        self.book.look_at_trials(self.world)
        self.world.coordinator.close()
        before, after = self.world, self.world.restarted()
        assert not before.plugin.alive
        assert not before.clock.getDelayedCalls(), before.clock.getDelayedCalls()
        before.clock.pool.release()
        self.book.restarted(rows_of(after))
        self.world, self.was_away = after, False
        self.narrow()
        after.store.fail_writes, after.store.fail_reads = how == "writes", how == "reads"
        if how == "spoilt":
            self.spoil("toml")
        last = self.last_noted()
        outcome = self.came(after.start())
        if how == "reads":
            assert outcome.check(EventLogUnavailable), outcome
        after.store.fail_reads = False
        if isinstance(outcome, Failure) or not outcome.ok:
            self.book.hold(how != "plain" or self.book.disk is None, "a start failed", outcome)
            assert not after.registry.active
            assert not after.plugin.alive
            assert not after.interpreters.alive
            after.store.fail_writes = False
            recall = PREVIOUS if self.book.disk is None else None
            outcome = self.asked(after.start(recall=recall))
            assert outcome.ok, outcome
            assert recall is None or self.book.contents[self.live] == self.book.contents[self.kept()[0]]
        if last is not None and self.book.contents[last] == self.book.contents[self.live]:
            assert self.live == last, (self.live, last)
            assert trials is None or self.on_trial() == trials, (self.on_trial(), trials)
        after.store.fail_writes = False
        recovered = self.came(Deferred.fromCoroutine(after.recovery.automatic(1000)))
        assert isinstance(recovered, int), recovered
        after.clock.advance(0)

    def on_trial(self) -> Any:
        """
        Return the rollouts that continue over a restart: ramps, each with its share and its next step, and the
        probation.
        """
        ramps = {
            record.trigger_id: (
                record.state,
                record.stable,
                record.fresh,
                record.share,
                record.next_at,
            )
            for record in self.world.rollouts.ramps.record() or ()
        }
        probations = self.world.rollouts.probations
        return ramps, probations.current or probations.undoing

    def last_noted(self) -> int | None:
        """Return the generation that served last, if the store has recorded that it did."""
        last = self.world.store.query("SELECT number, adopted_at FROM generations ORDER BY number DESC LIMIT 1")
        return last[0][0] if last and last[0][1] is not None else None

    # What always holds

    @invariant()
    def promises_hold(self) -> None:
        """Check all invariants."""
        if not hasattr(self, "world"):
            return
        world, rows = self.world, rows_of(self.world)
        self.book.look(rows)
        self.book.look_at_trials(world)
        self.book.look_at_versions(world, rows, is_quiet=invariants.is_quiet(world))
        assert not self.book.problems, "\n".join(self.book.problems)
        invariants.one_generation_serves(world)
        invariants.nothing_is_leaked(world, self.requests)
        invariants.leases_are_deliveries(world, self.requests, rows, self.book.gone)
        invariants.what_can_run_runs(world, rows)
        invariants.trials_are_of_what_serves(world)
        invariants.drains_are_bounded(world)
        invariants.timers_are_known(world)

    def let_end(self) -> None:
        """End everything, and check that each event has an end, and only the live generation is left."""
        world = self.world
        self.store_is_back()
        world.clock.pool.release()
        while self.requests:
            self.request_ends()
        for _ in range(100):
            while world.calls:
                self.end(0, "returns")
            if any(not running.is_ending for running in world.rollouts.ramps._running.values()):
                self.came(Deferred.fromCoroutine(world.rollouts.ramps.finish(None, "me")))
            elif world.clock.getDelayedCalls():
                world.clock.advance(60.0)
            else:
                break
        rows = rows_of(world)
        self.book.look(rows)
        assert not self.book.problems, "\n".join(self.book.problems)
        assert {row.stored.state for row in rows.values()} <= {"done", "dead"}
        assert [*world.registry] == [*world.registry.active.values()]
        assert not [binding for binding in world.registry if binding.in_flight or world.dispatcher.stored(binding)]
        assert not +world.registry.waiting, world.registry.waiting
        assert world.rollouts.probations.current is None
        self.promises_hold()
