"""What a server adds for traces, as the environment asks for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

import harn.traces.otlp
from harn.testing.clocks import START
from harn.testing.kit import KitServer
from harn.traces.feature import MetricsTimer, install

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
OFF = """
import sys
from harn.orchestrator import features
from harn.testing.kit import KitServer
from twisted.internet.task import Clock
from harn.traces.feature import install

server = KitServer(Clock(), environ={"OTEL_SERVICE_NAME": "hooks", "OTEL_TRACES_SAMPLER": "always_on"})
install(server)
assert server.traces is None
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "harn.traces"))))
"""


class InstallTests(SynchronousTestCase):
    """`install`."""

    def setUp(self) -> None:
        self.said: list[str] = []
        observer: Any = self.observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, event: LogEvent) -> None:
        """Keep the lines about traces."""
        if event.get("log_namespace") == "harn.traces":
            self.said.append(str(event["log_format"]).format(**event))

    def install(self, **environ: str) -> KitServer:
        """Install it in a server with this environment."""
        clock = Clock()
        clock.advance(START)
        server = KitServer(clock, environ=environ)
        self.addCleanup(server.store.close)
        install(server)
        return server

    def test_off_imports_nothing(self) -> None:
        """Without an endpoint, nothing of OpenTelemetry is imported, and no module that needs it."""
        done = subprocess.run(
            [sys.executable, "-c", OFF], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout.strip(), "['harn.traces', 'harn.traces.feature', 'harn.traces.settings']")

    def test_on(self) -> None:
        """With one, attempts get contexts, requests are reported, and both senders are counted."""
        self.patch(harn.traces.otlp, "is_installed", lambda: True)
        server = self.install(**ENDPOINT)
        self.assertIsNotNone(server.traces)
        self.assertEqual(
            {name for name in server.metrics.gauges if "otlp" in name},
            {f"harn_otlp_{what}_{how}" for what in ("spans", "metrics") for how in ("sent", "dropped")},
        )
        self.assertEqual(len(self.said), 2)
        self.assertIn("traces are sent to http://127.0.0.1:4318/v1/traces", self.said)
        server = self.install(OTEL_TRACES_EXPORTER="none", **ENDPOINT)
        self.assertIsNone(server.traces)

    def test_not_installed(self) -> None:
        """A server that is asked for traces and has not the packages says what to install, and serves."""
        self.patch(harn.traces.otlp, "is_installed", lambda: False)
        server = self.install(**ENDPOINT)
        self.assertIsNone(server.traces)
        (line,) = self.said
        self.assertIn("OTEL_EXPORTER_OTLP_ENDPOINT asks for them", line)
        self.assertIn("pip install 'harn[otel]'", line)

    def test_malformed(self) -> None:
        """What is malformed is said, and nothing is exported."""
        server = self.install(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318")
        self.assertIsNone(server.traces)
        self.assertEqual([line.partition(": ")[0] for line in self.said], ["OTEL_EXPORTER_OTLP_ENDPOINT"] * 2)


class Scrapes(list[Any]):
    """Takes scrapes, as a `Sender`."""

    def add(self, item: Any) -> None:
        """Record one."""
        self.append(item)


class TimerTests(SynchronousTestCase):
    """`MetricsTimer`."""

    def test_each_interval_and_at_the_end(self) -> None:
        """A scrape with its time after each interval, and a last one when the server ends."""
        clock = Clock()
        clock.advance(START)
        server = KitServer(clock)
        self.addCleanup(server.store.close)
        taken: Any = Scrapes()
        timer = MetricsTimer(server, taken, 60.0)
        timer.startService()
        clock.advance(59.0)
        self.assertEqual(taken, [])
        clock.pump([1.0, 60.0])
        self.assertEqual([at for _, at in taken], [START + 60.0, START + 120.0])
        clock.advance(5.0)
        timer.stopService()
        self.assertEqual(taken[-1][1], START + 125.0)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertIn(b"harn_generation", taken[-1][0].render())
