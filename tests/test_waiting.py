"""Waiting for work that continues when its caller stops waiting, and work that is tried again."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from harn.waiting import retry, shield


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
        """The work continues when the waiting is cancelled; only its failure is reported then."""
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


class RetryTests(SynchronousTestCase):
    """Work that is tried again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.outcomes: list[Exception | str] = []
        self.began: list[float] = []

    async def work(self) -> str:
        self.began.append(self.clock.seconds())
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def retry(self, *outcomes: Exception | str) -> Deferred[str]:
        self.outcomes = list(outcomes)
        return Deferred.fromCoroutine(retry(self.clock, self.work, OSError, pause=2.0, longest=5.0))

    def test_until_it_succeeds(self) -> None:
        """Each wait is twice as long as the previous one, up to a limit."""
        working = self.retry(OSError("1"), OSError("2"), OSError("3"), OSError("4"), "done")
        for seconds in (2.0, 4.0, 5.0, 5.0):
            self.clock.advance(seconds - 0.01)
            self.assertNoResult(working)
            self.clock.advance(0.01)
        self.assertEqual(self.successResultOf(working), "done")
        self.assertEqual(self.began, [0.0, 2.0, 6.0, 11.0, 16.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_failures(self) -> None:
        """Any other error is raised at once."""
        self.failureResultOf(self.retry(ValueError("wrong")), ValueError)
        self.assertEqual(self.began, [0.0])

    def test_a_steady_pause(self) -> None:
        """Without a longest one, all waits are the same."""
        self.outcomes = [OSError("1"), OSError("2"), OSError("3"), "done"]
        working = Deferred.fromCoroutine(retry(self.clock, self.work, OSError, pause=3.0))
        self.clock.pump([3.0, 3.0, 3.0])
        self.assertEqual((self.successResultOf(working), self.began), ("done", [0.0, 3.0, 6.0, 9.0]))

    def test_cancelled(self) -> None:
        """A wait that is cancelled leaves no timer."""
        working = self.retry(OSError("1"))
        working.cancel()
        self.failureResultOf(working, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
