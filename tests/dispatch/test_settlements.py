"""What one attempt means for its delivery."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.delivery import Delivery
from harn.dispatch.queue import Queue, Room, Share
from harn.dispatch.settlements import LONGEST_ERROR, failed, removed, succeeded
from harn.errors import (
    AttemptFailed,
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    HandlerTimedOut,
    InterpreterDied,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)
from harn.manifest.model import RetrySpec
from harn.model.delivery import DEAD, DONE, READY, SKIPPED, WAITING, Settlement
from harn.model.quantities import LONGEST
from tests.triggers.examples import spec, version

ERRORS: tuple[AttemptFailed, ...] = (
    HandlerRaised("ValueError: no"),
    HandlerTimedOut("30 s"),
    HandlerRejected("why"),
    HandlerRetryAfter("later", 60.0),
    ResultInvalid("a set"),
    ResultTooLarge("9 MB"),
    PredicateRaised("KeyError"),
    InterpreterDied("signal 9"),
    AttemptFailed("something else"),
)


def delivery(attempts: int = 0, passed: bool = False, **retry: Any) -> Delivery:
    """Make a delivery of ``gh@v3`` that has used up some attempts."""
    binding = version(3, spec(retry=RetrySpec(**retry)))
    made = Delivery(17, Queue(Share("gh"), 3, binding, Room(1, 1)), "trigger_evt_1", b"{}", b"", 1.0, None)
    made.binding = binding
    made.attempts, made.passed = attempts, passed
    return made


def fail(error: AttemptFailed, of: Delivery | None = None, gone: bool = False) -> Settlement:
    """Settle an attempt from second 10 to second 12 that failed."""
    return failed(delivery() if of is None else of, 10.0, 12.0, error, 0.0, gone=gone)


class SucceededTests(SynchronousTestCase):
    def test_done(self) -> None:
        """The result is kept, and the attempt is counted on the version it ran on."""
        found = succeeded(delivery(attempts=2), 10.0, 12.0, b"null")
        self.assertEqual((found.state, found.result, found.attempts, found.version), (DONE, b"null", 3, 3))
        assert found.attempt is not None
        self.assertEqual((found.attempt.number, found.attempt.outcome), (3, "success"))
        self.assertEqual((found.attempt.started_at, found.attempt.completed_at), (10.0, 12.0))

    def test_predicate_said_no(self) -> None:
        """It is skipped, without a result, and the reason is named."""
        found = succeeded(delivery(), 10.0, 12.0, None)
        assert found.attempt is not None
        self.assertEqual((found.state, found.skip_reason, found.result), (SKIPPED, "predicate", None))
        self.assertFalse(found.passed)
        self.assertEqual(found.attempt.outcome, "skipped")


class FailedTests(SynchronousTestCase):
    def test_waits_for_its_schedule(self) -> None:
        """The next attempt's time counts from the end of this one."""
        found = fail(HandlerRaised("no"), delivery(backoff="svix"))
        self.assertEqual((found.state, found.due_at, found.attempts), (WAITING, 17.0, 1))
        found = fail(HandlerRaised("no"), delivery(attempts=1, backoff="svix"))
        self.assertEqual(found.due_at, 312.0)

    def test_immediate(self) -> None:
        """Without a wait it is ready again."""
        found = fail(HandlerRaised("no"))
        self.assertEqual((found.state, found.due_at, found.dead), (READY, None, None))

    def test_attempts_run_out(self) -> None:
        """The last allowed attempt's failure is the end, whatever it was."""
        for error in ERRORS:
            found = fail(error, delivery(attempts=2, max=3))
            assert found.dead is not None
            self.assertEqual((found.state, found.dead.error_class), (DEAD, error.error_class))
            reason = "rejected" if isinstance(error, HandlerRejected) else "retry_exhausted"
            self.assertEqual((found.dead.reason, found.attempts), (reason, 3))

    def test_what_is_kept(self) -> None:
        """The traceback and the last lines of a failed attempt are kept, of long ones the end."""
        error = HandlerRaised("no")
        self.assertEqual((fail(error).attempt.traceback, fail(error).attempt.output), (None, None))  # type: ignore[union-attr]
        error.traceback, error.output = "File \ud800", "x" * 9000 + "end"
        kept = fail(error).attempt
        assert kept is not None
        assert kept.output is not None
        self.assertEqual((kept.traceback, kept.output[:6], kept.output[-4:]), ("File ?", "... xx", "xend"))
        self.assertLess(len(kept.output), 8200)

    def test_rejected_at_once(self) -> None:
        """``Reject`` is the end at the first attempt; the attempt counts as denied."""
        found = fail(HandlerRejected("not for us"))
        assert found.dead is not None
        assert found.attempt is not None
        self.assertEqual((found.dead.reason, found.dead.error), ("rejected", "not for us"))
        self.assertEqual(found.attempt.outcome, "denied")

    def test_retry_after(self) -> None:
        """The handler names the time, whatever the schedule says; nonsense is bounded."""
        found = fail(HandlerRetryAfter("later", 60.0), delivery(backoff="svix"))
        self.assertEqual((found.state, found.due_at), (WAITING, 72.0))
        for seconds, state in ((0.0, READY), (-5.0, READY), (float("nan"), READY), (float("inf"), WAITING)):
            found = fail(HandlerRetryAfter("later", seconds), delivery(backoff="svix"))
            self.assertEqual(found.state, state, seconds)
        self.assertEqual(found.due_at, 12.0 + LONGEST)

    def test_retry_after_without_a_time(self) -> None:
        """Where the handler names none, the schedule says when."""
        found = fail(HandlerRetryAfter("later"), delivery(attempts=1, schedule=(5.0, 60.0)))
        self.assertEqual((found.state, found.due_at), (WAITING, 72.0))

    @given(st.floats(0.001, 1e6), st.integers(0, 5), st.floats(0.0, 1.0))
    def test_retry_after_is_never_early(self, seconds: float, attempts: int, drawn: float) -> None:
        """Jitter never takes anything of a time that a handler named."""
        of = delivery(attempts=attempts, backoff="exponential", jitter=1.0)
        found = failed(of, 10.0, 12.0, HandlerRetryAfter("later", seconds), drawn)
        self.assertEqual(found.due_at, 12.0 + seconds)

    def test_gone(self) -> None:
        """With no version left to run on, a failure that would be retried is the end, in one unit."""
        found = fail(HandlerRaised("no"), gone=True)
        assert found.dead is not None
        assert found.attempt is not None
        self.assertEqual((found.dead.reason, found.dead.error_class), ("binding_removed", "handler_error"))

    def test_predicate_is_not_asked_again_once_it_said_yes(self) -> None:
        """Only errors of a handler that ran show that its predicate passed; a delivery that had passed stays passed."""
        proofs = (HandlerRaised, HandlerRejected, HandlerRetryAfter, ResultInvalid, ResultTooLarge)
        for error in ERRORS:
            self.assertEqual(fail(error).passed, isinstance(error, proofs), error)
            self.assertTrue(fail(error, delivery(passed=True)).passed)

    def test_outcomes(self) -> None:
        """Attempts tell a time-out and a rejection from other failures."""
        outcomes = {type(error).__name__: fail(error).attempt for error in ERRORS}
        found = {name: attempt.outcome for name, attempt in outcomes.items() if attempt is not None}
        self.assertEqual(found.pop("HandlerTimedOut"), "timeout")
        self.assertEqual(found.pop("HandlerRejected"), "denied")
        self.assertEqual(set(found.values()), {"failed"})

    @given(st.text(alphabet=st.characters(exclude_categories=()), max_size=20), st.integers(1, 1000))
    def test_any_text_can_be_stored(self, text: str, times: int) -> None:
        """An error's text is cut, and always has a form in UTF-8, lone surrogates or not."""
        attempt = fail(HandlerRaised(text * times)).attempt
        assert attempt is not None
        assert attempt.error is not None
        attempt.error.encode("utf-8")
        self.assertLessEqual(len(attempt.error), LONGEST_ERROR)


class RemovedTests(SynchronousTestCase):
    def test_names_the_trigger(self) -> None:
        """The dead letter says why, without an attempt."""
        found = removed(17, "gh", 3, 2, passed=True)
        assert found.dead is not None
        self.assertEqual((found.state, found.attempt, found.attempts, found.passed), (DEAD, None, 2, True))
        self.assertEqual(found.dead.reason, "binding_removed")
        self.assertIn("'gh'", found.dead.error)
