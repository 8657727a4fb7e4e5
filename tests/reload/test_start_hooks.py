"""When a reload has an interpreter's start hooks run, and what it says of those that fail."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.reload.targets import CUT_OFF
from harn.vm.interfaces import PendingImport
from tests.reload.fakes import FakeInterpreter
from tests.reload.world import HANDLERS, World, fake


class StartHookTests(SynchronousTestCase):
    """A server whose modules have hooks."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()).absolute())
        self.world.manifest(fake("a"))

    @property
    def served(self) -> list[int]:
        """Return how often `serve` was called on each interpreter that was made."""
        return [interpreter.served for interpreter in self.world.interpreters.made]

    def test_what_is_adopted(self) -> None:
        """Interpreters of adopted generations run them; those of dry runs and of refused reloads do not."""
        self.successResultOf(self.world.start())
        self.assertEqual(self.served, [1])
        self.world.write("handlers.py", HANDLERS + "# more\n")
        self.successResultOf(self.world.reload(dry_run=True))
        self.assertEqual(self.served, [1, 0])
        self.world.table.fails = RuntimeError("no")
        self.assertFalse(self.successResultOf(self.world.reload()).ok)
        self.assertEqual(self.served, [1, 0, 0])
        self.world.table.fails = None
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        self.assertEqual(self.served, [1, 0, 0, 1])

    def test_failures(self) -> None:
        """Those that fail are warnings of the reload, in its record as well, and are shown until they have run."""
        failed = ("on_start handlers:take failed",)
        self.patch(FakeInterpreter, "serve", lambda interpreter: interpreter_fails(interpreter))

        def interpreter_fails(interpreter: FakeInterpreter) -> Deferred[tuple[str, ...]]:
            interpreter.hook_failures = failed
            answered: Deferred[tuple[str, ...]] = Deferred()
            answered.callback(failed)
            return answered

        report = self.successResultOf(self.world.start())
        self.assertEqual((report.ok, report.warnings), (True, failed))
        self.assertEqual(self.world.told.finished[-1].report.warnings, failed)
        self.assertEqual(self.successResultOf(self.world.coordinator.describe()).hooks_failed, tuple(failed))
        self.world.interpreters.made[0].hook_failures = ()
        self.assertEqual(self.successResultOf(self.world.coordinator.describe()).hooks_failed, ())

    def test_answered_afterwards(self) -> None:
        """A reload is answered when they have ended; what was adopted serves meanwhile."""
        self.successResultOf(self.world.start())
        running: Deferred[tuple[str, ...]] = Deferred()
        self.patch(FakeInterpreter, "serve", lambda _: running)
        self.world.write("handlers.py", HANDLERS + "# more\n")
        reloading = self.world.reload()
        self.assertNoResult(reloading)
        self.assertEqual(self.world.coordinator.generation, 2)
        running.callback(())
        self.assertTrue(self.successResultOf(reloading).ok)

    def test_server_ends_meanwhile(self) -> None:
        """Hooks that take long keep no server from ending; an adopted generation is published and answered."""
        self.successResultOf(self.world.start())
        self.patch(FakeInterpreter, "serve", lambda _: Deferred())
        self.world.write("handlers.py", HANDLERS + "# more\n")
        reloading = self.world.reload()
        self.successResultOf(self.world.coordinator.close())
        report = self.successResultOf(reloading)
        self.assertEqual((report.ok, report.generation, report.warnings), (True, 2, (CUT_OFF,)))
        self.assertEqual(self.world.told.finished[-1].report.generation, 2)

    def test_server_ends_at_its_start(self) -> None:
        """Nor do those of the first generation keep it from ending, once its port is open."""
        self.patch(FakeInterpreter, "serve", lambda _: Deferred())
        self.successResultOf(self.world.start(waits=True))
        beginning = Deferred.fromCoroutine(self.world.coordinator.begin_serving())
        self.assertNoResult(beginning)
        self.successResultOf(self.world.coordinator.close())
        self.successResultOf(beginning)
        self.assertEqual(self.world.told.finished[-1].report.generation, 1)

    def test_what_an_import_waits_for(self) -> None:
        """A stage that runs out of time says which module is being imported, where, and what to do."""
        self.successResultOf(self.world.start())
        pending = PendingImport("module 'handlers' is still being imported", "handlers.py:3")
        self.patch(FakeInterpreter, "importing", lambda _: pending)
        self.world.interpreters.resolutions = []
        self.world.write("handlers.py", HANDLERS + "# more\n")
        reloading = self.world.reload()
        self.world.clock.advance(31.0)
        report = self.successResultOf(reloading)
        self.assertEqual((report.stage, report.timed_out), ("resolve", True))
        self.assertIn(
            "module 'handlers' is still being imported, at handlers.py:3; what waits there", str(report.error)
        )
        self.assertIn("@harn.handlers.on_start", str(report.error))
