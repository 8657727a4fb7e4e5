"""Stages of a reload: what their time-outs say."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.errors import StageTimedOut
from harn.reload.runs import IWork, Stages
from harn.vm.interfaces import PendingImport


@implementer(IWork)
@frozen
class Work:
    """A stage that waits for a module."""

    pending: PendingImport | None

    def doing(self) -> str:
        """Return the file that it waits for."""
        return "" if self.pending is None else str(self.pending)

    def importing(self) -> PendingImport | None:
        """Return the import."""
        return self.pending


class TimeOutTests(SynchronousTestCase):
    """A stage that does not end."""

    def timed_out(self, pending: PendingImport | None) -> StageTimedOut:
        """Return the failure of a stage that runs out of its 30 seconds."""
        clock = Clock()
        stages = Stages(clock, 30.0, Work(pending))

        async def wait() -> None:
            await Deferred()

        running = Deferred.fromCoroutine(stages.run("resolve", wait()))
        clock.advance(30.0)
        return self.failureResultOf(running, StageTimedOut).value

    def test_module_that_hangs(self) -> None:
        """A problem has the file and the line at which an import is, so that its source can be shown."""
        error = self.timed_out(PendingImport("module 'handlers' is still being imported", "/srv/handlers.py:8"))
        (problem,) = error.problems
        self.assertEqual((problem.file, problem.line, problem.code), ("/srv/handlers.py", 8, "/srv/handlers.py:8"))
        self.assertIn("did not end within 30s", problem.message)
        self.assertIn("module 'handlers' is still being imported", problem.message)
        self.assertIn("@harn.handlers.on_start", problem.hint)
        self.assertIn("module 'handlers' is still being imported, at /srv/handlers.py:8", str(error))

    def test_without_a_line(self) -> None:
        """Without a line, as of C code, or of a stage that imports nothing, there is the message alone."""
        self.assertEqual(self.timed_out(PendingImport("module 'numpy' is still being imported")).problems, ())
        error = self.timed_out(None)
        self.assertEqual(error.problems, ())
        self.assertEqual(str(error), "stage resolve did not end within 30s ([orchestrator.reload] timeout)")
