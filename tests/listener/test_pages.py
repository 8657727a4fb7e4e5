"""Health, readiness, metrics: what anybody may read."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.testing.clients import WireAnswer, request_bytes
from tests.listener.world import World


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def get(self, target: str) -> WireAnswer:
        return self.world.wire().send(request_bytes("GET", target)).answer()

    def test_health(self) -> None:
        """Health is ``ok`` while the process lives, whatever else is wrong, also while it drains."""
        self.world.readiness.add("event log away", lambda: False)
        self.world.site.quiesce()
        for target in ("/health", "/healthz", "/health?x=1"):
            answer = self.get(target)
            self.assertEqual((answer.status, answer.body), (200, b"ok"))

    def test_head(self) -> None:
        """HEAD gives the headers of GET and no body, and keeps the connection in step."""
        wire = self.world.wire().send(request_bytes("HEAD", "/health"))
        (answer,) = wire.answers(heads=True)
        self.assertEqual((answer.status, answer.headers["content-length"]), (200, "2"))
        self.assertEqual(wire.send(request_bytes("GET", "/health")).answer().body, b"ok")

    def test_method(self) -> None:
        """What can only be read says so."""
        answer = self.world.wire().send(request_bytes("POST", "/health", body=b"x")).answer()
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD, OPTIONS"))

    def test_ready(self) -> None:
        """Ready is ``ready``, or 503 with every reason."""
        self.assertEqual((self.get("/readyz").status, self.get("/readyz").body), (200, b"ready"))
        for reason in ("event log away", "interpreter down"):
            self.world.readiness.add(reason, lambda: False)
        answer = self.get("/readyz")
        self.assertEqual((answer.status, answer.json()["reasons"]), (503, ["event log away", "interpreter down"]))

    def test_not_ready_while_draining(self) -> None:
        """A server that is going down says so."""
        self.world.site.quiesce()
        answer = self.get("/readyz")
        self.assertEqual((answer.status, answer.json()["detail"]), (503, "draining"))

    def test_ready_for_a_generation(self) -> None:
        """With a generation named it is 503 until that one, or a later one, serves."""
        self.world.serve(4)
        statuses = [self.get(f"/readyz?generation={number}").status for number in (3, 4, 5)]
        self.assertEqual(statuses, [200, 200, 503])
        for bad in ("x", "-1", "", "1.5", "9" * 5000):
            self.assertEqual(self.get(f"/readyz?generation={bad}").status, 400, bad)

    def test_metrics(self) -> None:
        """The metrics come as Prometheus reads them."""
        self.get("/health")
        answer = self.get("/metrics")
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        self.assertIn(b'harn_http_requests_total{endpoint="/health",method="GET",status="200"} 1', answer.body)

    def test_a_page_that_fails(self) -> None:
        """A page whose reader raises is 500, logged once, and the connection lives on."""

        class Broken:
            def render(self) -> bytes:
                raise ZeroDivisionError

        self.world.metrics.scrape = Broken  # type: ignore[assignment]  # a render is all that is asked of it
        wire = self.world.wire().send(request_bytes("GET", "/metrics"))
        self.assertEqual(wire.answer().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(wire.send(request_bytes("GET", "/health")).answer().status, 200)
