"""Traces and metrics of a real server, as a collector gets them."""

from __future__ import annotations

from typing import Any

from harn.testing.manifests import trigger_text
from harn.testing.server import wait_until
from tests.integration.case import ServerCase
from tests.traces.collector import NEEDS_OTEL, Collector, SeenSpan

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HANDLERS = """
import os

def on_event(event, context):
    if context.attempt == 1 and not os.path.exists(os.environ["TEST_RELEASE"]):
        raise RuntimeError("s3cret")
    return [context.trace.trace_id, context.trace.span_id, context.trace.headers()]
"""


class TracesTests(ServerCase):
    skip = NEEDS_OTEL

    def setUp(self) -> None:
        super().setUp()
        self.collector = Collector()
        self.addCleanup(self.collector.stop)
        self.environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-team=blue",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_SERVICE_NAME": "hooks",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }

    def spans(self, name: str, count: int) -> list[SeenSpan]:
        """Wait for as many spans of a name."""

        def found() -> list[SeenSpan]:
            named = [each for each in self.collector.spans() if each.name == name]
            return named if len(named) >= count else []

        seen: list[SeenSpan] = self.collector.wait_for(found, f"{count} spans {name}")
        return seen

    def test_from_the_request_to_a_replay(self) -> None:
        """
        A sender's trace continues through a retry after a restart, to the handler; a replay begins one that is linked.
        """
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 3\nschedule = ['3s']\n"))
        self.write("handlers.py", HANDLERS)
        server = self.serve()
        headers = {"traceparent": f"00-{TRACE}-{SENDER}-01", "tracestate": "v=1"}
        answer = server.deliver("/triggers/gh", delivery="d1", headers=headers)
        self.assertEqual(answer.status, 200, answer)
        event_id = answer.json()["event_id"]
        (failed,) = self.spans("handler", 1)
        self.assertEqual((failed.code, failed.description), (2, "handler_error"))
        server = self.restart(server)
        (ingest,), (accept,) = self.spans("ingest", 1), self.spans("accept", 1)
        first, second = self.spans("dispatch", 2)
        handler = self.spans("handler", 2)[1]
        self.assertEqual((ingest.parent_id, accept.parent_id), (SENDER, ingest.span_id))
        self.assertEqual((first.parent_id, second.parent_id), (accept.span_id, accept.span_id))
        self.assertEqual((handler.parent_id, handler.code), (second.span_id, 0))
        self.assertEqual({each.trace_id for each in self.collector.spans()}, {TRACE})
        self.assertEqual(second.attributes["result.status"], "succeeded")
        detail = self.checked("delivery", event_id)
        sent = {"traceparent": f"00-{TRACE}-{handler.span_id}-01", "tracestate": "v=1"}
        self.assertEqual(detail["result"], [TRACE, handler.span_id, sent])
        self.assertEqual(detail["otel_trace_id"], TRACE)
        self.assertIn(TRACE, self.orchestrator("delivery", event_id).stdout)
        self.release_path.touch()
        replayed = self.checked("replay", event_id, "--yes")["items"][0]["replayed_as"]
        again = self.spans("accept", 2)[1]
        self.assertEqual(again.links, [(TRACE, accept.span_id)])
        self.assertEqual(self.checked("delivery", replayed)["otel_trace_id"], again.trace_id)
        self.assertNotEqual(again.trace_id, TRACE)
        self.assertNotIn("s3cret", repr(self.collector.spans()))
        self.assert_described(server)

    def assert_described(self, server: Any) -> None:
        """See who sends, with which headers; and the metrics, under the names of a scrape."""
        traces = next(each for each in self.collector.posted if each.path == "/v1/traces")
        self.assertEqual((traces.headers["x-team"], traces.headers["content-encoding"]), ("blue", "gzip"))
        resource = {pair.key: pair.value.string_value for pair in traces.message.resource_spans[0].resource.attributes}
        self.assertEqual(resource["service.name"], "hooks")
        seen = self.collector.wait_for(
            lambda: self.collector.metrics() if "harn_trigger_received_total" in self.collector.metrics() else None,
            "metrics",
        )
        self.assertIn("harn_otlp_spans_sent_total", seen)
        text = server.request("GET", "/metrics").body.decode()
        scraped = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        self.assertLessEqual(set(seen), scraped)

    def test_a_collector_that_is_down(self) -> None:
        """Deliveries continue, the loss is said once and counted, and a server that ends does so soon."""
        self.collector.stop()
        self.environ |= {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_METRICS_EXPORTER": "none"}
        server = self.serve()
        for number in range(20):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{number}"))
        wait_until(lambda: "spans are dropped" in server.stderr, "the warning")
        text = server.request("GET", "/metrics").body.decode()
        (dropped,) = [line for line in text.splitlines() if line.startswith("harn_otlp_spans_dropped_total")]
        self.assertGreater(float(dropped.split()[1]), 0)
        self.assertEqual(server.terminate(), 0)
        self.assertEqual(server.stderr.count("spans are dropped"), 1)
        self.assertNotIn("Traceback", server.stderr)
