"""Trials together: what one of them leaves behind for the next, and for the next server."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from harn.model.shares import FailureLimit
from harn.triggers.binding import ACTIVE
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, fake


class TrialsTests(CoordinatorCase):
    def edit(self, number: int, **more: object) -> None:
        """Change trigger ``b`` and its code, and reload."""
        self.world.write("more.py", f"{HANDLERS}# {number}\n")
        self.world.manifest(fake("a"), fake("b", handler="more:on_event", extra=f"timeout = '{number}s'"))
        self.reloaded(**more)

    def test_undoing_leaves_alone_what_was_put_back(self) -> None:
        """A trigger that is as it was before the first of two changes on probation goes on serving when these lapse."""
        self.edit(1)
        self.edit(2, confirm_within=20.0)
        self.edit(1, confirm_within=20.0)
        put_back = self.world.version("b")
        self.world.clock.advance(20.0)
        self.assertEqual(self.world.coordinator.last.source, "revert")
        self.assertIs(self.world.version("b"), put_back)
        self.assertEqual((put_back.state, put_back.moved), (ACTIVE, False))

    def test_undoing_of_the_same_content(self) -> None:
        """A forced reload of what is live has nothing to fall back to: its probation ends, for the next server too."""
        self.reloaded(force=True, confirm_within=20.0)
        self.world.clock.advance(20.0)
        self.assertEqual((self.world.coordinator.generation, self.world.trials.probations.current), (2, None))
        self.world = self.world.restarted()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertIsNone(self.world.trials.probations.current)

    def test_another_while_undoing_fails(self) -> None:
        """What is adopted while an undoing fails falls back to what was good; only the last undoing goes on."""
        self.edit(1, confirm_within=20.0)
        self.world.store.fail_reads = True
        self.world.clock.advance(20.0)
        self.edit(2, confirm_within=2.0)
        self.assertEqual(self.world.trials.probations.current.fallback, 1)
        self.world.clock.advance(2.0)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)
        self.world.store.fail_reads = False
        self.world.clock.advance(10.0)
        self.assertEqual((self.world.coordinator.generation, self.world.coordinator.last.recalled), (4, 1))
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_lapsed_while_no_server_ran(self) -> None:
        """What nobody confirmed in time is undone at the next start, also if its failures are to be watched longer."""
        limit = FailureLimit(rate=0.5, minimum=5)
        self.edit(1, confirm_within=20.0, revert_limit=limit, revert_for=100.0)
        self.world = self.world.restarted()
        self.world.clock.advance(30.0)
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.world.clock.advance(0)
        self.assertEqual(self.world.coordinator.last.source, "revert")

    def test_stable_version_serves_after_a_restart(self) -> None:
        """Both versions of a ramp that goes on after a restart are in force, and are shown so."""
        self.edit(1)
        self.edit(2, ramp=0.5, revert_limit=FailureLimit(rate=0.5, minimum=5))
        self.world = self.world.restarted()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertEqual([each.state for each in self.world.registry.ramps["b"].versions], [ACTIVE, ACTIVE])

    def test_closed_while_nothing_can_be_kept(self) -> None:
        """A server that ends while the store is away leaves no timer behind."""
        self.edit(1)
        self.edit(2, ramp=0.5)
        self.world.store.fail_writes = True
        self.successResultOf(Deferred.fromCoroutine(self.world.trials.ramps.abort("b", "me")))
        self.assertNotEqual(self.world.clock.getDelayedCalls(), [])
        self.world.close()
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
