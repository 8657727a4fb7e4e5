"""Waiting for work that goes on when nobody waits for it any more."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harn.waiting import shield


class ShieldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.work: Deferred[str] = Deferred()
        self.late: list[Failure] = []

    def test_outcome(self) -> None:
        """The result of the work, or its failure, is that of the waiting."""
        waiting = shield(self.work, self.late.append)
        self.work.callback("done")
        self.assertEqual(self.successResultOf(waiting), "done")
        self.work = Deferred()
        waiting = shield(self.work, self.late.append)
        self.work.errback(OSError("full"))
        self.failureResultOf(waiting, OSError)
        self.assertEqual(self.late, [])

    def test_cancelled(self) -> None:
        """The work goes on when the waiting is cancelled; only its failure is reported then."""
        for result in ("done", OSError("full")):
            self.setUp()
            cancelled: list[object] = []
            work: Deferred[object] = Deferred(cancelled.append)

            async def wait(work: Deferred[object] = work) -> object:
                return await work

            waiting = shield(wait(), self.late.append)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.assertEqual(cancelled, [])
            work.callback(Failure(result) if isinstance(result, Exception) else result)
            self.assertEqual([each.type for each in self.late], [OSError] if result != "done" else [])
