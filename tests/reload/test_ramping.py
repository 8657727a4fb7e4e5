"""Ramps: a modified trigger takes a share of new deliveries, more of them step by step, or none when it fails."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from harn.clocks import LONGEST_SLEEP
from harn.errors import HandlerRaised, HandlerRetryAfter, NothingPending
from harn.reload.report import PREVIOUS
from harn.store.retention import RetentionPolicy
from harn.triggers.binding import ACTIVE, DRAINING, TERMINATED
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, fake, handlers_in

ROLLOUT = 'rollout = { percent = 10, step = 30, every = "1m", max_failures = "20%" }'


class RampCase(CoordinatorCase):
    taken = 0

    def edit(self, number: int, rollout: str = "", **more: Any) -> Any:
        """Change trigger ``a``, its code too, and reload."""
        self.world.write("handlers.py", f"{HANDLERS}# {number}\n")
        self.world.manifest(fake("a", extra=f"timeout = '{number}s'\n{rollout}"), fake("b"))
        return self.reloaded(**more)

    def deliver(self, count: int) -> dict[str, int]:
        """Deliver so many events with keys of their own; tell how many each version took."""
        taken: dict[str, int] = {}
        for _ in range(count):
            self.taken += 1
            found = self.successResultOf(self.world.take("a", f"key {self.taken}"))
            (key,) = found.bindings
            taken[key] = taken.get(key, 0) + 1
        return taken

    def end_all(self, binding: str = "", error: Exception | None = None) -> None:
        """End all calls, or those of one version."""
        for running in tuple(self.world.calls):
            if binding in ("", running.call.binding):
                running.returns() if error is None else running.raises(error)

    def ramps(self) -> list[tuple[str, str, float]]:
        """Return trigger, state and percent of all ramps."""
        described = self.world.rollouts.ramps.describe()
        return [(each.trigger_id, each.state, each.percent) for each in described]

    def noted(self) -> list[str]:
        """Return the kinds of what was recorded of ramps."""
        return [kind for kind, _ in self.world.notes if kind.startswith("ramp")]

    def do(self, action: str, trigger_id: str | None = None) -> Any:
        """Finish or abort."""
        return self.successResultOf(
            Deferred.fromCoroutine(getattr(self.world.rollouts.ramps, action)(trigger_id, "key:me"))
        )


class CourseTests(RampCase):
    def test_steps(self) -> None:
        """It rises by steps; when it has all, the old version drains and ends."""
        self.edit(2, ROLLOUT)
        old = self.world.registry.ramps["a"].stable
        for percent in (10, 40, 70):
            self.assertEqual(self.ramps(), [("a", "running", percent)])
            self.world.clock.advance(60.0)
        self.assertEqual((self.ramps(), old.state), ([], TERMINATED))
        self.assertEqual(set(self.deliver(50)), {"a@v2"})
        self.assertEqual(self.noted(), ["ramp_stepped", "ramp_stepped", "ramp_finished"])
        self.assertEqual(self.world.coordinator.generation, 2)

    def test_a_wall_clock_that_is_set_forward(self) -> None:
        """The next step is due at a time of day: one that has passed is taken within a minute, once."""
        self.edit(2, 'rollout = { percent = 10, step = 30, every = "2h" }')
        self.world.wall.step(7200.0)
        self.world.clock.advance(LONGEST_SLEEP)
        self.assertEqual(self.ramps(), [("a", "running", 40)])
        self.world.clock.advance(LONGEST_SLEEP)
        self.assertEqual(self.ramps(), [("a", "running", 40)])

    def test_a_wall_clock_that_is_set_back(self) -> None:
        """The next step is taken in its time, and the one after it is kept as the clock that was set has it."""
        self.edit(2, 'rollout = { percent = 10, step = 30, every = "1m" }')
        self.world.wall.step(-3600.0)
        self.world.clock.advance(60.0)
        self.assertEqual(self.ramps(), [("a", "running", 40)])
        (kept,) = self.successResultOf(self.world.store.checkpoints.get("ramps"))
        self.assertEqual(kept["next_at"], self.world.wall.seconds() + 60.0)

    def test_all_of_it(self) -> None:
        """Ten steps of a tenth are all of it: no step more is waited for."""
        self.edit(2, 'rollout = { percent = 10, step = 10, every = "1m" }')
        self.world.clock.pump([60.0] * 9)
        self.assertEqual((self.ramps(), self.noted()[-1]), ([], "ramp_finished"))

    def test_many_fail(self) -> None:
        """Of many that fail at once each is closed at once, and their ends are few steps."""
        many = [f"t{number}" for number in range(30)]
        self.world.dispatcher.apply(1000)
        self.world.manifest(*(fake(each) for each in many))
        self.reloaded()
        self.world.manifest(*(fake(each, extra=f"timeout = '9s'\n{ROLLOUT}") for each in many))
        self.reloaded()
        swaps: list[int] = []
        self.world.table.on_swap = lambda: swaps.append(1)
        for each in many:
            self.world.registry.ramps[each].share = 1.0
            for number in range(10):
                self.successResultOf(self.world.take(each, f"key {number}"))
        ramps = dict(self.world.registry.ramps)
        self.end_all(error=HandlerRaised("no"))
        self.assertEqual({ramp.share for ramp in ramps.values()}, {0.0})
        self.world.clock.advance(1.0)
        self.assertEqual({each.state for each in self.world.rollouts.ramps.describe()}, {"aborted"})
        self.assertEqual((len(swaps), self.noted()), (2, ["ramp_aborted", "ramp_aborted"]))

    def test_failures(self) -> None:
        """When too many attempts of the new version fail, it takes none any more, and what it failed at goes back."""
        self.edit(2, ROLLOUT)
        ramp = self.world.registry.ramps["a"]
        ramp.share = 1.0
        self.deliver(10)
        self.end_all("a@v2", HandlerRaised("no"))
        self.assertEqual(self.ramps()[0][:2], ("a", "aborted"))
        self.assertIn("10 of 10 attempts failed", self.world.rollouts.ramps.describe()[0].why)
        self.assertIs(self.world.version("a"), ramp.stable)
        self.assertEqual(set(self.deliver(30)), {"a@v1"})
        self.end_all("a@v2", HandlerRaised("no"))
        self.assertEqual({each.call.binding for each in self.world.calls}, {"a@v1"})
        self.end_all()
        self.assertEqual((ramp.fresh.state, ramp.stable.in_flight), (TERMINATED, 0))
        self.assertEqual(ramp.stable.state, ACTIVE)

    def test_few_failures(self) -> None:
        """With fewer failures than the limit, or too few attempts, it continues."""
        self.edit(2, ROLLOUT)
        self.world.registry.ramps["a"].share = 1.0
        self.deliver(9)
        self.end_all("a@v2", HandlerRaised("no"))
        self.assertEqual(self.ramps()[0][1], "running")

    def test_put_off(self) -> None:
        """Attempts that a handler ended by ``RetryAfter``, since a service is unavailable, do not count as failures."""
        self.edit(2, ROLLOUT)
        self.world.registry.ramps["a"].share = 1.0
        self.deliver(50)
        self.end_all("a@v2", HandlerRetryAfter("later", 60.0))
        self.assertEqual(self.ramps()[0][1], "running")

    def test_abort(self) -> None:
        """An operator may end it: the old version takes all again."""
        self.edit(2, ROLLOUT)
        self.deliver(50)
        (told,) = self.do("abort")
        self.assertEqual((told.state, told.why), ("aborted", "aborted by key:me"))
        self.assertEqual(set(self.deliver(50)), {"a@v1"})
        self.assertEqual(self.world.registry.active["a"].version, 1)

    def test_nothing_to_end(self) -> None:
        """Where nothing ramps there is nothing to finish or abort; the message says what does ramp."""
        for action in ("finish", "abort"):
            asked = getattr(self.world.rollouts.ramps, action)("a", "me")
            self.failureResultOf(Deferred.fromCoroutine(asked), NothingPending)
        self.edit(2, ROLLOUT)
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.world.rollouts.ramps.finish("b", "me")), NothingPending
        )
        self.assertIn("ramping triggers: a", failure.getErrorMessage())

    def test_by_request(self) -> None:
        """A reload may ask for a share: it holds until the ramp is finished."""
        report = self.edit(2, ramp=0.25)
        self.assertEqual(report.ramps[0].percent, 25)
        self.world.clock.advance(10_000.0)
        self.assertEqual(self.ramps(), [("a", "running", 25), ("b", "running", 25)])
        self.do("finish", "a")
        self.assertEqual(self.ramps(), [("b", "running", 25)])
        self.do("finish")
        self.assertEqual((self.ramps(), self.world.version("a").version), ([], 2))

    def test_by_request_with_rollout(self) -> None:
        """With a rollout in the manifest the request says where it begins, and the manifest how it continues."""
        self.edit(2, ROLLOUT, ramp=0.5)
        self.world.clock.advance(60.0)
        self.assertEqual(self.ramps(), [("a", "running", 80), ("b", "running", 50)])

    def test_only_the_rollout(self) -> None:
        """An edit of the rollout alone modifies nothing."""
        self.world.manifest(fake("a", extra=ROLLOUT), fake("b"))
        report = self.reloaded()
        self.assertEqual((report.modified, report.ramps, self.world.live()), ((), (), {"a": 1, "b": 1}))

    def test_another_path(self) -> None:
        """Versions that listen in different places cannot share: the new one takes all, and a warning says why."""
        self.world.manifest(fake("a", path="/elsewhere", extra=ROLLOUT), fake("b"))
        report = self.reloaded()
        self.assertEqual((report.ramps, report.modified), ((), ("a",)))
        self.assertIn("its path changed", report.warnings[0])


class ReloadsMeanwhileTests(RampCase):
    def test_another_trigger(self) -> None:
        """A reload that changes another trigger leaves the ramp as it is, its timer and its old code too."""
        self.edit(2, ROLLOUT)
        self.world.clock.advance(30.0)
        self.world.manifest(fake("a", extra=f"timeout = '2s'\n{ROLLOUT}"), fake("b", extra="timeout = '9s'"))
        report = self.reloaded()
        self.assertEqual((report.modified, report.unchanged), (("b",), ("a",)))
        self.world.clock.advance(30.0)
        self.assertEqual(self.ramps(), [("a", "running", 40)])
        self.assertEqual(set(self.deliver(60)), {"a@v1", "a@v2"})
        by_code = {each.call.binding: handlers_in(each.interpreter) for each in self.world.calls}
        self.assertNotIn(b"# 2", by_code["a@v1"])

    def test_modified_again(self) -> None:
        """Another change ramps from the same old version, from the beginning; the one in between drains."""
        self.edit(2, ROLLOUT)
        self.world.clock.advance(60.0)
        self.deliver(20)
        middle = self.world.registry.ramps["a"].fresh
        self.edit(3, ROLLOUT)
        ramp = self.world.registry.ramps["a"]
        self.assertEqual((ramp.stable.key, ramp.fresh.key, ramp.share), ("a@v1", "a@v3", 0.1))
        self.assertEqual(middle.state, DRAINING)
        self.end_all("a@v2")
        self.assertEqual(middle.state, TERMINATED)

    def test_modified_without_rollout(self) -> None:
        """A change that is not rolled out ends the ramp, with a warning: both versions drain."""
        self.edit(2, ROLLOUT)
        self.deliver(50)
        [warning] = self.edit(3).warnings
        self.assertIn("a: its ramp has ended, the new version takes all deliveries; to begin small again", warning)
        self.assertEqual((self.ramps(), self.world.live()["a"]), ([], 3))
        self.assertEqual({each.key for each in self.world.registry.draining()}, {"a@v1", "a@v2"})
        self.end_all()
        self.assertEqual(self.world.registry.draining(), [])

    def test_rolled_back(self) -> None:
        """A rollback takes effect at once, without a ramp."""
        self.edit(2, ROLLOUT)
        report = self.reloaded(recall=PREVIOUS)
        self.assertEqual((report.ramps, self.ramps(), self.world.live()["a"]), ((), [], 3))
        self.assertEqual(report.warnings, ())  # it is meant to

    def test_ends_during_a_reload(self) -> None:
        """What is decided while a reload runs takes effect on new deliveries at once, and is in force after it."""
        self.edit(2, ROLLOUT)
        self.world.manifest(fake("a", extra=f"timeout = '2s'\n{ROLLOUT}"), fake("b", extra="timeout = '9s'"))
        self.world.clock.pool.held = True
        reloading = self.world.reload()
        aborting = Deferred.fromCoroutine(self.world.rollouts.ramps.abort("a", "me"))
        self.assertNoResult(aborting)
        self.assertEqual(set(self.deliver(30)), {"a@v1"})
        self.world.clock.pool.release()
        self.assertTrue(self.successResultOf(reloading).ok)
        self.assertEqual(self.successResultOf(aborting)[0].state, "aborted")
        self.assertEqual(self.world.live(), {"a": 1, "b": 3})

    def test_cannot_end(self) -> None:
        """A ramp whose end cannot take effect continues as it was, and may be ended later."""
        self.edit(2, ROLLOUT)
        self.world.table.fails = RuntimeError("no tree")
        self.failureResultOf(Deferred.fromCoroutine(self.world.rollouts.ramps.finish("a", "me")), RuntimeError)
        self.assertEqual(self.ramps(), [("a", "running", 10)])
        self.world.table.fails = None
        self.world.clock.advance(60.0)
        self.assertEqual(self.ramps(), [("a", "running", 40)])
        self.assertEqual(self.do("finish")[0].state, "finished")

    def test_superseded_while_it_ends(self) -> None:
        """An end that is overtaken by a reload of the trigger changes nothing any more."""
        self.edit(2, ROLLOUT)
        self.world.manifest(fake("a", extra="timeout = '3s'"), fake("b"))
        self.world.clock.pool.held = True
        reloading = self.world.reload()
        aborting = Deferred.fromCoroutine(self.world.rollouts.ramps.abort("a", "me"))
        self.world.clock.pool.release()
        self.successResultOf(reloading)
        self.assertEqual(self.successResultOf(aborting)[0].state, "superseded")
        self.assertEqual((self.world.live()["a"], self.ramps()), (3, []))


class AbortedTests(RampCase):
    def setUp(self) -> None:
        super().setUp()
        self.edit(2, ROLLOUT)
        self.do("abort")

    def test_other_changes(self) -> None:
        """What was aborted stays so while other things change; the old version keeps its own code."""
        self.world.write("more.py", HANDLERS)
        self.world.manifest(
            fake("a", extra=f"timeout = '2s'\n{ROLLOUT}"), fake("b", handler="more:on_event", extra="timeout = '9s'")
        )
        report = self.reloaded()
        self.assertEqual((report.modified, self.world.live()), (("b",), {"a": 1, "b": 3}))
        self.deliver(1)
        source = handlers_in(self.world.calls[-1].interpreter)
        self.assertNotIn(b"# 2", source)
        self.assertEqual(self.ramps(), [("a", "aborted", 0)])

    def test_removed(self) -> None:
        """What the old version holds is retried after the trigger went, also while the new version still runs."""
        self.edit(3, ROLLOUT)
        self.world.dispatcher.apply(1000)
        taken = self.deliver(40)
        self.end_all("a@v1", HandlerRetryAfter("later", seconds=2.0))
        self.do("abort")
        self.world.manifest(fake("b"))
        self.reloaded()
        self.assertEqual({each.call.binding for each in self.world.calls}, {"a@v3"})
        self.world.clock.advance(2.0)
        self.assertEqual([each.call.binding for each in self.world.calls].count("a@v1"), taken["a@v1"])

    def test_changed_again(self) -> None:
        """The next change of the trigger is a new try, under a number that was never given."""
        self.edit(3, ROLLOUT)
        ramp = self.world.registry.ramps["a"]
        self.assertEqual((ramp.stable.key, ramp.fresh.key), ("a@v1", "a@v3"))
        self.assertEqual(self.ramps(), [("a", "running", 10)])

    def test_forced(self) -> None:
        """A forced reload of the same content tries nothing again."""
        self.reloaded(force=True)
        self.assertEqual((self.world.live(), self.ramps()), ({"a": 1, "b": 2}, [("a", "aborted", 0)]))

    def test_restart(self) -> None:
        """After a restart the version that was aborted is not in force, and the old one runs its own code."""
        self.world = self.world.restarted()
        report = self.successResultOf(self.world.start())
        self.assertEqual(
            (report.generation, self.world.live(), self.ramps()), (2, {"a": 1, "b": 2}, [("a", "aborted", 0)])
        )
        self.assertEqual(set(self.deliver(20)), {"a@v1"})
        self.assertNotIn(b"# 2", handlers_in(self.world.calls[-1].interpreter))
        self.edit(3)
        self.assertEqual(self.world.live()["a"], 3)


class RestartTests(RampCase):
    def restart(self) -> Any:
        """Start another server on the same state."""
        self.world = self.world.restarted()
        return self.successResultOf(self.world.start())

    def test_other_files(self) -> None:
        """A start that finds another trigger than the one that ramped ramps nothing."""
        self.edit(2, ROLLOUT)
        self.world = self.world.restarted()
        self.world.manifest(fake("a", extra="timeout = '3s'"), fake("b"))
        self.assertEqual(self.successResultOf(self.world.start()).generation, 3)
        self.assertEqual((self.ramps(), self.world.live()["a"]), ([], 3))

    def test_old_version_is_lost(self) -> None:
        """Where the old version's code cannot be brought back, the new one takes all, rather than no one."""
        self.edit(2, ROLLOUT)
        self.world = self.world.restarted()
        ((bundle_id,),) = self.world.store.query("SELECT DISTINCT bundle_id FROM binding_versions WHERE version = 1")
        self.world.store.query("DELETE FROM bundles WHERE bundle_id = ?", bundle_id)
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertEqual(set(self.deliver(20)), {"a@v2"})

    def test_damaged_note(self) -> None:
        """A saved ramp that cannot be read does not keep a server from starting."""
        self.edit(2, ROLLOUT)
        self.successResultOf(self.world.store.checkpoints.put("ramps", [{"what": "is this"}]))
        self.successResultOf(self.world.store.checkpoints.put("probation", "and this"))
        self.assertTrue(self.restart().ok)
        self.assertEqual(self.ramps(), [])

    def test_outlasts_retention(self) -> None:
        """However many generations have served since, the old version can be brought back, running or aborted."""
        for action in ("", "abort"):
            self.edit(2, ROLLOUT)
            if action:
                self.do(action)
            for number in range(4):
                self.world.manifest(
                    fake("a", extra=f"timeout = '2s'\n{ROLLOUT}"), fake("b", extra=f"timeout = '{number + 5}s'")
                )
                self.reloaded()
            needed = self.world.rollouts.needed()
            policy = RetentionPolicy(events=1e9, dead=1e9, generations=1, versions=needed.versions)
            while self.successResultOf(self.world.store.trim(policy, self.world.clock.seconds(), 100)):
                pass
            self.restart()
            self.assertEqual([each[:2] for each in self.ramps()], [("a", "aborted" if action else "running")])
            self.assertIn("a@v1", self.deliver(30))
