"""Counting, and what a scrape shows of it."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import REASONS
from harn.observability.counts import REFUSALS, SECONDS, Histogram
from harn.observability.metrics import COUNTED_TOGETHER, MOST_SOURCES, UNKNOWN_ENDPOINT, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every scraped value by name and labels, as an independent parser reads them."""
    text = metrics.render().decode("utf-8")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one scraped value."""
    return samples(metrics).get((name, frozenset(labels.items())))


class HistogramTests(SynchronousTestCase):
    """Observations by bucket."""

    def test_bound_belongs_to_its_bucket(self) -> None:
        """An observation equal to a bound is counted in that bound's bucket, one above the last in the rest."""
        histogram = Histogram((1.0, 2.0))
        for seconds in (0.5, 1.0, 1.5, 2.0, 9.0):
            histogram.observe(seconds)
        self.assertEqual((histogram.counts, histogram.total), ([2, 2, 1], 14.0))

    @given(st.lists(st.floats(min_value=0, max_value=100)))
    def test_nothing_is_lost(self, observed: list[float]) -> None:
        """As many are counted as were observed, each in the first bucket that holds it."""
        histogram = Histogram(SECONDS)
        for seconds in observed:
            histogram.observe(seconds)
        expected = [0] * (len(SECONDS) + 1)
        for seconds in observed:
            expected[next((i for i, bound in enumerate(SECONDS) if seconds <= bound), len(SECONDS))] += 1
        self.assertEqual(histogram.counts, expected)
        self.assertEqual(bisect_left(SECONDS, 0.0), 0)


class TriggerTests(SynchronousTestCase):
    """Counts of triggers."""

    def test_each_count_has_its_series(self) -> None:
        """A scrape shows what callers add to the attributes, under the right labels."""
        metrics = Metrics()
        stats = metrics.trigger("gh", "github")
        stats.received, stats.accepted, stats.deduped = 9, 4, 2
        stats.ignored, stats.filtered = 1, 3
        stats.dispatched_ok, stats.dispatched_failed, stats.dispatched_skipped = 5, 6, 7
        stats.retries = 8
        stats.predicate_true, stats.predicate_false = 12, 13
        stats.dead("rejected")
        stats.dead("rejected")
        shown = samples(metrics)

        def of(name: str, **labels: str) -> float | None:
            return shown.get((name, frozenset({"trigger_id": "gh", **labels}.items())))

        self.assertEqual(of("harn_trigger_received_total", provider="github"), 9)
        self.assertEqual(of("harn_trigger_accepted_total"), 4)
        self.assertEqual(of("harn_trigger_deduped_total", reason="inbox_duplicate"), 2)
        self.assertEqual(of("harn_trigger_ignored_total", reason="no_match"), 1)
        self.assertEqual(of("harn_trigger_ignored_total", reason="filtered"), 3)
        self.assertEqual(of("harn_trigger_dispatched_total", handler_kind="local", outcome="succeeded"), 5)
        self.assertEqual(of("harn_trigger_dispatched_total", handler_kind="local", outcome="failed"), 6)
        self.assertEqual(of("harn_trigger_dispatched_total", handler_kind="local", outcome="skipped"), 7)
        self.assertEqual(of("harn_trigger_retries_total"), 8)
        self.assertEqual(of("harn_trigger_predicate_evaluations_total", result="true"), 12)
        self.assertEqual(of("harn_trigger_predicate_evaluations_total", result="false"), 13)
        self.assertEqual(of("harn_trigger_dlq_total", reason="rejected"), 2)

    def test_every_series_is_there_from_the_start(self) -> None:
        """A trigger that nothing has happened to shows each of its series at 0: an alert on a rise sees the first."""
        metrics = Metrics()
        metrics.trigger("gh", "github")
        shown = samples(metrics)
        for name, labels in (
            ("harn_trigger_received_total", {"provider": "github"}),
            ("harn_trigger_accepted_total", {}),
            ("harn_trigger_deduped_total", {"reason": "inbox_duplicate"}),
            ("harn_trigger_ignored_total", {"reason": "no_match"}),
            ("harn_trigger_dispatched_total", {"handler_kind": "local", "outcome": "failed"}),
            ("harn_trigger_retries_total", {}),
            *(("harn_trigger_dlq_total", {"reason": reason}) for reason in REASONS),
            *(("harn_refused_requests_total", {"reason": reason}) for reason in (*REFUSALS.values(), "other")),
        ):
            self.assertEqual(shown.get((name, frozenset({"trigger_id": "gh", **labels}.items()))), 0, (name, labels))

    def test_refused_requests(self) -> None:
        """They are counted by the status of their answer; a dead letter with an unknown reason is shown, too."""
        metrics = Metrics()
        stats = metrics.trigger("gh", "github")
        for status in (401, 401, 503, 418):
            stats.refuse(status)
        stats.dead("strange")
        for reason, count in (("unauthorized", 2), ("unavailable", 1), ("other", 1), ("malformed", 0)):
            self.assertEqual(value(metrics, "harn_refused_requests_total", trigger_id="gh", reason=reason), count)
        self.assertEqual(value(metrics, "harn_trigger_dlq_total", trigger_id="gh", reason="strange"), 1)

    def test_same_trigger_same_counts(self) -> None:
        """A trigger has one set of counts over all its versions; a new provider is its label from then on."""
        metrics = Metrics()
        metrics.trigger("gh", "github").received += 1
        metrics.trigger("gh", "webhook").received += 1
        self.assertEqual(value(metrics, "harn_trigger_received_total", trigger_id="gh", provider="webhook"), 2)

    def test_removed_trigger_leaves_its_sums(self) -> None:
        """A trigger that is gone shows no series, and no unlabelled counter goes back."""
        metrics = Metrics()
        metrics.trigger("gone", "github").dispatched_ok += 3
        metrics.trigger("here", "github").dispatched_ok += 1
        metrics.http_request("/gone", "POST", 200, 0.1, 5)
        metrics.remove(["gone", "never"], ["/gone", "/never"])
        self.assertNotIn(b"gone", metrics.render())
        self.assertEqual(value(metrics, "harn_dispatch_succeeded_total"), 4)

    def test_names_are_escaped(self) -> None:
        """A trigger id with quotes, line ends and backslashes comes back as it was."""
        metrics = Metrics()
        metrics.trigger('a"b\nc\\d', "github").received += 1
        self.assertEqual(value(metrics, "harn_trigger_received_total", trigger_id='a"b\nc\\d', provider="github"), 1)


class HttpTests(SynchronousTestCase):
    """Counts of requests."""

    def test_request_is_counted_timed_and_weighed(self) -> None:
        """One request adds to its counter and to both histograms, whose buckets are cumulative."""
        metrics = Metrics()
        metrics.http_request("/hook", "POST", 200, 0.02, 600)
        metrics.http_request("/hook", "POST", 401, 0.02, 600)
        self.assertEqual(value(metrics, "harn_http_requests_total", endpoint="/hook", method="POST", status="401"), 1)
        self.assertEqual(value(metrics, "harn_http_request_duration_seconds_count", endpoint="/hook"), 2)
        bucket = "harn_http_request_duration_seconds_bucket"
        self.assertEqual(value(metrics, bucket, endpoint="/hook", le="0.01"), 0)
        self.assertEqual(value(metrics, bucket, endpoint="/hook", le="0.025"), 2)
        self.assertEqual(value(metrics, bucket, endpoint="/hook", le="+Inf"), 2)
        self.assertEqual(value(metrics, "harn_http_body_size_bytes_sum", endpoint="/hook"), 1200)

    def test_many_requests(self) -> None:
        """Each is in the next scrape, whether the requests before it have been counted together or not."""
        metrics = Metrics()
        for number in range(1, COUNTED_TOGETHER + 3):
            metrics.http_request("/hook", "POST", 200, 0.02, 1)
            if number >= COUNTED_TOGETHER - 1:
                found = value(metrics, "harn_http_requests_total", endpoint="/hook", method="POST", status="200")
                self.assertEqual(found, number)
        self.assertEqual(value(metrics, "harn_http_body_size_bytes_sum", endpoint="/hook"), COUNTED_TOGETHER + 2)

    def test_strangers_make_no_labels(self) -> None:
        """Methods without a definition are counted together."""
        metrics = Metrics()
        for number in range(100):
            metrics.http_request(UNKNOWN_ENDPOINT, f"X{number}", 405, 0.0, 0)
        requests = [name for name, _ in samples(metrics) if name == "harn_http_requests_total"]
        self.assertEqual(len(requests), 1)


class ReloadTests(SynchronousTestCase):
    """Counts of reloads."""

    def test_outcomes(self) -> None:
        """A failure lowers the status and keeps the time of the last success."""
        metrics = Metrics()
        metrics.reload_finished("cli", "ok", {"parse": 0.2, "resolve": 2.0}, 7, 1000.0, True)
        metrics.reload_finished("signal", "error", {"parse": 0.3}, 7, 2000.0, False)
        self.assertEqual(value(metrics, "harn_reload_total", source="cli", outcome="ok"), 1)
        self.assertEqual(value(metrics, "harn_reload_total", source="signal", outcome="error"), 1)
        self.assertEqual(value(metrics, "harn_reload_duration_seconds_count", stage="parse"), 2)
        self.assertEqual(value(metrics, "harn_reload_last_success_timestamp_seconds"), 1000)
        self.assertEqual(value(metrics, "harn_reload_last_status"), 0)
        self.assertEqual(value(metrics, "harn_generation"), 7)

    def test_sources_are_bounded(self) -> None:
        """Sources are labels that callers choose: past the first ones they are counted together."""
        metrics = Metrics()
        for number in range(MOST_SOURCES + 10):
            metrics.reload_finished(f"source-{number}", "ok", {}, 1, 1.0, True)
        self.assertEqual(value(metrics, "harn_reload_total", source="other", outcome="ok"), 10)

    def test_interpreters_appends_and_backpressure(self) -> None:
        """What has one counter each is counted there."""
        metrics = Metrics()
        metrics.interpreter_restarts += 1
        metrics.append_observed("inbox", 0.003)
        metrics.backpressure("ingest", "reject")
        self.assertEqual(value(metrics, "harn_interpreter_restarts_total"), 1)
        self.assertEqual(value(metrics, "harn_event_log_append_duration_seconds_count", topic="inbox"), 1)
        self.assertEqual(value(metrics, "harn_backpressure_events_total", dimension="ingest", action="reject"), 1)


class GaugeTests(SynchronousTestCase):
    """Numbers that are read at each scrape."""

    def test_read_at_each_scrape(self) -> None:
        """A gauge shows what its callable gives then, plain or by labels."""
        metrics, now = Metrics(), [1.0]
        metrics.gauge("harn_backlog", "Waiting.", lambda: now[0])
        metrics.gauge(
            "harn_binding_in_flight", "Leases.", lambda: {("gh@v1", "draining"): now[0]}, ("binding_key", "state")
        )
        now[0] = 5.0
        self.assertEqual(value(metrics, "harn_backlog"), 5)
        self.assertEqual(value(metrics, "harn_binding_in_flight", binding_key="gh@v1", state="draining"), 5)

    def test_a_gauge_that_raises_costs_itself_alone(self) -> None:
        """One that cannot be read is logged and left out; the rest is there."""
        metrics = Metrics()
        metrics.gauge("harn_broken", "Broken.", lambda: 1 / 0)
        metrics.gauge("harn_whole", "Whole.", lambda: 1)
        self.assertIsNone(value(metrics, "harn_broken"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        metrics.gauges.pop("harn_broken")
        self.assertEqual(value(metrics, "harn_whole"), 1)

    def test_gauges_are_read_before_rendering(self) -> None:
        """`scrape` reads the gauges at once, so that rendering may happen on another thread."""
        metrics, reads = Metrics(), list[int]()
        metrics.gauge("harn_read", "Read.", lambda: reads.append(1) or len(reads))
        scrape = metrics.scrape()
        self.assertEqual(len(reads), 1)
        self.assertIn(b"harn_read 1.0", scrape.render())
        self.assertEqual(len(reads), 1)
