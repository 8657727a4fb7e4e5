"""The coordinator: one reload at a time, whole or not at all, with a true report for everybody who asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.errors import EventLogUnavailable, PreconditionFailed, ShuttingDown, StageFailed
from harn.reload.interfaces import IReloader, IRouteTable
from harn.reload.report import ReloadReport
from harn.store.interfaces import IGenerations
from harn.vm.interfaces import IInterpreter, IInterpreters
from tests.reload.world import HANDLERS, FakeTable, World, fake, github


class CoordinatorCase(SynchronousTestCase):
    """A world with two triggers, ``a`` and ``b``, that serves."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()))
        self.world.manifest(fake("a"), fake("b"))
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)

    def reload(self, **more: Any) -> ReloadReport:
        """Reload, and give the report."""
        return self.successResultOf(self.world.reload(**more))

    def reloaded(self, **more: Any) -> ReloadReport:
        """Reload, see it succeed, and give the report."""
        report = self.reload(**more)
        self.assertTrue(report.ok, report)
        return report


class ReportTests(CoordinatorCase):
    def test_interfaces(self) -> None:
        """The coordinator and the parts that stand in here provide their interfaces."""
        verifyObject(IReloader, self.world.coordinator)
        verifyObject(IRouteTable, FakeTable())
        verifyObject(IInterpreters, self.world.interpreters)
        verifyObject(IInterpreter, self.world.interpreters.made[0])
        verifyObject(IGenerations, self.world.store)

    def test_start(self) -> None:
        """The first generation is 1, its versions are 1, and the store says so."""
        self.assertEqual((self.world.coordinator.generation, self.world.live()), (1, {"a": 1, "b": 1}))
        (record,) = self.successResultOf(self.world.store.history(10))
        self.assertEqual((record.number, record.source), (1, "start"))

    def test_what_changed(self) -> None:
        """Added, modified with the keys that changed, removed and unchanged triggers are named."""
        self.world.manifest(fake("b", extra="timeout = '3s'"), fake("c"))
        report = self.reloaded()
        self.assertEqual((report.generation, report.added, report.modified), (2, ("c",), ("b",)))
        self.assertEqual((report.removed, report.unchanged, dict(report.changes)), (("a",), (), {"b": ("timeout",)}))
        self.assertEqual(self.world.live(), {"b": 2, "c": 1})
        self.assertEqual(self.world.table.generation, 2)

    def test_code_changed(self) -> None:
        """An edit of a handler's module alone is a modification of every trigger that uses it."""
        self.world.write("handlers.py", HANDLERS + "# edited\n")
        report = self.reloaded()
        self.assertEqual(dict(report.changes), {"a": ("handler code",), "b": ("handler code",)})

    def test_nothing_changed(self) -> None:
        """A reload that finds the live digest answers ok with the same generation and touches nothing."""
        before = self.world.stands()
        report = self.reloaded()
        self.assertEqual((report.generation, report.unchanged), (1, ("a", "b")))
        self.assertEqual(self.world.stands(), before)

    def test_force(self) -> None:
        """A forced reload makes a new generation and interpreter of the same content, and keeps the versions."""
        first = self.world.interpreters.made[0]
        report = self.reloaded(force=True)
        self.assertEqual((report.generation, self.world.live()), (2, {"a": 1, "b": 1}))
        self.assertEqual((first.closed, len(self.world.interpreters.alive)), (1, 1))

    def test_dry_run(self) -> None:
        """A dry run says what would change and changes nothing: no number, record, pool, process or metric."""
        self.world.manifest(fake("b", extra="timeout = '3s'"), fake("c"))
        self.world.write("handlers.py", HANDLERS + "# edited\n")
        before, told = self.world.stands(), list(self.world.told.finished)
        for force in (False, True):
            report = self.reloaded(dry_run=True, force=force)
            self.assertEqual(
                (report.dry_run, report.generation, report.added, report.removed), (True, 1, ("c",), ("a",))
            )
        self.assertEqual((self.world.stands(), self.world.told.finished), (before, told))
        self.assertEqual(self.successResultOf(self.world.store.last()).number, 1)
        self.assertEqual(self.reloaded().generation, 2)

    def test_failed_dry_run_is_no_failed_reload(self) -> None:
        """What a dry run finds wrong is in its report, and in nobody else's view of the last reload."""
        self.world.write("harn.toml", "what is this")
        report = self.reload(dry_run=True)
        self.assertEqual((report.ok, report.stage), (False, "parse"))
        self.assertIsNone(self.world.coordinator.last_failed)
        self.assertEqual(self.world.coordinator.last.source, "start")

    def test_if_match(self) -> None:
        """A reload for another generation than the live one is refused before it begins; for the live one it runs."""
        etag = self.world.coordinator.etag
        self.world.manifest(fake("a"))
        self.failureResultOf(self.world.reload(if_match='"99-beef"'), PreconditionFailed)
        self.assertEqual(self.world.coordinator.generation, 1)
        self.assertEqual(self.reloaded(if_match=etag).generation, 2)
        self.failureResultOf(self.world.reload(if_match=etag), PreconditionFailed)
        self.assertEqual(self.reloaded(if_match="*", force=True).generation, 3)

    def test_requires_restart(self) -> None:
        """A setting that only a restart can change is named by each report for as long as it waits for one."""
        self.world.manifest(fake("a"), head='[orchestrator]\nrecover = "manual"\n')
        waiting = ("orchestrator.recover",)
        self.assertEqual(self.reloaded(dry_run=True).requires_restart, waiting)
        self.assertEqual([self.reloaded().requires_restart for _ in range(2)], [waiting, waiting])
        self.world.manifest(fake("a"), head='[orchestrator]\nrecover = "auto"\n')
        self.assertEqual(self.reloaded().requires_restart, ())

    def test_publishing_fails(self) -> None:
        """What cannot be noted or published after the step is a warning: the new generation serves."""
        self.world.told.warnings.append("the state file could not be written")
        self.world.manifest(fake("a"))
        self.patch(self.world.store, "adopted", lambda *_: fail(EventLogUnavailable("disk full")))
        report = self.reloaded()
        self.assertEqual((len(report.warnings), report.generation), (2, 2))
        self.assertIn("disk full", report.warnings[0])
        self.world.told.fails = TypeError("no JSON")
        self.assertIn("no JSON", self.reloaded(force=True).warnings[1])

    def test_describe(self) -> None:
        """The description tells of files that differ from what serves, and of the last failure, until they do not."""
        self.world.write("handlers.py", "def nothing(): ...\n")
        self.assertFalse(self.reload().ok)
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described["generation"], described["drift"]), (1, True))
        self.assertEqual(described["drifted_files"], [str(self.world.root.absolute() / "handlers.py")])
        self.assertEqual(described["last_failed"]["stage"], "resolve")
        self.world.write("handlers.py", HANDLERS)
        self.reloaded()
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described["drift"], described["last_failed"]), (False, None))


class MergingTests(CoordinatorCase):
    """Many requests at once; the thread pool is held, so that a reload hangs in its first step."""

    def test_plain_requests_share(self) -> None:
        """A hundred plain requests cost two reloads, and each gets the report of one that began after it asked."""
        self.world.clock.pool.held = True
        asked = [self.world.reload(source=f"s{number}", actor=f"a{number}") for number in range(100)]
        self.world.manifest(fake("b"))
        self.world.clock.pool.let_go()
        reports = [self.successResultOf(each) for each in asked]
        self.assertEqual([(each.source, each.actor) for each in reports], [(f"s{n}", f"a{n}") for n in range(100)])
        self.assertEqual({each.generation for each in reports[1:]}, {2})
        self.assertEqual([each.merged for each in self.world.told.finished[1:]], [1, 99])

    def test_request_during_the_following_reload(self) -> None:
        """A request that comes while the second reload runs is not answered by it."""
        first = self.world.reload()
        self.successResultOf(first)
        held: Deferred[None] = Deferred()
        self.world.plugin.script["prepare"] = lambda: held
        self.world.manifest(fake("a"), fake("c"))
        running = self.world.reload()
        late = self.world.reload()
        self.world.manifest(fake("d"))
        held.callback(None)
        self.assertEqual(self.successResultOf(running).added, ("c",))
        self.assertEqual(self.successResultOf(late).added, ("d",))

    def test_options_run_alone(self) -> None:
        """Requests with an option are not merged, and run in their turn."""
        self.world.clock.pool.held = True
        asked = [
            self.world.reload(),
            self.world.reload(force=True),
            self.world.reload(dry_run=True),
            self.world.reload(),
            self.world.reload(if_match=self.world.coordinator.etag),
            self.world.reload(),
        ]
        self.world.clock.pool.let_go()
        self.failureResultOf(asked.pop(4), PreconditionFailed)
        reports = [self.successResultOf(each) for each in asked]
        self.assertEqual([each.generation for each in reports], [1, 2, 2, 2, 2])
        self.assertEqual([each.dry_run for each in reports], [False, False, True, False, False])

    def test_who_stops_waiting_ends_nothing(self) -> None:
        """A caller that goes away leaves its reload running, merged or alone."""
        for options in ({}, {"force": True}):
            self.world.clock.pool.held = True
            asked = self.world.reload(**options)
            before = len(self.world.told.finished)
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
            self.world.clock.pool.let_go()
            self.assertEqual(len(self.world.told.finished), before + 1)
            self.assertTrue(self.world.coordinator.last.ok)


class ClosingTests(CoordinatorCase):
    def test_cut_off(self) -> None:
        """Closing cuts off what runs and what waits, undoes nothing that is live, and later requests are refused."""
        self.world.plugin.script["prepare"] = Deferred
        before = self.world.stands()
        self.world.manifest(fake("c"))
        asked = [self.world.reload(), self.world.reload(), self.world.reload(force=True), self.world.reload()]
        closed = self.world.coordinator.close()
        for each in asked:
            self.failureResultOf(each, ShuttingDown)
        self.successResultOf(closed)
        self.assertEqual(self.world.stands(), before)
        self.failureResultOf(self.world.reload(), ShuttingDown)

    def test_after_the_step(self) -> None:
        """A reload that has been adopted when the server ends is reported as what it is."""
        self.world.manifest(fake("c"))
        self.patch(self.world.store, "adopted", lambda *_: Deferred())
        asked = self.world.reload()
        self.successResultOf(self.world.coordinator.close())
        report = self.successResultOf(asked)
        self.assertEqual((report.ok, report.generation, report.added), (True, 2, ("c",)))

    def test_plugin_that_ignores_the_end(self) -> None:
        """A connector that does not stop when it is cut off does not hold up the server's end."""

        async def stubborn() -> None:
            while True:
                try:
                    await Deferred()
                except CancelledError:
                    continue

        self.world.plugin.script["prepare"] = stubborn
        self.world.manifest(fake("c"))
        asked = self.world.reload()
        self.successResultOf(self.world.coordinator.close())
        self.failureResultOf(asked, ShuttingDown)

    def test_release(self) -> None:
        """At the end every connector is quiesced and closed, and one that does not close is not waited for."""
        self.world.plugin.script["close"] = Deferred
        released = Deferred.fromCoroutine(self.world.coordinator.release())
        self.assertNoResult(released)
        self.world.clock.advance(5.0)
        self.successResultOf(released)
        self.assertEqual(self.world.plugin.life[-4:], ["a quiesce", "a close", "b quiesce", "b close"])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class FailureTests(CoordinatorCase):
    """A failure at any stage leaves everything as it was, and nothing of the candidate behind."""

    def fails(self, stage: str, **more: Any) -> ReloadReport:
        """Reload, see it fail at ``stage`` and leave everything as it was."""
        before = self.world.stands()
        asked = self.world.reload(**more)
        if not asked.called:
            self.world.clock.advance(30.0)
        report = self.successResultOf(asked)
        self.assertEqual((report.ok, report.stage, report.generation), (False, stage, 1), report)
        self.assertEqual(self.world.stands(), before)
        self.assertEqual(self.successResultOf(self.world.store.history(5))[0].number, 1)
        self.assertIs(self.world.coordinator.last_failed, self.world.coordinator.last)
        self.assertEqual(set(self.world.plugin.life) & {"a quiesce", "b quiesce", "a close", "b close"}, set())
        return report

    def recovers(self) -> None:
        """See the next reload succeed, with the numbers that the failed ones did not use."""
        self.world.plugin.script.clear()
        self.world.interpreters.on_resolve = self.world.table.fails = None
        self.world.store.fail_writes = False
        report = self.reloaded()
        self.assertEqual((report.generation, report.added), (2, ("c",)))
        self.assertEqual(self.world.live(), {"a": 1, "b": 1, "c": 1})

    def change(self) -> None:
        """Add a trigger, in a new module, so that interpreter and connector are new."""
        self.world.write("more.py", HANDLERS)
        self.world.manifest(fake("a"), fake("b"), fake("c", handler="more:on_event"))

    def test_parse(self) -> None:
        """Text that is no TOML."""
        self.world.write("harn.toml", "[[triggers]\n")
        self.assertEqual(self.fails("parse").problems[0].line, 1)

    def test_validate(self) -> None:
        """Every problem of the manifest is reported."""
        self.world.manifest(fake("a", extra="colour = 1"), fake("a", handler="x y"))
        self.assertGreaterEqual(len(self.fails("validate").problems), 2)

    def test_missing_function(self) -> None:
        """A function that the module does not have is a problem with the trigger's line."""
        self.world.manifest(fake("a"), fake("b", handler="handlers:nothing"))
        (problem,) = self.fails("resolve").problems
        self.assertIn("(b): handler", problem.where)

    def test_missing_secret(self) -> None:
        """A secret that resolves to nothing is a problem of stage resolve that names it."""
        self.world.environ.clear()
        self.world.manifest(fake("a"), github("b"))
        self.assertIn("github/webhook-secret", str(self.fails("resolve").problems[0]))

    def test_hanging_import(self) -> None:
        """An import that hangs is cut off when the stage's time is over."""
        self.change()
        self.world.interpreters.on_resolve = Deferred
        report = self.fails("resolve")
        self.assertEqual((report.timed_out, report.duration_ms), (True, 30_000.0))
        self.recovers()

    def test_time_allowed_by_the_new_manifest(self) -> None:
        """The manifest that is being adopted says how long its own stages may take."""
        triggers = (fake("a"), fake("b"), fake("c"))
        self.world.manifest(*triggers, head='[orchestrator.reload]\ntimeout = "90s"\n')
        self.world.write("handlers.py", HANDLERS + "#")
        waiting: Deferred[Any] = Deferred()
        self.world.interpreters.on_resolve = lambda: waiting
        asked = self.world.reload()
        self.world.clock.advance(89.0)
        waiting.callback([])
        self.assertTrue(self.successResultOf(asked).ok)

    def test_a_manifest_that_allows_no_time_keeps_nobody_out(self) -> None:
        """After a time-out of a millisecond was adopted by mistake, the next manifest still gets in."""
        self.world.manifest(fake("a"), head='[orchestrator.reload]\ntimeout = "1ms"\n')
        self.reloaded()
        self.world.manifest(fake("a"), fake("b"))
        self.world.clock.pool.held = True
        asked = self.world.reload()
        self.world.clock.advance(1.0)
        self.world.clock.pool.let_go()
        self.assertTrue(self.successResultOf(asked).ok)

    def test_no_interpreter(self) -> None:
        """No process can be started."""
        self.change()
        self.world.interpreters.on_create = lambda: fail(StageFailed("resolve", "no process"))
        self.assertEqual(self.fails("resolve").error, "no process")

    def test_what_others_cancel(self) -> None:
        """A resolve that somebody else cancels is a failed reload, not the server's end."""
        self.change()
        self.world.interpreters.on_resolve = lambda: fail(CancelledError())
        self.fails("resolve")
        self.recovers()

    def test_connector_that_raises_anything(self) -> None:
        """Whatever a plugin raises, when and how: the report names trigger and stage, and nothing is left."""
        self.change()
        kinds = (ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError)
        for step, stage in (("connector", "prepare"), ("prepare", "prepare"), ("activate", "activate")):
            for kind in kinds:
                for script in raising(kind)[: 1 if step == "connector" else None]:
                    self.world.plugin.script = {step: script}
                    report = self.fails(stage)
                    self.assertIn(f"'c' failed to {stage}: {kind.__name__}", report.error)
                    self.assertEqual(len(report.problems), 1)
                    self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
        self.recovers()

    def test_connector_that_closes_badly(self) -> None:
        """What a candidate's connector raises when it is closed changes nothing about the failure."""
        self.change()
        for kind in (ValueError, SystemExit, GeneratorExit):
            for script in raising(kind):
                self.world.plugin.script = {"activate": lambda: 1 / 0, "close": script}
                self.assertIn("ZeroDivisionError", self.fails("activate").error)
                self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
        self.flushLoggedErrors(ZeroDivisionError)
        self.recovers()

    def test_no_connector(self) -> None:
        """A plugin that gives something else is named."""
        self.change()
        self.world.plugin.script["connector"] = lambda: None
        self.assertIn("no IConnector", self.fails("prepare").error)
        self.flushLoggedErrors(TypeError)

    def test_hanging_connector(self) -> None:
        """A connector that neither comes up nor lets itself be cut off is left behind after the stage's time."""

        async def stubborn() -> None:
            for _ in range(3):
                try:
                    await Deferred()
                except CancelledError:
                    continue

        self.change()
        for stage in ("prepare", "activate"):
            for script in (Deferred, stubborn):
                self.world.plugin.script = {stage: script}
                self.assertTrue(self.fails(stage).timed_out)
        self.recovers()

    def test_full_disk(self) -> None:
        """Numbers that cannot be made durable fail the reload in its stage prepare."""
        self.change()
        self.world.store.fail_writes = True
        self.assertIn("EventLogUnavailable", self.fails("prepare").error)
        self.recovers()

    def test_tree(self) -> None:
        """A tree that cannot be built fails the reload in its stage swap, before anything is activated."""
        self.change()
        for error in (StageFailed("swap", "no tree"), RuntimeError("no tree")):
            self.world.table.fails = error
            self.assertIn("no tree", self.fails("swap").error)
        self.assertNotIn("c activate", self.world.plugin.life)
        self.recovers()

    def test_precondition_at_the_last_moment(self) -> None:
        """The precondition is looked at once more before the step."""
        self.change()
        asked = self.world.coordinator.etag
        activated: list[str] = []
        self.world.plugin.script["activate"] = lambda: activated.append("c")
        self.patch(type(self.world.coordinator), "etag", property(lambda _: '"9-else"' if activated else asked))
        before = self.world.stands()
        self.failureResultOf(self.world.reload(if_match=asked), PreconditionFailed)
        self.assertEqual(self.world.stands(), before)

    def test_failed_force_keeps_the_interpreter(self) -> None:
        """After a forced reload that failed, the live interpreter still serves reloads of the same code."""
        self.world.plugin.script["activate"] = lambda: 1 / 0
        self.world.manifest(fake("a"), fake("b"), fake("c"))
        self.fails("activate", force=True)
        self.flushLoggedErrors(ZeroDivisionError)
        (live,) = self.world.interpreters.alive
        self.recovers()
        self.assertEqual(self.world.interpreters.alive, {live})


def raising(kind: type[BaseException]) -> list[Any]:
    """Give the ways to raise: at once, from a coroutine, by a Deferred."""

    def at_once() -> None:
        raise kind("why")

    async def coroutine() -> None:
        raise kind("why")

    return [at_once, coroutine, lambda: fail(kind("why"))]
