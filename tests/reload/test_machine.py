"""No sequence of edits, reloads, rollbacks, ramps, failures, deliveries and restarts breaks what a reload promises."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import fields
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import (
    EventLogUnavailable,
    GenerationUnknown,
    NothingPending,
    PreconditionFailed,
    ShuttingDown,
    StageFailed,
)
from harn.model.quantities import FailureLimit
from harn.reload.generation import PIN_CHECKPOINT, Generation
from harn.reload.report import NEEDS_CONFIRMATION, PREVIOUS, REVERT, ReloadReport
from tests.reload.expected import NOTHING, SHARES, Content, Wish, rows_of
from tests.reload.machine import GRACE, IDS, MODULES, WISHES, ServerMachine
from tests.reload.world import World

LIMIT = FailureLimit(rate=0.5, minimum=3)
BAD_WISHES = st.builds(
    Wish,
    module=st.sampled_from(MODULES),
    timeout=st.sampled_from((3, 4)),
    retry=st.sampled_from(("once", "twice")),
    rollout=st.sampled_from(("", "rising", "rising")),
)
TERMS = st.sampled_from(
    (
        {},
        {},
        {"confirm_within": 20.0},
        {"revert_limit": LIMIT, "revert_for": 30.0},
        {"confirm_within": 20.0, "revert_limit": LIMIT},
    )
)


def _break(error: Exception) -> Any:
    raise error


FAILURES: dict[str, Callable[[World], object]] = {
    "resolve": lambda world: setattr(world.interpreters, "resolutions", []),
    "create": lambda world: setattr(world.interpreters, "creation_error", RuntimeError("no process")),
    "prepare": lambda world: world.plugin.script.update(prepare=lambda: _break(RuntimeError("no"))),
    "prepare hangs": lambda world: world.plugin.script.update(prepare=Deferred),
    "activate": lambda world: world.plugin.script.update(activate=lambda: _break(RuntimeError("no"))),
    "store": lambda world: setattr(world.store, "fail_writes", True),
    "tree": lambda world: setattr(world.table, "fails", StageFailed("swap", "no tree")),
    "note": lambda world: setattr(world.table, "on_swap", lambda: setattr(world.store, "fail_writes", True)),
}


class ReloadMachine(ServerMachine):
    """A server and its operators."""

    def standing(self) -> Any:
        """Return everything that a reload that fails, or is dry, must leave as it is."""
        world, rows = self.world, rows_of(self.world)
        stands = world.stands()
        current = stands.pop("current")
        return (
            stands,
            {each.name: getattr(current, each.name) for each in fields(Generation) if each.name != "pin"},
            world.rollouts.ramps.describe(),
            world.rollouts.probations.describe(),
            {trigger_id: (ramp, ramp.share) for trigger_id, ramp in world.registry.ramps.items()},
            {event_id: (row.stored.state, row.stored.version) for event_id, row in rows.items()},
            world.store.query("SELECT name, value FROM standing WHERE name != ? ORDER BY name", PIN_CHECKPOINT),
        )

    def pin(self) -> Any:
        """Return everything that keeps the files from being adopted: in memory, and in the store."""
        current = self.world.serving
        return current.pin, self.world.store.query("SELECT value FROM standing WHERE name = ?", PIN_CHECKPOINT)

    def target(self, recall: int | None) -> Content | None:
        """Return the content that a reload is to adopt; None when it must fail."""
        if recall is None:
            return self.book.disk
        return self.book.contents[recall] if recall in self.kept() else None

    def previous(self) -> int:
        """Return the newest generation of other content, not counting what failed its probation last; -1 for none."""
        contents, before = self.book.contents, self.live
        adopted = "SELECT number, source, recalled FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC"
        for number, source, recalled in self.world.store.query(adopted):
            if contents[number] != contents[self.live]:
                if number < before:
                    return int(number)
            elif source == REVERT and recalled is not None:
                before = min(before, recalled)
        return -1

    def reloaded(self, *, force: bool = False, **wanted: Any) -> ReloadReport | None:
        """Reload, and compare the result with the expected one; give the report unless it was refused."""
        world, stood, live, pin = self.world, self.standing(), self.live, self.pin()
        recall, dry_run = wanted.get("recall"), wanted.get("dry_run", False)
        if recall == PREVIOUS:
            recall = self.previous()
        target = self.target(recall)
        was_on_probation = world.rollouts.probations.current is not None
        outcome = self.came(world.reload(force=force, **wanted))
        if isinstance(outcome, Failure):
            assert outcome.check(GenerationUnknown), outcome
            assert recall is not None
            assert target is None
            assert (self.standing(), self.pin()) == (stood, pin)
            return None
        changes = self.book.contents[live].changes(target or NOTHING)
        is_same = target == self.book.contents[live] and not force
        readable = recall is None or not world.store.fail_reads
        removes_most = (
            2 * len(changes["removed"]) > len(self.book.contents[live].wishes) and len(changes["removed"]) > 1
        )
        if outcome.status == NEEDS_CONFIRMATION:
            assert wanted["source"] == "file_watch"
            assert removes_most
            assert outcome.removed == changes["removed"]
            assert world.coordinator.waiting is not None
        if not outcome.ok or dry_run or is_same:
            assert self.standing() == stood
            if outcome.ok and not dry_run and recall is None and wanted.get("source") != "file_watch":
                assert self.pin() == (None, []) or world.store.fail_writes  # the files were asked for
            else:
                assert self.pin() == pin
        if outcome.ok:
            assert target is not None
            found = {name: getattr(outcome, name) for name in changes}
            assert found == changes, (found, changes)
            assert wanted.get("source") != "file_watch" or not removes_most or dry_run
            if not (dry_run or is_same):
                assert outcome.generation > live
                assert self.book.contents[outcome.generation] == target
                self.began(outcome, wanted, was_on_probation=was_on_probation)
        else:
            held = outcome.status == NEEDS_CONFIRMATION
            assert target is None or held or world.store.fail_writes or not readable, outcome
        return outcome

    def began(self, report: ReloadReport, wanted: dict[str, Any], *, was_on_probation: bool) -> None:
        """Hold the trials that began with a generation against what was asked for."""
        wishes = self.book.contents[report.generation].wishes
        asked = wanted.get("ramp")
        ramps = {each.trigger_id: each for each in report.ramps if each.state == "running"}
        if wanted.get("recall") is not None:
            assert report.probation is None
            assert not ramps.keys() & {*report.modified}
            return
        has_terms = bool(wanted.keys() & {"confirm_within", "revert_limit"})
        assert (report.probation is not None) == (has_terms or was_on_probation)
        for trigger_id in report.modified:
            rollout = wishes[trigger_id].rollout
            assert (trigger_id in ramps) == bool(rollout or asked is not None), report
            if trigger_id in ramps:
                assert ramps[trigger_id].percent == 100 * (SHARES[rollout] if asked is None else asked)

    @rule(source=st.sampled_from(("cli", "signal", "file_watch")), force=st.booleans(), is_matched=st.booleans())
    def reload(self, source: str, force: bool, is_matched: bool) -> None:
        """Reload the files on disk."""
        etag = self.world.coordinator.etag if is_matched else None
        self.reloaded(source=source, force=force, if_match=etag)

    @rule(ramp=st.sampled_from((None, 0.0, 0.5, 0.75)), terms=TERMS)
    def reload_on_trial(self, ramp: float | None, terms: dict[str, Any]) -> None:
        """Reload good files on probation, on a ramp, or both."""
        self.save()
        self.reloaded(**{**terms, **({} if ramp is None else {"ramp": ramp})})

    @rule(trigger_id=st.sampled_from(IDS), wish=WISHES, number=st.integers(0, 2), terms=TERMS)
    def change(self, trigger_id: str, wish: Wish, number: int, terms: dict[str, Any]) -> None:
        """Edit a trigger and its code, and reload, perhaps on probation."""
        self.code[wish.module] = number
        self.edit(trigger_id, wish)
        self.reloaded(**terms)

    @rule(trigger_id=st.sampled_from(IDS[:3]), wish=BAD_WISHES, terms=TERMS)
    def change_for_the_worse(self, trigger_id: str, wish: Wish, terms: dict[str, Any]) -> None:
        """Reload code that always fails, while many events come."""
        self.change(trigger_id, wish, 3, terms)
        self.storm(trigger_id, fails=True)

    @rule(kept=st.sets(st.sampled_from(IDS), max_size=1))
    def half_a_file(self, kept: set[str]) -> None:
        """Reload a manifest with hardly anything in it, as the watcher."""
        self.remove({*self.wanted} - kept)
        self.reloaded(source="file_watch")

    @rule(data=st.data(), dry_run=st.booleans(), force=st.booleans())
    def roll_back(self, data: st.DataObject, dry_run: bool, force: bool) -> None:
        """Revert to any generation, or find that it is not kept."""
        recall = data.draw(st.sampled_from((PREVIOUS, *range(1, self.book.highest + 2))))
        self.reloaded(recall=recall, dry_run=dry_run, force=force, source="rollback")

    @rule(force=st.booleans())
    def dry_run(self, force: bool) -> None:
        """Make a dry run, which changes nothing, whatever it finds."""
        report = self.reloaded(dry_run=True, force=force)
        assert report is not None
        assert report.ok == (self.book.disk is not None)

    @rule()
    def reload_for_another(self) -> None:
        """Reload with the tag of another generation than the live one, which is refused."""
        stood = self.standing()
        assert self.came(self.world.reload(if_match='"0-other"')).check(PreconditionFailed)
        assert self.standing() == stood

    @precondition(lambda self: not self.world.store.fail_writes)
    @rule(
        names=st.lists(st.sampled_from(sorted(FAILURES)), min_size=1, max_size=2),
        recall=st.sampled_from((None, None, PREVIOUS)),
        terms=TERMS,
    )
    def reload_that_fails(self, names: list[str], recall: int | None, terms: dict[str, Any]) -> None:
        """Reload while something breaks; check that nothing changes, unless it did not come that far."""
        world, live = self.world, self.live
        if any(call.getTime() <= world.clock.seconds() + 30.0 for call in world.clock.getDelayedCalls()):
            names = [name for name in names if name not in ("resolve", "prepare hangs")]
        stood = self.standing()
        for name in names:
            FAILURES[name](world)
        self.was_away |= bool({"store", "note"} & {*names})
        outcome = self.came(world.reload(force=True, recall=recall, **terms))
        world.plugin.script.clear()
        world.interpreters.resolutions = world.interpreters.creation_error = world.table.fails = None
        world.table.on_swap = lambda: None
        if isinstance(outcome, ReloadReport) and outcome.ok:
            assert outcome.generation > live
        else:
            self.book.hold(self.standing() == stood, "a failed reload changed something", names)
        self.store_is_back()

    @rule(count=st.integers(2, 5))
    def many_at_once(self, count: int) -> None:
        """Send plain requests together; check that two reloads answer them, truly."""
        world = self.world
        before = len(world.told.finished)
        world.clock.pool.held = True
        asked = [world.reload(actor=str(number)) for number in range(count)]
        world.clock.pool.release()
        reports = [self.asked(each) for each in asked]
        assert [report.actor for report in reports] == [str(number) for number in range(count)]
        assert len(world.told.finished) == before + 2

    @precondition(lambda self: not self.world.store.fail_reads)
    @rule(data=st.data(), recall=st.sampled_from((None, PREVIOUS)), terms=TERMS)
    def meanwhile(self, data: st.DataObject, recall: int | None, terms: dict[str, Any]) -> None:
        """Reload slowly while other things happen; check that these take effect or are overtaken, not lost."""
        world = self.world
        if any(call.getTime() <= world.clock.seconds() + GRACE for call in world.clock.getDelayedCalls()):
            terms = {}
        world.clock.pool.held = True
        found: list[Any] = []
        world.reload(recall=recall, **terms).addBoth(found.append)
        for _ in range(data.draw(st.integers(1, 3))):
            data.draw(st.sampled_from(self.deeds()))()
            if self.world is not world:
                break
        world.clock.pool.release()
        (outcome,) = found
        allowed = (GenerationUnknown,) if self.world is world else (GenerationUnknown, ShuttingDown)
        assert isinstance(outcome, ReloadReport) or outcome.check(*allowed), outcome
        assert not self.unanswered

    def deeds(self) -> list[Callable[[], object]]:
        """Return the actions that may happen while a reload runs."""
        deeds: list[Callable[[], object]] = [
            lambda: self.deliver("a"),
            lambda: self.storm("a", fails=True),
            lambda: self.end_ramp("abort", None),
            lambda: self.end_ramp("finish", "a"),
            self.confirm,
            lambda: self.begin_request(min(self.world.live())) if self.world.live() else None,
            lambda: self.world.clock.advance(GRACE),
            lambda: self.restart("plain"),
        ]
        if self.requests:
            deeds.append(self.request_ends)
        if self.world.calls:
            deeds.append(lambda: self.end(0, "raises"))
        if self.world.registry.draining():
            deeds.append(lambda: self.end_drain(0, "cancel"))
            deeds.append(lambda: self.end_drain(0, "move"))
        return deeds

    # Trials and drains

    @precondition(lambda self: self.world.registry.ramps)
    @rule(data=st.data(), action=st.sampled_from(("finish", "abort")))
    def ramp_ends(self, data: st.DataObject, action: str) -> None:
        """End a ramp, or all of them, as an operator."""
        self.end_ramp(action, data.draw(st.sampled_from((None, *sorted(self.world.registry.ramps)))))
        assert not self.unanswered

    def end_ramp(self, action: str, trigger_id: str | None) -> None:
        """End it, if there is one, and hold what is answered."""
        world, before = self.world, {each for each in self.world.registry.ramps if trigger_id in (None, each)}

        def told(outcome: Any) -> None:
            self.unanswered -= 1
            if isinstance(outcome, Failure):
                away = (EventLogUnavailable,) if world.store.fail_writes else ()
                self.book.hold(outcome.check(NothingPending, ShuttingDown, *away), outcome)
                return
            for each in outcome:
                self.book.hold(each.trigger_id in before, "ended another", each)
                states = ("superseded", "finished" if action == "finish" else "aborted")
                self.book.hold(each.state in states, "ended otherwise", each)

        self.unanswered += 1
        Deferred.fromCoroutine(getattr(world.rollouts.ramps, action)(trigger_id, "me")).addBoth(told)

    @rule()
    def confirm(self) -> None:
        """Confirm the live generation, if it waits for that; check that it stays once that is stored."""
        world, before = self.world, self.world.rollouts.probations.current
        outcome = self.came(Deferred.fromCoroutine(world.rollouts.confirm(None, "me")))
        if isinstance(outcome, Failure):
            assert outcome.check(NothingPending if before is None else EventLogUnavailable), outcome
            assert before is None or world.store.fail_writes
            assert world.rollouts.probations.current == before
        else:
            assert outcome == self.live
            assert world.rollouts.probations.current is None

    @precondition(lambda self: self.world.registry.draining())
    @rule(data=st.data(), how=st.sampled_from(("move", "cancel")))
    def drain_ends_early(self, data: st.DataObject, how: str) -> None:
        """Move on what a draining version has not begun, or cancel its drain, as an operator."""
        self.end_drain(data.draw(st.integers(0, len(self.world.registry.draining()) - 1)), how)

    def end_drain(self, index: int, how: str) -> None:
        """End a drain early."""
        binding = self.world.registry.draining()[index]
        if how == "cancel":
            self.book.cancelled.add(binding.key)
            self.book.ever_cancelled.add(binding.key)
            self.world.dispatcher.cancel(binding)
        elif not binding.is_closed:
            self.world.dispatcher.move_on(binding)


class MachineTest(SynchronousTestCase):
    def test_machine(self) -> None:
        """Whatever is done in whatever order, the promises hold after each step, and in the end everything ends."""
        more = os.environ.get("HARN_EXAMPLES")
        run_state_machine_as_test(
            ReloadMachine,
            settings=settings(
                max_examples=int(more or "100"),
                stateful_step_count=30,
                deadline=None,
                derandomize=more is None,  # a longer run looks for what the usual examples do not show
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        self.flushLoggedErrors(RuntimeError)
