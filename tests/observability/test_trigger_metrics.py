"""The metrics of triggers, as a subscriber; what is not here is held by the tests of those who emit the events."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import HandlerRaised, HandlerRetryAfter
from harn.lifecycle import Appended, Backpressure, Lifecycle, Received, Settled, VersionEnded
from harn.model.delivery import WAITING, Attempt, Settlement
from harn.observability.metrics import Metrics
from harn.observability.trigger_metrics import TriggerMetrics


class TriggerMetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics, self.lifecycle = Metrics(), Lifecycle()
        TriggerMetrics(self.metrics, self.lifecycle)

    def test_received(self) -> None:
        """What reaches a trigger counts for it, whether its version is known by then or chosen later."""
        self.lifecycle.emit(Received("gh", "github", "gh@v1"))
        self.lifecycle.emit(Received("gh", "github", None))
        self.assertEqual(self.metrics.trigger("gh", "github").received, 2)

    def test_the_last_version_takes_the_series_along(self) -> None:
        """A trigger shows its series as long as one of its versions is there; its sums stay."""
        self.metrics.http_request("/hooks/gh", "POST", 200, 0.1, 5)
        self.metrics.trigger("gh", "github").dispatched_ok += 1
        self.lifecycle.emit(VersionEnded("gh", 1, "gh@v1", "/hooks/gh", is_last=False))
        self.assertIn("gh", self.metrics.triggers)
        self.lifecycle.emit(VersionEnded("gh", 2, "gh@v2", "/hooks/gh", is_last=True))
        self.assertEqual((self.metrics.triggers, self.metrics.endpoints), ({}, {}))
        self.assertEqual(self.metrics.forgotten.succeeded, 1)

    def test_put_off(self) -> None:
        """An attempt that its handler ended by ``RetryAfter`` counts as that, not as one that failed."""
        self.settle("local", HandlerRetryAfter.error_class)
        self.settle("file", HandlerRetryAfter.error_class)
        self.settle("file", HandlerRaised.error_class)
        stats = self.metrics.trigger("gh", "github")
        self.assertEqual((stats.dispatched_again, stats.dispatched_failed, stats.retries), (2, 1, 3))
        self.assertEqual(dict(stats.sent), {("file", "retry_after"): 1, ("file", "failed"): 1})
        text = self.metrics.render().decode()
        for kind, outcome, count in (("local", "retry_after", 1), ("local", "failed", 0), ("file", "retry_after", 1)):
            labels = f'handler_kind="{kind}",outcome="{outcome}",trigger_id="gh"'
            self.assertIn(f"harn_trigger_dispatched_total{{{labels}}} {count}.0\n", text)
        self.assertIn("dispatch_failed_total 1.0\n", text)

    def settle(self, handler_kind: str, error_class: str) -> None:
        """Emit that an attempt failed, and that another one follows."""
        attempt = Attempt(
            number=1, version=1, started_at=0.0, completed_at=1.0, outcome="failed", error_class=error_class, error="x"
        )
        settlement = Settlement(delivery_id=1, state=WAITING, version=1, attempts=1, due_at=9.0, attempt=attempt)
        self.lifecycle.emit(
            Settled("gh", "github", "gh@v1", "evt", b"{}", False, settlement, handler_kind=handler_kind)
        )

    def test_of_the_whole_server(self) -> None:
        """Appends and back pressure are of no trigger."""
        self.lifecycle.emit(Appended("inbox", 0.2))
        self.lifecycle.emit(Backpressure("ingest", "reject"))
        self.assertEqual(sum(self.metrics.appends["inbox"].counts), 1)
        self.assertEqual(self.metrics.backpressures, {("ingest", "reject"): 1})
