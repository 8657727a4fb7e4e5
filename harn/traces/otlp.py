"""
The exporters of OpenTelemetry's SDK, with what they need made of our spans and counts.

All of it runs in a sender's thread; there the SDK is imported, which takes a while, when the server starts.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from msgspec import Struct

import harn
from harn.traces.spans import Span

if TYPE_CHECKING:
    from harn.observability.exposition import Scrape

PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
SCOPE = "harn"
MOST_POINTS = 10_000
"""Data points of one request."""
_SILENT = logging.NullHandler()
LONGEST_REASON = 300
"""Characters of the reason of a failure that are logged."""


def is_installed() -> bool:
    """Return whether the packages of the extra ``otel`` are there; imports none of them."""
    try:
        return all(find_spec(name) is not None for name in PACKAGES)
    except ModuleNotFoundError:
        return False


class Target(Struct, frozen=True, kw_only=True):
    """
    Where a signal goes, and whom it comes from.

    :ivar service_name: None where the environment's resource attributes have it.
    """

    url: str
    headers: Mapping[str, str]
    service_name: str | None

    def resource(self) -> Any:
        """Return the description of this server; the SDK adds what ``OTEL_RESOURCE_ATTRIBUTES`` says."""
        from opentelemetry.sdk.resources import Resource

        attributes = {"service.version": harn.__version__, "host.name": platform.node()}
        if self.service_name is not None:
            attributes["service.name"] = self.service_name
        return Resource.create(attributes)


class FirstWords(logging.Handler):
    """
    Keeps the first message of an exporter's log, which says why a batch failed.

    Nothing of the SDK's log is written anywhere: it quotes what it cannot read, such as headers with tokens.

    :param module: of the exporter whose messages are kept.
    """

    def __init__(self, module: str) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._module = module
        self._logger = logging.getLogger("opentelemetry")
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message of the exporter, unless one is kept."""
        if record.name == self._module and not self.text:
            said = " ".join(record.getMessage().split())
            self.text = said if len(said) <= LONGEST_REASON else said[:LONGEST_REASON] + "..."

    def close(self) -> None:
        """Keep no further messages; a call that ends late may still have some."""
        self._logger.addHandler(_SILENT)
        self._logger.removeHandler(self)
        super().close()


class OtlpExporter:
    """
    Sends to one URL, by an exporter of the SDK, which is made at the first batch.

    :ivar module: of the SDK's exporter, by which its log is named.
    """

    module: str

    def __init__(self, target: Target) -> None:
        self._target = target
        self._exporter: Any = None
        self._words: FirstWords | None = None
        self._is_closed = False

    def export(self, items: Sequence[Any]) -> str | None:
        """See `harn.traces.sending.Exporter`."""
        if self._is_closed:
            return "the server ends"
        self.prepare()
        words = self._words
        assert words is not None
        words.text = ""
        return None if self._send(items) else words.text or "the collector gave no answer"

    def prepare(self) -> None:
        """See `harn.traces.sending.Exporter`."""
        if self._is_closed or self._exporter is not None:
            return
        if self._words is None:
            self._words = FirstWords(self.module)  # before the SDK reads variables that may hold tokens
        self._exporter = self._make()

    def reason(self) -> str:
        """See `harn.traces.sending.Exporter`."""
        return "" if self._words is None else self._words.text

    def close(self) -> None:
        """See `harn.traces.sending.Exporter`."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._exporter is not None:
            self._exporter.shutdown()
        if self._words is not None:
            self._words.close()

    def _make(self) -> Any:
        """Make the SDK's exporter."""
        raise NotImplementedError

    def _send(self, items: Sequence[Any]) -> bool:
        """Send a batch; return whether the collector has got it."""
        raise NotImplementedError


class SpanExporter(OtlpExporter):
    """Sends spans."""

    module = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

    def _make(self) -> Any:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        self._encoding = SpanEncoding(self._target.resource())
        return OTLPSpanExporter(endpoint=self._target.url, headers=dict(self._target.headers))

    def _send(self, items: Sequence[Span]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        result = self._exporter.export(list(map(self._encoding.readable, items)))
        return bool(result is SpanExportResult.SUCCESS)


class MetricExporter(OtlpExporter):
    """
    Sends scrapes, each with its time (seconds, Unix).

    :param since: when the counters began (seconds, Unix).
    """

    module = "opentelemetry.exporter.otlp.proto.http.metric_exporter"

    def __init__(self, target: Target, since: float) -> None:
        super().__init__(target)
        self._since = since

    def _make(self) -> Any:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        self._resource = self._target.resource()
        headers = dict(self._target.headers)
        return OTLPMetricExporter(endpoint=self._target.url, headers=headers, max_export_batch_size=MOST_POINTS)

    def _send(self, items: Sequence[tuple[Scrape, float]]) -> bool:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from harn.traces.series import metrics_data

        for scrape, at in items:
            data = metrics_data(scrape.collect(), self._resource, self._since, at)
            if self._exporter.export(data) is not MetricExportResult.SUCCESS:
                return False
        return True


class SpanEncoding:
    """Makes the SDK's form of spans."""

    def __init__(self, resource: Any) -> None:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

        self._span, self._event, self._link, self._context = ReadableSpan, Event, Link, SpanContext
        self._flags, self._state = TraceFlags(TraceFlags.SAMPLED), TraceState
        self._kinds = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT}
        self._kinds.update({4: SpanKind.PRODUCER, 5: SpanKind.CONSUMER})
        self._status, self._unset, self._error = Status, Status(StatusCode.UNSET), StatusCode.ERROR
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE, harn.__version__)

    def readable(self, span: Span) -> Any:
        """Return the SDK's form of a span."""
        trace_id, end = int(span.trace_id, 16), _nanoseconds(span.end)
        parent = None
        if span.parent_id:
            parent = self._context(trace_id, int(span.parent_id, 16), span.has_remote_parent, self._flags)
        state = self._state.from_header([span.tracestate]) if span.tracestate else None
        events = [self._event("exception", {"exception.type": span.exception}, end)] if span.exception else []
        links = [self._link(self._context(int(each.trace_id, 16), int(each.span_id, 16), True)) for each in span.links]
        return self._span(
            name=span.name,
            context=self._context(trace_id, int(span.span_id, 16), False, self._flags, state),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            events=events,
            links=links,
            kind=self._kinds[span.kind],
            status=self._status(self._error, span.error) if span.error else self._unset,
            start_time=_nanoseconds(span.start),
            end_time=end,
            instrumentation_scope=self._scope,
        )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1000  # a float has the microseconds of a time of day, and no more
