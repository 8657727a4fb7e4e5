"""What is counted of requests and deliveries; what is not here is held by the tests of those who emit the events."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import (
    CIRCUIT_CLOSED,
    CIRCUIT_OPEN,
    Appended,
    Backpressure,
    Chosen,
    CircuitChanged,
    DeadLettered,
    InterpreterRestarted,
    Lifecycle,
    Received,
    Redriven,
    RequestRefused,
    Settled,
    SettledDelivery,
    VersionEnded,
)
from harn.model.delivery import (
    CANCELLED,
    DEAD,
    DONE,
    PREDICATE,
    SKIPPED,
    WAITING,
    Attempt,
    DeadLetter,
    Settlement,
    State,
)
from harn.observability.metrics import Metrics
from harn.observability.subscribers import Counting


class CountingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics, self.lifecycle = Metrics(), Lifecycle()
        Counting(self.metrics, self.lifecycle)

    def settle(
        self,
        state: State,
        seconds: float,
        result: bytes | None = None,
        error_class: str | None = None,
        handler_kind: str = "local",
        skip_reason: str | None = None,
    ) -> None:
        """Settle a delivery of ``gh@v1`` that was received at 100 after an attempt that began at 110."""
        outcome = "failed" if error_class else "success"
        attempt = Attempt(
            number=1,
            version=1,
            started_at=110.0,
            completed_at=110.0 + seconds,
            outcome=outcome,
            error_class=error_class,
        )
        dead = DeadLetter(reason="rejected", error_class="rejected", error="no") if state == DEAD else None
        settlement = Settlement(
            delivery_id=1,
            state=state,
            version=1,
            attempts=1,
            attempt=attempt,
            result=result,
            dead=dead,
            skip_reason=skip_reason,
        )
        one = SettledDelivery("gh", "github", "gh@v1", "trigger_evt_1", b"", False, settlement, handler_kind, 100.0)
        self.lifecycle.emit(Settled.of([one]))


class TriggerTests(CountingCase):
    """Counts of triggers."""

    def test_received(self) -> None:
        """What reaches a trigger counts for it, whether its version is known by then or chosen later."""
        self.lifecycle.emit(Received("gh", "github", "gh@v1"))
        self.lifecycle.emit(Received("gh", "github", None))
        self.assertEqual(self.metrics.trigger("gh", "github").received, 2)

    def test_durations(self) -> None:
        """Each call of a handler is timed; from accepted to done only what is done; a refusing predicate neither."""
        self.settle(WAITING, 2.0, error_class="handler_error")
        self.settle(DONE, 0.5, result=b"1")
        self.settle(SKIPPED, 0.5, skip_reason=PREDICATE)
        self.settle(DEAD, 4.0, error_class="rejected")
        counts = self.metrics.trigger("gh", "github")
        self.assertEqual((sum(counts.handler_seconds.counts), counts.handler_seconds.total), (3, 6.5))
        self.assertEqual((sum(counts.delivery_seconds.counts), counts.delivery_seconds.total), (1, 10.5))
        self.assertEqual((counts.dispatched_ok, counts.dispatched_skipped, counts.dispatched_failed), (1, 1, 2))

    def test_put_off(self) -> None:
        """An attempt that its handler ended by ``RetryAfter`` counts as that, not as one that failed."""
        self.settle(WAITING, 1.0, error_class="retry_after")
        self.settle(WAITING, 1.0, error_class="retry_after", handler_kind="file")
        self.settle(WAITING, 1.0, error_class="handler_error", handler_kind="file")
        counts = self.metrics.trigger("gh", "github")
        self.assertEqual((counts.dispatched_again, counts.dispatched_failed, counts.retries), (2, 1, 3))
        self.assertEqual(dict(counts.sent), {("file", "retry_after"): 1, ("file", "failed"): 1})
        text = self.metrics.render().decode()
        for kind, outcome, count in (("local", "retry_after", 1), ("local", "failed", 0), ("file", "retry_after", 1)):
            labels = f'handler_kind="{kind}",outcome="{outcome}",trigger_id="gh"'
            self.assertIn(f"harn_trigger_dispatched_total{{{labels}}} {count}.0\n", text)
        self.assertIn("harn_dispatch_failed_total 1.0\n", text)

    def test_cancelled(self) -> None:
        """What an operator cancels is skipped for that reason: no retry, no answer of a predicate."""
        cancelled = Settlement(delivery_id=1, state=SKIPPED, version=1, attempts=0, skip_reason=CANCELLED)
        one = SettledDelivery("gh", "github", "gh@v1", "trigger_evt_1", b"", False, cancelled)
        self.lifecycle.emit(Settled.of([one]))
        counts = self.metrics.trigger("gh", "github")
        self.assertEqual((counts.skip_reasons, counts.retries, counts.predicate_false), ({CANCELLED: 1}, 0, 0))

    def test_clock_that_was_set_back(self) -> None:
        """An attempt that seems to have ended before it began took no time."""
        self.settle(DONE, -50.0, result=b"1")
        counts = self.metrics.trigger("gh", "github")
        self.assertEqual((counts.handler_seconds.total, counts.delivery_seconds.total), (0.0, 0.0))

    def test_the_last_version_takes_the_series_along(self) -> None:
        """A trigger shows its series as long as one of its versions is there; its sums stay."""
        self.metrics.http_request("/hooks/gh", "POST", 200, 0.1, 5)
        self.metrics.trigger("gh", "github").dispatched_ok += 1
        self.lifecycle.emit(VersionEnded("gh", 1, "gh@v1", "/hooks/gh", is_last=False))
        self.assertIn("gh", self.metrics.triggers)
        self.lifecycle.emit(VersionEnded("gh", 2, "gh@v2", "/hooks/gh", is_last=True))
        self.assertEqual((self.metrics.triggers, self.metrics.endpoints()), ({}, {}))
        self.assertEqual(self.metrics.removed.succeeded, 1)

    def test_of_the_whole_server(self) -> None:
        """Appends, back pressure and restarts of interpreters are of no trigger."""
        self.lifecycle.emit(Appended("inbox", [0.2]))
        self.lifecycle.emit(Backpressure("ingest", "reject"))
        self.lifecycle.emit(InterpreterRestarted())
        self.assertEqual(sum(self.metrics.appends["inbox"].counts), 1)
        self.lifecycle.emit(CircuitChanged("gh", "gh@v1", "https://x", CIRCUIT_CLOSED, CIRCUIT_OPEN, 5, 60.0))
        counted = {key: count for key, count in self.metrics.backpressures.items() if count}
        self.assertEqual(counted, {("ingest", "reject"): 1, ("circuit", "opened"): 1})
        self.assertEqual(self.metrics.interpreter_restarts, 1)


class VersionTests(CountingCase):
    """Counts of binding versions."""

    def test_on_a_ramp(self) -> None:
        """What a ramping trigger receives counts for the version that is chosen, once it is."""
        self.lifecycle.emit(Received("gh", "github", None))
        self.assertEqual(self.metrics.versions, {})
        self.lifecycle.emit(Chosen("gh", ("gh@v1", "gh@v2")))
        self.lifecycle.emit(RequestRefused("gh", "github", ("gh@v1", "gh@v2"), 422))
        for binding in ("gh@v1", "gh@v2"):
            counts = self.metrics.versions[binding]
            self.assertEqual((counts.received, counts.refused), (1, 1))
        self.assertEqual(self.metrics.trigger("gh", "github").refusals, {"other": 1})

    def test_attempts(self) -> None:
        """Attempts that end are counted, those that failed apart, and of these the failures of code apart again."""
        self.settle(WAITING, 1.0, error_class="handler_error")
        self.settle(WAITING, 1.0, error_class="retry_after")
        self.settle(DONE, 1.0, result=b"1")
        counts = self.metrics.versions["gh@v1"]
        self.assertEqual((counts.attempted, counts.attempts_failed), (3, 1))
        self.assertEqual((counts.dispatched, counts.failed, counts.dead), (1, 1, 0))

    def test_redriven(self) -> None:
        """Dead letters that are ready again are no longer counted; those from before this server's start never did."""
        self.lifecycle.emit(DeadLettered("gh", "github", "gh@v1", "rejected", 2))
        self.lifecycle.emit(Redriven("gh", "gh@v1", 1))
        self.assertEqual(self.metrics.versions["gh@v1"].dead, 1)
        self.lifecycle.emit(Redriven("gh", "gh@v1", 5))
        self.assertEqual(self.metrics.versions["gh@v1"].dead, 0)
        self.assertEqual(self.metrics.trigger("gh", "github").dead_reasons, {"rejected": 2})

    def test_until_the_version_ends(self) -> None:
        """A version that has ended takes no memory."""
        self.lifecycle.emit(Received("gh", "github", "gh@v1"))
        self.lifecycle.emit(VersionEnded("gh", 1, "gh@v1", "/hooks/gh", is_last=True))
        self.assertEqual(self.metrics.versions, {})

    def test_of_a_version_that_ended_before(self) -> None:
        """A dead letter that no version is left for counts for its trigger alone."""
        self.lifecycle.emit(DeadLettered("gh", "github", None, "binding_removed", 1))
        self.assertEqual(self.metrics.versions, {})
        self.assertEqual(self.metrics.trigger("gh", "github").dead_reasons, {"binding_removed": 1})
