"""A lint of metrics in Prometheus' text format: the rules of ``promtool check metrics``, and further ones."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"(harn|process)_[a-z0-9]+(_[a-z0-9]+)*")
OF_A_KIND = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
"""Ends of a series' name, after that of its family, by the family's type."""
RESERVED = ("_total", "_bucket", "_count", "_sum")
NOT_BASE_UNITS = frozenset(
    ("milliseconds", "ms", "microseconds", "minutes", "hours", "days", "kilobytes", "kb", "mb", "gb", "megabytes")
)
MOST_LABELS = 3
"""Of one series, beside a bucket's ``le``: each multiplies the number of series."""
LABELS = frozenset(
    (
        *("action", "binding_key", "dimension", "endpoint", "handler_kind", "method", "outcome", "output", "provider"),
        *("python", "reason", "result", "source", "stage", "state", "status", "topic", "trigger_id", "twisted"),
        *("version", "le"),
    )
)
"""Labels whose values are bounded: none of them comes from a sender."""


def findings(text: str) -> Iterator[str]:
    """Yield the faults of an exposition."""
    yield from _of_text(text)
    names: set[str] = set()
    for family in text_string_to_metric_families(text):
        if family.name in names:
            yield f"{family.name}: declared twice"
        names.add(family.name)
        yield from _of_family(family)
        yield from _of_series(family)


def _of_text(text: str) -> Iterator[str]:
    helped, typed = (set(re.findall(rf"^# {word} (\S+) ", text, re.MULTILINE)) for word in ("HELP", "TYPE"))
    for name in helped ^ typed:
        yield f"{name}: must have both a HELP and a TYPE line"
    if not text.endswith("\n"):
        yield "the last line has no end"


def _of_family(family: Metric) -> Iterator[str]:
    if not NAME.fullmatch(family.name):
        yield f"{family.name}: must begin with harn_ or process_, in lower case"
    if not family.documentation.strip():
        yield f"{family.name}: has no help text"
    if family.type not in OF_A_KIND:
        yield f"{family.name}: must be a counter, a histogram or a gauge, got {family.type}"
    for end in RESERVED:
        if family.name.endswith(end):
            yield f"{family.name}: a {family.type} must not end in {end}"
    for word in family.name.split("_"):
        if word in NOT_BASE_UNITS:
            yield f"{family.name}: must be in a base unit (seconds, bytes), got {word}"
    if family.type == "histogram" and not family.name.endswith(("_seconds", "_bytes")):
        yield f"{family.name}: must end in its unit"


def _of_series(family: Metric) -> Iterator[str]:
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for sample in family.samples:
        series = sample.name, frozenset(sample.labels.items())
        if series in seen:
            yield f"{series}: twice"
        seen.add(series)
        if sample.name not in {family.name + end for end in OF_A_KIND.get(family.type, ())}:
            yield f"{sample.name}: must not be a series of a {family.type} {family.name}"
        if not sample.labels.keys() <= LABELS:
            yield f"{family.name}: unknown labels {sorted(sample.labels.keys() - LABELS)}"
        if len(sample.labels.keys() - {"le"}) > MOST_LABELS:
            yield f"{family.name}: more than {MOST_LABELS} labels"
        if family.type == "counter" and sample.value < 0:
            yield f"{family.name}: must not be negative"
