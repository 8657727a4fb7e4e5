"""Probation: a generation that is undone by itself, unless it is confirmed, or proves good."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import LONGEST_SLEEP
from harn.errors import EventLogUnavailable, HandlerRaised, HandlerRejected, NothingPending
from harn.manifest.settings import ReloadSettings
from harn.model.quantities import FailureLimit
from harn.reload.report import ReloadRequest
from harn.rollout.model import Probation, terms
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, fake, present

LIMIT = FailureLimit(rate=0.2, minimum=5)


class ProbationCase(CoordinatorCase):
    def adopt(self, number: int = 2, **more: Any) -> Any:
        """Change the code and trigger ``a``, and reload."""
        self.world.write("handlers.py", f"{HANDLERS}# {number}\n")
        self.world.manifest(fake("a", extra=f"timeout = '{number}s'"), fake("b"))
        return self.reloaded(**more)

    def attempt(self, trigger_id: str, key: str, error: Exception | None = None) -> None:
        """Deliver an event, and let its call end."""
        self.successResultOf(self.world.take(trigger_id, key))
        self.end(error)

    def end(self, error: Exception | None = None) -> None:
        """End the call that began last."""
        running = self.world.calls[-1]
        if error is None:
            running.returns()
        else:
            running.raises(error)

    @property
    def generation(self) -> int:
        """The live one."""
        return self.world.coordinator.generation

    def confirm(self, generation: int | None = None) -> Deferred[int]:
        """Confirm."""
        return Deferred.fromCoroutine(self.world.rollouts.confirm(generation, "me"))

    def noted(self, kind: str) -> list[Any]:
        """Return the payloads of one kind of record."""
        return [payload for noted, payload in self.world.notes if noted == kind]


class ConfirmTests(ProbationCase):
    def test_reverted(self) -> None:
        """Unless it is confirmed in time, the content that served before is adopted again, as a new generation."""
        report = self.adopt(confirm_within=60.0)
        self.assertEqual((report.generation, report.probation.generation, report.probation.fallback), (2, 2, 1))
        self.world.clock.advance(59.9)
        self.assertEqual(self.generation, 2)
        self.world.clock.advance(0.2)
        last = self.world.last
        self.assertEqual((self.generation, last.source, last.actor, last.recalled), (3, "revert", "probation", 1))
        self.assertIn("it was not confirmed within 1m", last.reason)
        self.assertEqual(self.world.version("a").spec.timeout, 30.0)
        self.assertEqual(self.noted("probation_ended")[0]["outcome"], "reverted")
        record = self.successResultOf(self.world.store.generations.history(1))[0]
        self.assertIn("it was not confirmed", record.reason)

    def test_a_wall_clock_that_is_set_forward(self) -> None:
        """Its end is a time of day: one that has passed is noticed within a minute."""
        self.adopt(confirm_within=7200.0)
        self.world.wall.step(7200.0)
        self.world.clock.advance(LONGEST_SLEEP)
        self.assertEqual((self.generation, self.world.last.source), (3, "revert"))

    def test_a_wall_clock_that_is_set_back(self) -> None:
        """It ends in its time all the same, and its end is kept as the clock that was set has it."""
        self.adopt(confirm_within=90.0)
        self.world.wall.step(-3600.0)
        self.world.clock.advance(60.0)
        kept = self.successResultOf(self.world.store.checkpoints.get("probation"))
        self.assertEqual((self.generation, kept["times"][1]), (2, self.world.wall.seconds() + 30.0))
        self.world.clock.advance(30.0)
        self.assertEqual((self.generation, self.world.last.source), (3, "revert"))
        self.assertIn("within 90s", self.world.last.reason)

    def test_nothing_to_confirm(self) -> None:
        """To confirm what is on no probation, or another generation than is meant, is refused with a reason."""
        self.failureResultOf(self.confirm(), NothingPending)
        self.adopt(confirm_within=60.0)
        self.assertIn("generation 2", str(self.failureResultOf(self.confirm(1), NothingPending).value))
        self.assertEqual(self.successResultOf(self.confirm(2)), 2)
        self.failureResultOf(self.confirm(2), NothingPending)

    def test_confirmed_in_vain(self) -> None:
        """What the store does not come to know is not confirmed: it is said, and the probation continues, kept too."""
        self.adopt(confirm_within=60.0)
        self.world.store.fail_writes = True
        self.failureResultOf(self.confirm(), EventLogUnavailable)
        self.world.store.fail_writes = False
        self.world.clock.advance(10.0)
        self.assertEqual(self.successResultOf(self.world.store.checkpoints.get("probation"))["generation"], 2)
        self.world.clock.advance(50.0)
        self.assertEqual((self.generation, self.world.last.source), (3, "revert"))

    def test_confirmed_while_the_store_is_slow(self) -> None:
        """A time that runs out while the store writes undoes nothing that was confirmed."""
        self.adopt(confirm_within=4.0)
        writing: Deferred[None] = Deferred()
        self.patch(self.world.store.checkpoints, "put", lambda name, value: writing)
        confirming = self.confirm()
        self.world.clock.advance(4.5)
        self.assertNoResult(confirming)
        writing.callback(None)
        self.assertEqual((self.successResultOf(confirming), self.generation), (2, 2))
        self.world.clock.advance(100.0)
        self.assertEqual(self.generation, 2)

    def test_store_is_too_slow(self) -> None:
        """A store that does not answer in time confirms nothing; what has run out by then is undone."""
        self.adopt(confirm_within=4.0)
        self.patch(self.world.store.checkpoints, "put", lambda name, value: Deferred())
        confirming = self.confirm()
        self.world.clock.advance(5.0)
        self.failureResultOf(confirming, EventLogUnavailable)
        self.world.clock.advance(0)
        self.assertEqual((self.generation, self.world.last.source), (3, "revert"))

    def test_from_the_manifest(self) -> None:
        """The manifest may put every generation on probation, those that the watcher adopts too."""
        self.world.manifest(fake("a"), head="[orchestrator.reload]\nconfirm_within = '10s'\n")
        self.reloaded(source="file_watch", actor="watch")
        self.world.clock.advance(10.0)
        self.assertEqual((self.generation, self.world.last.source), (3, "revert"))

    def test_another_takes_its_place(self) -> None:
        """To adopt something else is not to confirm: the rest of the time holds for that too."""
        self.adopt(2, confirm_within=60.0)
        self.world.clock.advance(40.0)
        report = self.adopt(3)
        self.assertEqual((report.probation.generation, report.probation.fallback), (3, 1))
        self.assertEqual(self.noted("probation_ended"), [])
        self.world.clock.advance(20.0)
        self.assertEqual((self.generation, self.world.last.recalled), (4, 1))

    def test_other_terms_take_its_place(self) -> None:
        """A reload that has its own terms begins a new probation."""
        self.adopt(2, confirm_within=60.0)
        self.world.clock.advance(40.0)
        self.adopt(3, confirm_within=60.0)
        self.assertEqual(self.noted("probation_ended")[0]["outcome"], "superseded")
        self.world.clock.advance(30.0)
        self.assertEqual(self.generation, 3)

    def test_nothing_changed(self) -> None:
        """A reload that adopts nothing begins no probation, says so, and leaves the one under way as it is."""
        report = self.reloaded(confirm_within=60.0)
        self.assertIn("nothing changed", report.warnings[0])
        self.adopt(2, confirm_within=60.0)
        self.reloaded(confirm_within=5.0)
        self.world.clock.advance(10.0)
        self.assertEqual(self.generation, 2)
        self.world.clock.advance(50.0)
        self.assertEqual(self.generation, 3)

    def test_reverting_fails(self) -> None:
        """A revert that fails is tried again until it works; the failure is logged."""
        self.adopt(confirm_within=10.0)
        self.world.store.fail_reads = True
        self.world.clock.advance(10.0)
        self.assertEqual(self.generation, 2)
        self.assertEqual(self.world.last_failed.source, "revert")
        self.world.clock.advance(5.0)
        self.assertEqual(self.generation, 2)
        self.world.store.fail_reads = False
        self.world.clock.advance(10.0)
        self.assertEqual(self.generation, 3)

    def test_mended_while_reverting_fails(self) -> None:
        """Who adopts something else meanwhile is not overruled by an undoing that comes late."""
        self.adopt(2, confirm_within=10.0)
        self.world.store.fail_reads = True
        self.world.clock.advance(10.0)
        self.world.store.fail_reads = False
        self.adopt(3)
        self.world.clock.advance(100.0)
        self.assertEqual(self.generation, 3)

    def test_restart_too_late(self) -> None:
        """What ran out while no server ran is undone at once."""
        self.adopt(confirm_within=60.0)
        self.world = self.world.restarted()
        self.world.clock.advance(100.0)
        self.successResultOf(self.world.start())
        self.world.clock.advance(0)
        self.assertEqual(self.generation, 3)

    def test_restart_with_other_files(self) -> None:
        """A start that finds other files makes another generation, for which the time that is left holds too."""
        self.adopt(confirm_within=60.0)
        self.world = self.world.restarted()
        self.world.write("handlers.py", HANDLERS + "# another\n")
        self.assertEqual(self.successResultOf(self.world.start()).generation, 3)
        self.world.clock.advance(59.0)
        self.assertEqual(self.generation, 3)
        self.world.clock.advance(1.0)
        self.assertEqual((self.generation, self.world.last.recalled), (4, 1))

    def test_restart_before_it_is_undone(self) -> None:
        """A verdict that one server did not come to carry out, the next one does."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        self.world.store.fail_reads = True
        for number in range(5):
            self.attempt("a", str(number), HandlerRaised("no"))
        self.assertIn("5 of 5 attempts", present(self.world.rollouts.probations.describe()).verdict)
        self.assertEqual((self.generation, self.noted("probation_ended")), (2, []))
        self.world = self.world.restarted()
        self.world.store.fail_reads = False
        self.successResultOf(self.world.start())
        self.world.clock.advance(0)
        self.assertEqual((self.generation, self.world.last.source), (3, "revert"))
        self.assertIn("5 of 5 attempts", self.world.last.reason)
        self.assertEqual(self.noted("probation_ended")[0]["outcome"], "reverted")

    def test_mended_before_it_is_undone(self) -> None:
        """A start that finds other files than those that failed does not undo these."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        self.world.store.fail_reads = True
        for number in range(5):
            self.attempt("a", str(number), HandlerRaised("no"))
        self.world = self.world.restarted()
        self.world.store.fail_reads = False
        self.world.write("handlers.py", HANDLERS + "# mended\n")
        self.successResultOf(self.world.start())
        self.world.clock.advance(100.0)
        self.assertEqual(self.generation, 3)


class FailureTests(ProbationCase):
    def test_too_many(self) -> None:
        """When more attempts of the new versions fail than may, it is undone, and the reason says how many."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        for number in range(3):
            self.attempt("a", f"good {number}")
        self.attempt("a", "bad", HandlerRaised("no"))
        self.assertEqual(self.generation, 2)
        self.end(HandlerRaised("no"))
        self.assertEqual(self.generation, 3)
        self.assertIn("2 of 5 attempts", self.world.last.reason)

    def test_below_the_minimum(self) -> None:
        """Few attempts prove nothing, even if all of them fail."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        for number in range(4):
            self.attempt("a", str(number), HandlerRejected("no"))
        self.attempt("a", "one", HandlerRaised("no"))
        self.assertEqual(self.generation, 2)

    def test_what_a_handler_means(self) -> None:
        """A delivery that a handler rejects on purpose does not count as a failure of the code."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        for number in range(20):
            self.attempt("a", str(number), HandlerRejected("no"))
        self.assertEqual(self.generation, 2)

    def test_failures_of_what_came_before_count(self) -> None:
        """New versions that a later reload leaves in force are watched on, with their failures so far."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        for number in range(4):
            self.attempt("a", str(number), HandlerRaised("no"))
        self.world.write("more.py", HANDLERS)
        self.world.manifest(fake("a", extra="timeout = '2s'"), fake("b", handler="more:on_event"))
        self.reloaded()
        self.assertEqual(present(self.world.rollouts.probations.describe()).failures, 4)
        self.attempt("a", "one more", HandlerRaised("no"))
        self.assertEqual((self.generation, self.world.last.recalled), (4, 1))

    def test_cost(self) -> None:
        """An attempt is counted for its own version, however many there are."""
        self.world.manifest(*(fake(f"t{number}", extra="timeout = '2s'") for number in range(20)))
        self.reloaded(revert_limit=FailureLimit(rate=0.5, minimum=1000), revert_for=60.0)
        trial = present(self.world.rollouts.probations._active)
        self.attempt("t3", "one")
        self.attempt("t3", "two", HandlerRaised("no"))
        self.assertEqual((trial.total, trial.tallies["t3@v1"], trial.tallies["t4@v1"]), ((2, 1), (2, 1), (0, 0)))

    def test_old_versions_do_not_count(self) -> None:
        """Attempts of versions that were there before say nothing about the new ones."""
        self.world.manifest(fake("a", extra="timeout = '2s'"), fake("b"))
        self.reloaded(revert_limit=LIMIT, revert_for=60.0)
        for number in range(3):
            self.successResultOf(self.world.take("b", str(number)))
            for _ in range(7):
                self.end(HandlerRaised("no"))
        self.assertEqual(self.generation, 2)

    def test_time_is_over(self) -> None:
        """After its time failures are everyday ones; the generation stays."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        self.world.clock.advance(60.0)
        self.assertEqual(self.noted("probation_ended")[0]["outcome"], "passed")
        for number in range(10):
            self.attempt("a", str(number), HandlerRaised("no"))
        self.assertEqual(self.generation, 2)

    def test_what_failed_is_retried_on_the_old_code(self) -> None:
        """Deliveries that wait, or have not begun, or used up their attempts, all run on what is adopted again."""
        self.adopt(revert_limit=LIMIT, revert_for=60.0)
        bad = self.world.version("a")
        self.successResultOf(self.world.take("a", "running"))
        self.successResultOf(self.world.take("a", "failing"))
        for _ in range(5):
            self.end(HandlerRaised("no"))
        self.assertEqual(self.generation, 3)
        good = self.world.version("a")
        self.assertEqual((bad.key, good.key), ("a@v2", "a@v3"))
        running, again = self.world.calls
        self.assertEqual((running.call.binding, again.call.binding), (bad.key, good.key))
        running.raises(HandlerRaised("no"))
        self.assertEqual([each.call.binding for each in self.world.calls], [good.key] * 2)
        for each in tuple(self.world.calls):
            each.returns()
        self.assertEqual(self.states(), ["done", "done"])
        self.assertEqual(bad.state, "terminated")

    def test_dead_letters_come_back(self) -> None:
        """A delivery that used up its attempts on the bad version gets all of them again on the good one."""
        self.world.manifest(
            fake("a", extra="timeout = '9s'\n[triggers.retry]\nmax = 1"), fake("b", extra="timeout = '9s'")
        )
        self.reloaded(revert_limit=FailureLimit(rate=0.5, minimum=3), revert_for=60.0)
        for number in range(3):
            self.attempt("a", str(number), HandlerRaised("no"))
        self.assertEqual(self.generation, 3)
        self.assertEqual(self.states(), ["ready"] * 3)
        self.assertEqual([each.call.binding for each in self.world.calls], ["a@v3"] * 3)
        for each in tuple(self.world.calls):
            each.returns()
        self.assertEqual(self.states(), ["done"] * 3)
        self.assertEqual(sum(binding.in_flight for binding in self.world.registry), 0)

    def test_both(self) -> None:
        """With both terms it is undone by whichever comes first; a confirmation ends both."""
        self.adopt(2, confirm_within=90.0, revert_limit=LIMIT, revert_for=60.0)
        self.world.clock.advance(70.0)
        self.assertEqual(self.generation, 2)
        self.assertIsNotNone(self.world.rollouts.probations.current)
        self.world.clock.advance(20.0)
        self.assertEqual(self.generation, 3)
        self.adopt(3, confirm_within=90.0, revert_limit=LIMIT, revert_for=60.0)
        self.successResultOf(self.confirm())
        for number in range(10):
            self.attempt("a", str(number), HandlerRaised("no"))
        self.assertEqual(self.generation, 4)

    def states(self) -> list[str]:
        """Return the state of each delivery."""
        return [row.state for row in self.world.store.rows()]


class TermsTests(SynchronousTestCase):
    def test_request_wins(self) -> None:
        """What a request says wins over the manifest; a rollback is on no probation."""
        settings = ReloadSettings(confirm_within=60.0, revert_on_failures=0.5, revert_min=7, revert_for=90.0)
        made = present(terms(ReloadRequest(source="cli", actor="me"), settings, 2, 1, 100.0))
        self.assertEqual(
            (made.confirm_by, made.limit, made.watch_until), (160.0, FailureLimit(rate=0.5, minimum=7), 190.0)
        )
        asked = ReloadRequest(source="cli", actor="me", confirm_within=5.0, revert_limit=LIMIT, revert_for=10.0)
        made = present(terms(asked, settings, 2, 1, 100.0))
        self.assertEqual((made.confirm_by, made.limit, made.watch_until), (105.0, LIMIT, 110.0))
        self.assertIsNone(terms(ReloadRequest(source="cli", actor="me", recall=1), settings, 2, 1, 100.0))
        self.assertIsNone(terms(ReloadRequest(source="cli", actor="me"), ReloadSettings(), 2, 1, 100.0))

    @given(
        st.builds(
            Probation,
            generation=st.integers(1, 10**6),
            fallback=st.integers(1, 10**6),
            began_at=st.floats(0, 1e10),
            confirm_by=st.none() | st.floats(0, 1e10),
            limit=st.builds(FailureLimit, rate=st.floats(0, 1), minimum=st.integers(0, 10**6)),
            watch_until=st.floats(0, 1e10),
            verdict=st.none() | st.text(min_size=1),
        )
    )
    def test_kept(self, probation: Probation) -> None:
        """What is kept over a restart is what was meant."""
        self.assertEqual(Probation.of(probation.record(())), probation)

    @given(st.floats(0, 1e9), st.floats(0.001, 1e5), st.integers(0, 1000), st.integers(0, 1000))
    def test_total(self, now: float, span: float, attempts: int, failures: int) -> None:
        """At each moment it is undone, passed, or has a next time to be looked at; never none of them."""
        probation = Probation(
            generation=2, fallback=1, began_at=0.0, confirm_by=span, limit=LIMIT, watch_until=span * 2
        )
        undone = probation.lapsed(now) or probation.failed(now, attempts, failures)
        self.assertTrue(undone or probation.is_passed(now) or probation.next_turn(now) is not None)
