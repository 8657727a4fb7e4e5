"""
Traces and metrics to a collector of OpenTelemetry, where the environment asks for them.

While it does not, nothing of them is imported, and nothing subscribes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from harn.model.event_trace import TraceContexts
from harn.observability.metrics import Metrics
from harn.server import Server
from harn.traces.settings import ASKING, DISABLED, TelemetrySettings, read_settings, shown_url

if TYPE_CHECKING:
    from harn.observability.exposition import Scrape
    from harn.traces.sending import Sender

log = Logger(namespace="harn.traces")

INSTALL = "run: pip install 'harn[otel]'"


def install(server: Server) -> None:
    """Add the exports that the environment asks for. Installed first: later features look whether there are traces."""
    settings = read_settings(server.environ)
    if settings is None:
        return
    from harn.traces.otlp import is_installed

    for problem in settings.warnings:
        log.warn("{problem}", problem=problem)
    if settings.traces_url is None and settings.metrics_url is None:
        return
    if not is_installed():
        asked = ", ".join(name for name in ASKING if server.environ.get(name))
        log.error(
            "no traces and metrics are exported: {asked} asks for them, and the packages are not installed; {install},"
            " or set {disabled}=true",
            asked=asked,
            install=INSTALL,
            disabled=DISABLED,
        )
        return
    if settings.traces_url is not None:
        export_traces(server, settings, settings.traces_url)
    if settings.metrics_url is not None:
        export_metrics(server, settings, settings.metrics_url)


def export_traces(server: Server, settings: TelemetrySettings, url: str) -> None:
    """Add spans, and their sender."""
    from harn.traces.otlp import SpanExporter, Target
    from harn.traces.sending import Sender
    from harn.traces.spans import Span, SpanMaker

    target = Target(url=url, headers=settings.headers, service_name=settings.service_name)
    sender: Sender[Span] = Sender(server.reactor, SpanExporter(target), settings.batching, "spans", shown_url(url))
    contexts = server.traces = TraceContexts(settings.sampler, server.random)
    SpanMaker(server.lifecycle, contexts, server.wall, sender)
    server.services.add(sender)
    add_counters(server.metrics, "spans", sender)
    log.info("traces are sent to {url}", url=shown_url(url))


def export_metrics(server: Server, settings: TelemetrySettings, url: str) -> None:
    """Add the sender of the metrics, which runs at an interval."""
    from harn.traces.otlp import MetricExporter, Target
    from harn.traces.sending import Sender
    from harn.traces.settings import Batching

    target = Target(url=url, headers=settings.headers, service_name=settings.service_name)
    exporter = MetricExporter(target, server.wall.seconds())
    one = Batching(most_waiting=1, batch=1, delay=0.0)
    sender: Sender[tuple[Scrape, float]] = Sender(server.reactor, exporter, one, "metrics", shown_url(url))
    server.services.add(sender)
    server.services.add(MetricsTimer(server, sender, settings.interval))
    add_counters(server.metrics, "metrics", sender)
    log.info("metrics are sent to {url} every {seconds:g} s", url=shown_url(url), seconds=settings.interval)


class MetricsTimer(Service):
    """Hands the metrics to their sender every ``interval`` seconds, and a last time when the server ends."""

    def __init__(self, server: Server, sender: Sender[tuple[Scrape, float]], interval: float) -> None:
        self._server = server
        self._sender = sender
        self._interval = interval
        self._loop = LoopingCall(self._scrape)
        self._loop.clock = server.reactor

    def startService(self) -> None:
        """Start; the first time is after an interval."""
        Service.startService(self)
        self._loop.start(self._interval, now=False).addErrback(
            lambda failure: log.failure("the metrics cannot be scraped; none are sent any more", failure)
        )

    def stopService(self) -> Deferred[None] | None:
        """Stop, and hand over how it ended."""
        Service.stopService(self)
        if self._loop.running:
            self._loop.stop()
            self._scrape()
        return None

    def _scrape(self) -> None:
        self._sender.add((self._server.metrics.scrape(), self._server.wall.seconds()))


def add_counters(metrics: Metrics, what: str, sender: Sender[Any]) -> None:
    """Add the counters of a sender; of metrics, a scrape counts as one."""
    metrics.counter(
        f"harn_otlp_{what}_sent", f"The {what} that a collector has got by OTLP.", lambda: float(sender.sent)
    )
    metrics.counter(
        f"harn_otlp_{what}_dropped", f"The {what} for a collector that were dropped.", lambda: float(sender.dropped)
    )
