"""The queries of the examples for Prometheus and Grafana, held against the output of a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import yaml
from attrs import frozen
from prometheus_client.parser import text_string_to_metric_families

RULES = Path(__file__).parents[2] / "examples/prometheus/rules.yml"
DASHBOARD = Path(__file__).parents[2] / "examples/grafana/harn.json"
OF_PROMETHEUS = {"up": frozenset(("job", "instance"))}
"""Series that Prometheus makes itself."""
ADDED = frozenset(("job", "instance"))
"""Labels that Prometheus adds to each series."""
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$trigger": ".*"}
LABEL_VALUES = re.compile(r"label_values\((?P<query>.*), (?P<label>\w+)\)")


@frozen
class Shown:
    """The series of a server: by name, their labels, and by name and label the values of that."""

    labels: Mapping[str, frozenset[str]]
    values: Mapping[tuple[str, str], frozenset[str]]


def shown(text: str) -> Shown:
    """Read an exposition; a family without a series is there, without labels."""
    labels: dict[str, set[str]] = {}
    values: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(text):
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        for end in ends:
            labels.setdefault(family.name + end, set())
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            for label, value in sample.labels.items():
                values.setdefault((sample.name, label), set()).add(value)
    return Shown(
        {name: frozenset(each) for name, each in labels.items()}, {key: frozenset(each) for key, each in values.items()}
    )


def alert_queries() -> Mapping[str, str]:
    """Return the query of each alert by its name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel and variable with each of its queries, the variables of Grafana replaced."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], replaced(target["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found is not None, variable
            yield variable["name"], f"count by ({found['label']}) ({replaced(found['query'])})"


def replaced(query: str) -> str:
    """Return a query with values for the variables of Grafana."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def findings(query: str, server: Shown) -> Iterator[str]:
    """Yield the faults of a query: a name, a label or a value of a label that the server does not show."""
    try:
        tree = promql_parser.parse(query)
    except ValueError as error:
        yield f"{query}: {error}"
        return
    known: set[str] = set(ADDED)
    for selector in selectors(tree):
        labels = OF_PROMETHEUS.get(selector.name, server.labels.get(selector.name))
        if labels is None:
            yield f"{selector.name}: there is no such metric"
            continue
        known |= labels
        for matcher in selector.matchers.matchers:
            values = server.values.get((selector.name, matcher.name), frozenset())
            if matcher.name not in labels | ADDED:
                yield f"{selector.name}: there is no label {matcher.name}"
            elif matcher.name not in ADDED and not any(matches(matcher, value) for value in values):
                yield f"{selector.name}: {matcher.name} is never {matcher.value}"
    for label in grouped(tree):
        if label not in known:
            yield f"{query}: it groups by {label}, which none of its series has"


def matches(matcher: Any, value: str) -> bool:
    """Return whether a value of a label meets a matcher ``=`` or ``=~``."""
    if matcher.op == promql_parser.MatchOp.Equal:
        return bool(matcher.value == value)
    return re.fullmatch(matcher.value, value) is not None


def nodes(tree: Any) -> Iterator[Any]:
    """Yield every expression of a parsed query."""
    yield tree
    for name in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
        below = getattr(tree, name, None)
        for each in below if isinstance(below, list) else [below]:
            if isinstance(each, promql_parser.Expr):
                yield from nodes(each)


def selectors(tree: Any) -> Iterator[Any]:
    """Yield the vector selectors of a query."""
    return (each for each in nodes(tree) if isinstance(each, promql_parser.VectorSelector))


def grouped(tree: Any) -> Iterator[str]:
    """Yield the labels by which a query groups."""
    for each in nodes(tree):
        modifier = getattr(each, "modifier", None) if isinstance(each, promql_parser.AggregateExpr) else None
        if modifier is not None:
            yield from modifier.labels
