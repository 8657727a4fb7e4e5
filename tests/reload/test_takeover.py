"""A first generation in another program's place: reserved and still until it takes over, and as if never made else."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from harn.errors import EventLogUnavailable
from harn.reload.generation import WITHDRAWN
from harn.reload.report import PREVIOUS
from harn.rollout.probation import NAME as PROBATION
from harn.rollout.ramps import NAME as RAMPS
from harn.rollout.rollouts import PATIENCE
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, World, fake, present


class TakeoverCase(CoordinatorCase):
    """An old program that serves generation 2, and a new one beside it."""

    def edit(self, number: int) -> None:
        """Change trigger ``b`` and its code."""
        self.world.write("more.py", f"{HANDLERS}# {number}\n")
        self.world.manifest(fake("a"), fake("b", handler="more:on_event", extra=f"timeout = '{number}s'"))

    def successor(self) -> World:
        """Build the first generation of a new program, while the old one serves."""
        self.new = World(self.world.root, clock=self.world.clock, store=self.world.store.beside())
        self.addCleanup(self.new.close)
        report = self.successResultOf(self.new.start(waits=True))
        self.assertTrue(report.ok, report)
        return self.new

    def take_over(self) -> None:
        """Begin to serve with it; the old program decides nothing more."""
        self.world.coordinator.close()
        self.successResultOf(Deferred.fromCoroutine(self.new.coordinator.read_rollouts()))
        self.new.coordinator.begin_rollouts()
        self.successResultOf(Deferred.fromCoroutine(self.new.coordinator.note_serving()))

    def history(self) -> list[int]:
        """Return the numbers of the generations that served, as the store holds them."""
        return [each.number for each in self.successResultOf(self.world.store.generations.history(10))]

    def kept(self, name: str) -> Any:
        """Return the stored values."""
        return self.successResultOf(self.world.store.checkpoints.get(name))

    def renumber(self) -> None:
        """Resume the old program, since the new one has ended."""
        self.successResultOf(
            Deferred.fromCoroutine(self.world.coordinator.numbers.read_again(self.world.coordinator.current))
        )


class ReservedTests(TakeoverCase):
    """Before it takes over."""

    def test_nothing_but_a_number(self) -> None:
        """What it builds is reserved: no history, no record, no timer, and what is under way is the old program's."""
        self.edit(1)
        self.reloaded(confirm_within=20.0)
        timers, kept = len(self.world.clock.getDelayedCalls()), self.kept(PROBATION)
        self.edit(2)
        new = self.successor()
        self.assertEqual((new.coordinator.generation, self.history()), (3, [2, 1]))
        self.assertEqual((new.told.finished, new.notes), ([], []))
        self.assertEqual((len(self.world.clock.getDelayedCalls()), self.kept(PROBATION)), (timers, kept))
        self.assertEqual(kept["generation"], 2)

    def test_as_if_it_had_never_been(self) -> None:
        """When it has ended, its numbers are given again, and no rollback finds the generation that it built."""
        self.edit(1)
        self.reloaded()
        self.edit(2)
        self.successor()
        self.renumber()
        last = present(self.successResultOf(self.world.store.generations.last()))
        self.assertEqual((last.number, last.digest), (3, WITHDRAWN))
        self.edit(3)
        report = self.reloaded()
        self.assertEqual((report.generation, self.world.live()["b"]), (3, 3))
        report = self.reloaded(recall=PREVIOUS)
        self.assertEqual((report.generation, report.recalled), (4, 2))

    def test_undone_by_the_old_program(self) -> None:
        """What the old program has on probation is undone there, once, if the new one comes to nothing."""
        self.edit(1)
        self.reloaded(confirm_within=20.0)
        self.edit(2)
        self.successor()
        self.renumber()
        self.world.clock.advance(20.0)
        self.assertEqual((self.world.last.source, self.world.last.recalled), ("revert", 1))
        self.assertEqual((self.world.coordinator.generation, self.new.told.finished), (3, []))

    def test_numbers_that_cannot_be_read(self) -> None:
        """Until the numbers are known again no reload adopts anything; the first that can read them does."""
        self.edit(1)
        self.reloaded()
        self.edit(2)
        self.successor()
        self.take_over_unseen()
        self.world.store.fail_reads = True
        renumbering = Deferred.fromCoroutine(self.world.coordinator.numbers.read_again(self.world.coordinator.current))
        self.failureResultOf(renumbering, EventLogUnavailable)
        self.edit(3)
        report = self.reload()
        self.assertEqual((report.stage, report.generation), ("prepare", 2))
        self.world.store.fail_reads = False
        self.assertEqual(self.reloaded().generation, 4)

    def take_over_unseen(self) -> None:
        """Record that it serves, and end it; the old program is not notified."""
        self.successResultOf(Deferred.fromCoroutine(self.new.coordinator.read_rollouts()))
        self.new.coordinator.begin_rollouts()
        self.successResultOf(Deferred.fromCoroutine(self.new.coordinator.note_serving()))

    def test_number_unknown(self) -> None:
        """A number that the other program used is not given again, also if it was never announced."""
        self.edit(1)
        self.reloaded()
        self.edit(2)
        self.successor()
        self.take_over_unseen()
        self.world.coordinator.numbers.are_known = False
        self.edit(3)
        self.assertEqual(self.reloaded().generation, 4)
        self.assertTrue(self.world.coordinator.numbers.are_known)


class TakenTests(TakeoverCase):
    """From when it takes over."""

    def test_noted_and_published(self) -> None:
        """It is in the history, and its record has the rollouts under way; once."""
        self.edit(1)
        self.reloaded(confirm_within=20.0)
        self.edit(2)
        self.successor()
        self.take_over()
        self.assertEqual(self.history(), [3, 2, 1])
        [finished] = self.new.told.finished
        self.assertEqual((finished.report.generation, finished.report.source), (3, "start"))
        self.successResultOf(Deferred.fromCoroutine(self.new.coordinator.note_serving()))
        self.assertEqual(len(self.new.told.finished), 1)

    def test_probation_goes_on(self) -> None:
        """An unchanged generation is on probation there as it was, and undone there in time."""
        self.edit(1)
        self.reloaded(confirm_within=20.0)
        self.successor()
        self.world.clock.advance(5.0)
        self.take_over()
        self.assertEqual(present(self.new.told.finished[0].report.probation).generation, 2)
        self.world.clock.advance(14.0)
        self.assertEqual(self.new.coordinator.generation, 2)
        self.world.clock.advance(1.0)
        self.assertEqual((self.new.last.source, self.new.coordinator.generation), ("revert", 3))
        self.assertEqual(self.world.coordinator.generation, 2)

    def test_probation_is_over(self) -> None:
        """A probation that ended while the new program began does not continue there."""
        self.edit(1)
        self.reloaded(confirm_within=20.0)
        self.successor()
        self.successResultOf(Deferred.fromCoroutine(self.world.rollouts.confirm(None, "me")))
        self.take_over()
        self.assertIsNone(self.new.rollouts.probations.current)
        self.world.clock.advance(30.0)
        self.assertEqual((self.new.coordinator.generation, self.kept(PROBATION)), (2, None))
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_ramp_goes_on(self) -> None:
        """A ramp has the share there that it had last, and steps when it would have."""
        self.edit(1)
        self.reloaded()
        self.edit(2)
        rollout = "rollout = { percent = 10, step = 20, every = '10s' }"
        self.world.manifest(fake("a"), fake("b", handler="more:on_event", extra=f"timeout = '2s'\n{rollout}"))
        self.reloaded()
        self.successor()
        self.world.clock.advance(10.0)
        self.assertEqual([note[0] for note in self.world.notes], ["ramp_stepped"])
        self.assertEqual(self.new.notes, [])
        self.take_over()
        ramp = self.new.registry.ramps["b"]
        self.assertAlmostEqual(ramp.share, 0.3)
        self.world.clock.advance(9.0)
        self.assertAlmostEqual(ramp.share, 0.3)
        self.world.clock.advance(1.0)
        self.assertAlmostEqual(ramp.share, 0.5)
        self.assertAlmostEqual(self.kept(RAMPS)[0]["share"], 0.5)
        self.assertEqual([note[0] for note in self.world.notes + self.new.notes], ["ramp_stepped"] * 2)

    def test_ramps_are_over(self) -> None:
        """A ramp that the old program finished or aborted meanwhile is over in the new one too, the same way."""
        for action in ("finish", "abort"):
            self.edit(1)
            self.reloaded(force=True)
            self.edit(2)
            self.reloaded(ramp=0.5)
            stable, fresh = (each.version for each in self.world.registry.ramps["b"].versions)
            self.successor()
            ending = getattr(self.world.rollouts.ramps, action)("b", "me")
            self.successResultOf(Deferred.fromCoroutine(ending))
            self.take_over()
            self.assertEqual(self.new.registry.ramps, {})
            self.assertEqual(self.new.live()["b"], fresh if action == "finish" else stable)
            self.world = self.new

    def test_store_away(self) -> None:
        """Rollouts that cannot be read again continue as they were; the wait for that is short."""
        for hangs in (False, True):
            self.setUp()
            self.edit(1)
            self.reloaded(confirm_within=20.0)
            self.successor()
            self.world.coordinator.close()
            kept = self.new.store.checkpoints.get
            self.new.store.fail_reads = not hangs
            if hangs:
                self.new.store.checkpoints.get = lambda name: Deferred()
            taking = Deferred.fromCoroutine(self.new.coordinator.read_rollouts())
            self.world.clock.advance(PATIENCE)
            self.successResultOf(taking)
            self.new.coordinator.begin_rollouts()
            self.new.store.checkpoints.get, self.new.store.fail_reads = kept, False
            current = self.new.rollouts.probations.current
            assert current is not None
            self.assertEqual(current.generation, 2)

    def test_step_that_fails(self) -> None:
        """When it cannot serve after all, nothing of it has begun, and the old program continues."""
        self.edit(1)
        self.reloaded(confirm_within=20.0)
        self.edit(2)
        self.successor()
        timers = len(self.world.clock.getDelayedCalls())
        self.successResultOf(Deferred.fromCoroutine(self.new.coordinator.read_rollouts()))
        self.assertEqual((len(self.world.clock.getDelayedCalls()), self.history()), (timers, [2, 1]))
        self.renumber()
        self.edit(3)
        self.assertEqual(self.reloaded().generation, 3)
