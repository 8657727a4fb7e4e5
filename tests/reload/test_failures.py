"""Reloads that fail, at every stage and in every way: nothing live changes, and nothing is left behind."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from harn.connectors.signing_keys import SecretUnusable
from harn.errors import PreconditionFailed, StageFailed
from harn.reload.report import ReloadReport
from tests.reload.case import CoordinatorCase
from tests.reload.world import HANDLERS, fake, github


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
        self.assertEqual(self.successResultOf(self.world.store.generations.history(5))[0].number, 1)
        self.assertIs(self.world.coordinator.last_failed, self.world.coordinator.last)
        self.assertEqual(set(self.world.plugin.life) & {"a quiesce", "b quiesce", "a close", "b close"}, set())
        return report

    def recovers(self) -> None:
        """See the next reload succeed, with the numbers that the failed ones did not use."""
        self.world.plugin.script.clear()
        self.world.interpreters.resolutions = self.world.table.fails = None
        self.world.store.fail_writes = False
        report = self.reloaded()
        self.assertEqual((report.generation, report.added), (2, ("c",)))
        self.assertEqual(self.world.live(), {"a": 1, "b": 1, "c": 1})

    def change(self) -> None:
        """Add a trigger, in a new module, so that interpreter and connector are new."""
        self.world.write("more.py", HANDLERS)
        self.world.manifest(fake("a"), fake("b"), fake("c", handler="more:on_event"))

    def test_parse(self) -> None:
        """Text that is not TOML."""
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

    def test_problems_of_two_stages(self) -> None:
        """Missing secrets and modules are reported beside problems of other triggers, each at its own trigger."""
        self.world.environ.clear()
        wrong, twin = fake("a", extra="colour = 1"), fake("d", handler="none:f")
        self.world.manifest(wrong, github("b"), fake("c", handler="missing:f"), twin, twin)
        found = [(problem.where, problem.message) for problem in self.fails("validate").problems]
        self.assertEqual(
            [where for where, _ in found],
            [
                "triggers[0] (a): colour",
                "triggers[1] (b): secrets.signing_secret",
                "triggers[2] (c): handler",
                "triggers[3] (d): handler",
                "triggers[4] (d): id",
            ],
        )
        self.assertIn("github/webhook-secret is not set", found[1][1])

    def test_problem_of_the_head(self) -> None:
        """A wrong table of the manifest, on which the rest may depend, is reported alone."""
        self.world.manifest(fake("a", handler="missing:f"), head='[exports]\nmissing = "/x"\n')
        (problem,) = self.fails("validate").problems
        self.assertIn("exports", problem.where)

    def test_missing_secret_of_a_handler(self) -> None:
        """One that a handler may ask for is a problem too, at the place that names it; what it may have is a change."""
        self.world.manifest(fake("a", extra='handler_secrets = ["shop/none"]\n'))
        problem = self.fails("resolve").problems[0]
        self.assertIn("shop/none", str(problem))
        self.assertIn("(a): handler_secrets[0]", problem.where)
        self.world.environ["HARN_SECRET_SHOP_NONE"] = "x"
        self.assertEqual(self.reloaded().changes["a"], ("handler_secrets",))

    def test_hanging_import(self) -> None:
        """An import that hangs is cut off when the stage's time has ended."""
        self.change()
        self.world.interpreters.resolutions = []
        report = self.fails("resolve")
        self.assertEqual((report.timed_out, report.duration_ms), (True, 30_000.0))
        self.recovers()

    def test_time_allowed_by_the_new_manifest(self) -> None:
        """The manifest that is being adopted says how long its own stages may take."""
        triggers = (fake("a"), fake("b"), fake("c"))
        self.world.manifest(*triggers, head='[orchestrator.reload]\ntimeout = "90s"\n')
        self.world.write("handlers.py", HANDLERS + "#")
        waiting: Deferred[Any] = Deferred()
        self.world.interpreters.resolutions = [waiting]
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
        self.world.clock.pool.release()
        self.assertTrue(self.successResultOf(asked).ok)

    def test_no_interpreter(self) -> None:
        """No process can be started."""
        self.change()
        self.world.interpreters.creation_error = StageFailed("resolve", "no process")
        self.assertEqual(self.fails("resolve").error, "no process")

    def test_what_others_cancel(self) -> None:
        """A resolve that is cancelled from elsewhere is a failed reload, not the server's end."""
        self.change()
        self.world.interpreters.resolutions = [fail(CancelledError())]
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

    def test_every_connector_that_fails(self) -> None:
        """Each connector that cannot be prepared is a problem, at the secret where its value is the reason."""
        self.world.environ["HARN_SECRET_FAKE_T"] = "x"
        secrets = 'secrets = { token = ["fake/t"] }\n'
        self.world.manifest(fake("a"), fake("b"), fake("c", extra=secrets), fake("d", extra=secrets))

        def refuse() -> None:
            raise SecretUnusable("of c: it must be base64", "secrets.token[0]", "it must be base64")

        said = "the value of the secret cannot be used: it must be base64"
        self.world.plugin.script = {"prepare": refuse}
        report = self.fails("prepare")
        self.assertIn("(and 1 more)", report.error)
        self.assertEqual(
            [(problem.where, problem.message) for problem in report.problems],
            [(f"triggers[{at}] ({name}): secrets.token[0]", said) for at, name in ((2, "c"), (3, "d"))],
        )
        self.assertEqual(self.world.plugin.life.count("c close"), 1)

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
        self.assertIn("must make an IConnector", self.fails("prepare").error)
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
    """Return the ways to raise: at once, from a coroutine, by a Deferred."""

    def at_once() -> None:
        raise kind("why")

    async def coroutine() -> None:
        raise kind("why")

    return [at_once, coroutine, lambda: fail(kind("why"))]
