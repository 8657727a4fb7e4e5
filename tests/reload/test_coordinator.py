"""The coordinator: one reload at a time, whole or not at all, with a true report for each caller."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from zope.interface.verify import verifyObject

from harn.errors import EventLogUnavailable, PreconditionFailed, ShuttingDown
from harn.reload.adopt import LiveGeneration
from harn.reload.build import Builder
from harn.reload.interfaces import IReloader, IRouteTable
from harn.store.generations import IGenerations
from harn.vm.interfaces import IInterpreter, IInterpreters
from harn.wire import digest_bytes
from tests.reload.case import CoordinatorCase
from tests.reload.fakes import FakeTable
from tests.reload.world import HANDLERS, fake, github, present


class ReportTests(CoordinatorCase):
    def test_interfaces(self) -> None:
        """The coordinator and the parts that stand in here provide their interfaces."""
        verifyObject(IReloader, self.world.coordinator)
        verifyObject(IRouteTable, FakeTable())
        verifyObject(IInterpreters, self.world.interpreters)
        verifyObject(IInterpreter, self.world.interpreters.made[0])
        verifyObject(IGenerations, self.world.store.generations)

    def test_start(self) -> None:
        """The first generation is 1, its versions are 1, and the store says so."""
        self.assertEqual((self.world.coordinator.generation, self.world.live()), (1, {"a": 1, "b": 1}))
        (record,) = self.successResultOf(self.world.store.generations.history(10))
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
        self.assertEqual(present(self.successResultOf(self.world.store.generations.last())).number, 1)
        self.assertEqual(self.reloaded().generation, 2)

    def test_failed_dry_run_is_no_failed_reload(self) -> None:
        """The problems of a dry run are in its report, and not in the last reload that others see."""
        self.world.write("harn.toml", "what is this")
        report = self.reload(dry_run=True)
        self.assertEqual((report.ok, report.stage), (False, "parse"))
        self.assertIsNone(self.world.coordinator.last_failed)
        self.assertEqual(self.world.last.source, "start")

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
        self.patch(self.world.store.generations, "adopted", lambda *_: fail(EventLogUnavailable("disk full")))
        report = self.reloaded()
        self.assertEqual((len(report.warnings), report.generation), (2, 2))
        self.assertIn("disk full", report.warnings[0])
        self.world.told.fails = TypeError("no JSON")
        self.assertIn("no JSON", self.reloaded(force=True).warnings[1])

    def test_noted_and_published_together(self) -> None:
        """What is published does not wait for the note of the generation: one commit has both. The answer does."""
        noted: Deferred[None] = Deferred()
        self.patch(self.world.store.generations, "adopted", lambda *_: noted)
        before = len(self.world.told.finished)
        reloading = self.world.reload(force=True)
        self.assertEqual(len(self.world.told.finished), before + 1)
        self.assertNoResult(reloading)
        noted.callback(None)
        self.assertEqual(self.successResultOf(reloading).warnings, ())

    def test_secret_with_something_around_it(self) -> None:
        """A secret is used without the line end at its end, and the report says whose, not what."""
        self.world.environ["HARN_SECRET_GITHUB_WEBHOOK_SECRET"] = "s-1-value\n"
        self.world.manifest(github("gh"))
        report = self.reloaded()
        self.assertTrue(report.ok)
        said = "secret github/webhook-secret: a line end around its value was taken off; store it without"
        self.assertEqual(report.warnings, (said,))
        self.world.environ["HARN_SECRET_GITHUB_WEBHOOK_SECRET"] = "s-1-value"
        self.assertEqual(self.reloaded().warnings, ())
        self.assertEqual(self.world.coordinator.generation, report.generation)  # the secret is the same one

    def test_describe(self) -> None:
        """
        The description lists files that differ from the live generation, and the last failure, until none is left.
        """
        self.world.write("handlers.py", "def nothing(): ...\n")
        self.assertFalse(self.reload().ok)
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described.generation, described.drift), (1, True))
        self.assertEqual(described.drifted_files, (str(self.world.root.absolute() / "handlers.py"),))
        self.assertEqual(
            list(present(described.drifted_digests or None).values()), [digest_bytes(b"def nothing(): ...\n")]
        )
        self.assertEqual(present(described.last_failed).stage, "resolve")
        self.world.write("handlers.py", HANDLERS)
        self.reloaded()
        described = self.successResultOf(self.world.coordinator.describe())
        self.assertEqual((described.drift, described.last_failed), (False, None))
        self.assertEqual(described.drifted_digests, {})


class MergingTests(CoordinatorCase):
    """Many requests at once; the thread pool is held, so that a reload hangs in its first step."""

    def test_plain_requests_share(self) -> None:
        """A hundred plain requests cost two reloads, and each gets the report of one that began after it asked."""
        self.world.clock.pool.held = True
        asked = [self.world.reload(source=f"s{number}", actor=f"a{number}") for number in range(100)]
        self.world.manifest(fake("b"))
        self.world.clock.pool.release()
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
        self.world.clock.pool.release()
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
            self.world.clock.pool.release()
            self.assertEqual(len(self.world.told.finished), before + 1)
            self.assertTrue(self.world.last.ok)


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
        """A reload that has been adopted when the server ends is reported as adopted."""
        self.world.manifest(fake("c"))
        self.patch(self.world.store.generations, "adopted", lambda *_: Deferred())
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
        self.world.server[LiveGeneration].close()
        released = Deferred.fromCoroutine(self.world.server[Builder].close())
        self.assertNoResult(released)
        self.world.clock.advance(5.0)
        self.successResultOf(released)
        self.assertEqual(self.world.plugin.life[-4:], ["a quiesce", "a close", "b quiesce", "b close"])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
