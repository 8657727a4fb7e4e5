"""
The metrics of a scrape in the form of OpenTelemetry's SDK, under the names that ``/metrics`` has.

A counter is a sum that rises from the server's start, a histogram one of cumulative counts.

Source: OpenTelemetry, "Prometheus and OpenMetrics Compatibility".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from prometheus_client.metrics_core import Metric as Family

import harn


def metrics_data(families: Iterable[Family], resource: Any, since: float, at: float) -> Any:
    """
    Return the data that the exporter sends for a scrape; families without a series are left out.

    :param resource: of the SDK.
    :param since: when the counters began.
    :param at: when it was scraped (seconds, Unix).
    """
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    encoding = SeriesEncoding(round(since * 1e6) * 1000, round(at * 1e6) * 1000)
    metrics = [encoding.metric(family) for family in families if family.samples]
    scope = ScopeMetrics(InstrumentationScope("harn", harn.__version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], resource.schema_url)])


class SeriesEncoding:
    """
    Makes the SDK's form of families; the SDK is imported with it.

    :param since: when the counters began.
    :param at: when they were read (nanoseconds, Unix).
    """

    def __init__(self, since: int, at: int) -> None:
        from opentelemetry.sdk.metrics import export

        self._sdk: Any = export
        self._cumulative = export.AggregationTemporality.CUMULATIVE
        self._since, self._at = since, at

    def metric(self, family: Family) -> Any:
        """Return one family."""
        sdk, name = self._sdk, family.name
        if family.type == "histogram":
            data = sdk.Histogram(list(self._histograms(family)), self._cumulative)
        elif family.type == "counter":
            name += "_total"
            data = sdk.Sum(list(self._numbers(family, self._since)), self._cumulative, True)
        else:
            data = sdk.Gauge(list(self._numbers(family, 0)))
        return sdk.Metric(name, family.documentation, unit_of(family.name), data)

    def _numbers(self, family: Family, since: int) -> Iterator[Any]:
        """Yield the points of a counter or a gauge."""
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                yield self._sdk.NumberDataPoint(sample.labels, since, self._at, float(sample.value))

    def _histograms(self, family: Family) -> Iterator[Any]:
        """Yield the points of a histogram. Its buckets count all below their bounds; OpenTelemetry's do not."""
        buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        sums: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in family.samples:
            labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
            if sample.name.endswith("_bucket"):
                buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_sum"):
                sums[labels] = sample.value
        for labels, found in buckets.items():
            yield self._sdk.HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=self._since,
                time_unix_nano=self._at,
                count=int(found[-1][1]),
                sum=sums.get(labels, 0.0),
                bucket_counts=[int(found[0][1]), *(int(after[1] - before[1]) for before, after in pairwise(found))],
                explicit_bounds=[bound for bound, _ in found[:-1]],  # the last is infinite, and is not named
                min=None,
                max=None,
            )


def unit_of(name: str) -> str:
    """Return the unit of a metric, by its name, as UCUM writes it; empty for a plain number."""
    if name.endswith("_seconds"):
        return "s"
    return "By" if name.endswith("_bytes") else ""
