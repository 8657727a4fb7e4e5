"""Trials together: what one of them leaves behind for the next, and for the next server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from harn.connectors.interfaces import NormalizedEvent
from harn.dispatch.decisions import Arrival
from harn.errors import EventLogUnavailable, ShuttingDown
from harn.model.quantities import FailureLimit
from harn.reload.report import PREVIOUS
from harn.store.retention import RetentionPolicy
from harn.triggers.binding import ACTIVE
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, fake, present


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
        self.assertEqual(self.world.last.source, "revert")
        self.assertIs(self.world.version("b"), put_back)
        self.assertEqual((put_back.state, put_back.is_closed), (ACTIVE, False))

    def test_undoing_of_the_same_content(self) -> None:
        """A forced reload of the live content has nothing to fall back to: its probation ends, after a restart too."""
        self.reloaded(force=True, confirm_within=20.0)
        self.world.clock.advance(20.0)
        self.assertEqual((self.world.coordinator.generation, self.world.rollouts.probations.current), (2, None))
        self.world = self.world.restarted()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertIsNone(self.world.rollouts.probations.current)

    def test_another_while_undoing_fails(self) -> None:
        """What is adopted while an undoing fails falls back to what was good; only the last undoing continues."""
        self.edit(1, confirm_within=20.0)
        self.world.store.fail_reads = True
        self.world.clock.advance(20.0)
        self.edit(2, confirm_within=2.0)
        self.assertEqual(present(self.world.rollouts.probations.current).fallback, 1)
        self.world.clock.advance(2.0)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)
        self.world.store.fail_reads = False
        self.world.clock.advance(10.0)
        self.assertEqual((self.world.coordinator.generation, self.world.last.recalled), (4, 1))
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_lapsed_while_no_server_ran(self) -> None:
        """A change without a confirmation in time is undone at the next start, even if its failures are watched."""
        limit = FailureLimit(rate=0.5, minimum=5)
        self.edit(1, confirm_within=20.0, revert_limit=limit, revert_for=100.0)
        self.world = self.world.restarted()
        self.world.clock.advance(30.0)
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.world.clock.advance(0)
        self.assertEqual(self.world.last.source, "revert")

    def test_stable_version_serves_after_a_restart(self) -> None:
        """Both versions of a ramp that continues after a restart are in force, and are shown so."""
        self.edit(1)
        self.edit(2, ramp=0.5, revert_limit=FailureLimit(rate=0.5, minimum=5))
        self.world = self.world.restarted()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertEqual([each.state for each in self.world.registry.ramps["b"].versions], [ACTIVE, ACTIVE])

    def test_retention_leaves_what_drains(self) -> None:
        """Versions that a request under way began on are kept: its event may be accepted later, after a restart."""
        route = self.world.table.tree["/triggers/b"]
        route.lease()
        self.edit(1)
        policy = RetentionPolicy(events=1e9, dead=1e9, generations=1, versions=self.world.rollouts.needed().versions)
        while self.successResultOf(self.world.store.trim(policy, self.world.clock.seconds(), 100)):
            pass
        arrival = Arrival(headers={}, body=b"{}", received_at=self.world.clock.seconds())
        self.successResultOf(
            self.world.intake.take(route.binding, arrival, [NormalizedEvent(kind="thing", dedupe_key="d")])
        )
        route.release()
        self.world = self.world.restarted()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.successResultOf(Deferred.fromCoroutine(self.world.recovery.automatic(10)))
        self.world.clock.advance(0)
        self.assertEqual([each.call.binding for each in self.world.calls], ["b@v1"])

    def test_closed_while_nothing_can_be_kept(self) -> None:
        """A server that ends while the store is unavailable leaves no timer behind, and no answer open."""
        self.edit(1)
        self.edit(2, ramp=0.5)
        self.world.store.fail_writes = True
        self.failureResultOf(self.abort("b"), EventLogUnavailable)
        self.assertNotEqual(self.world.clock.getDelayedCalls(), [])
        self.world.close()
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.failureResultOf(self.abort("b"), ShuttingDown)

    def test_aborted_in_vain(self) -> None:
        """An end that the store does not record is undone: the ramp continues as it was, and is stored so."""
        self.edit(1)
        self.edit(2, ramp=0.5, revert_limit=FailureLimit(rate=0.5, minimum=5))
        self.world.store.fail_writes = True
        self.failureResultOf(self.abort("b"), EventLogUnavailable)
        self.world.store.fail_writes = False
        (ramp,) = self.world.rollouts.ramps.describe()
        self.assertEqual((ramp.state, ramp.percent), ("running", 50))
        self.world = self.world.restarted()
        self.successResultOf(self.world.start())
        (ramp,) = self.world.rollouts.ramps.describe()
        self.assertEqual((ramp.state, ramp.percent), ("running", 50))

    def test_end_is_kept_before_it_takes_effect(self) -> None:
        """A server that ends after an abort was kept, and before it took effect, leaves it to the next."""
        self.edit(1)
        self.edit(2, ramp=0.5)
        self.world.clock.pool.held = True
        reloading = self.world.reload(force=True)
        aborting = self.abort("b")
        self.assertNoResult(aborting)
        self.world.coordinator.close()
        for each in (aborting, reloading):
            self.failureResultOf(each, ShuttingDown)
        self.world.clock.pool.release()
        self.world = self.world.restarted()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertEqual([each.state for each in self.world.rollouts.ramps.describe()], ["aborted"])
        self.assertEqual(self.world.live()["b"], 2)

    def test_note_is_tried_again(self) -> None:
        """A generation whose note failed is noted as soon as that works, with the probation that it is on by then."""
        self.world.store.fail_writes = False
        adopted, calls = self.world.store.generations.adopted, []

        def fail_once(*arguments: Any) -> Deferred[None]:
            calls.append(arguments[0])
            return fail(EventLogUnavailable("no")) if len(calls) == 1 else adopted(*arguments)

        self.patch(self.world.store.generations, "adopted", fail_once)
        self.world.manifest(fake("a"), fake("b", extra="timeout = '7s'"))
        report = self.reloaded(confirm_within=60.0)
        self.assertIn("could not be recorded", report.warnings[-1])
        self.world.clock.advance(5.0)
        self.assertEqual(calls, [2, 2])
        self.assertEqual(self.successResultOf(self.world.store.generations.history(1))[0].number, 2)
        self.assertEqual(self.successResultOf(self.world.store.checkpoints.get("probation"))["generation"], 2)

    def test_late_note_says_nothing_of_what_is_over(self) -> None:
        """A note that works only after the next generation serves does not bring back what was under way before."""
        adopted, calls = self.world.store.generations.adopted, []

        def fail_once(*arguments: Any) -> Deferred[None]:
            calls.append(arguments[0])
            return fail(EventLogUnavailable("no")) if len(calls) == 1 else adopted(*arguments)

        self.patch(self.world.store.generations, "adopted", fail_once)
        self.edit(1, confirm_within=60.0)
        self.reloaded(recall=PREVIOUS)
        self.world.clock.advance(5.0)
        self.assertEqual(sorted(calls), [2, 2, 3])
        self.assertIsNone(self.successResultOf(self.world.store.checkpoints.get("probation")))
        self.assertEqual(
            [each.number for each in self.successResultOf(self.world.store.generations.history(5))], [3, 2, 1]
        )

    def test_damaged(self) -> None:
        """An earlier server's rollouts that cannot be read are discarded, and logged; the server starts."""
        for name in ("replaced", "probation", "ramps"):
            for value in (["a"], {"a": 1}, {"times": 1}, "x", 7, {"generation": 1, "times": [0, 0, 0], "bindings": 3}):
                self.successResultOf(self.world.store.checkpoints.put(name, value))
                self.world = self.world.restarted()
                self.assertTrue(self.successResultOf(self.world.start()).ok, (name, value))
            self.successResultOf(self.world.store.checkpoints.put(name, None))

    def abort(self, trigger_id: str) -> Deferred[Any]:
        """Abort its ramp."""
        return Deferred.fromCoroutine(self.world.rollouts.ramps.abort(trigger_id, "me"))
