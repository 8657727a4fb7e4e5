"""The examples for Prometheus and Grafana, and the check of their queries against the output of a server."""

from __future__ import annotations

import json
from importlib.util import find_spec

from twisted.trial.unittest import SkipTest, SynchronousTestCase

EXPOSED = """# HELP harn_a_total A.
# TYPE harn_a_total counter
harn_a_total{trigger_id="gh",reason="x"} 1.0
# HELP harn_b_seconds B.
# TYPE harn_b_seconds histogram
harn_b_seconds_bucket{le="1.0"} 1.0
harn_b_seconds_bucket{le="+Inf"} 1.0
harn_b_seconds_count 1.0
harn_b_seconds_sum 1.0
# HELP harn_c C.
# TYPE harn_c gauge
"""


class QueryCase(SynchronousTestCase):
    """A test that needs the parsers of the test extra, and the examples, which a wheel does not have."""

    def setUp(self) -> None:
        if find_spec("promql_parser") is None or find_spec("yaml") is None:
            raise SkipTest("the test extra is not installed: promql-parser, pyyaml")
        from tests.observability import queries

        self.queries = queries
        if not queries.RULES.exists():
            raise SkipTest("the examples are not here")


class FindingTests(QueryCase):
    def test_right(self) -> None:
        """Names, labels and values that the server shows are right, and so are those that Prometheus adds."""
        server = self.queries.shown(EXPOSED)
        for query in (
            'sum by (instance, trigger_id) (rate(harn_a_total{reason=~"x|y",job="harn"}[5m])) > 0',
            "histogram_quantile(0.9, sum by (le) (rate(harn_b_seconds_bucket[5m])))",
            'harn_c < 3 or absent(up{job="harn"})',
        ):
            self.assertEqual(list(self.queries.findings(query, server)), [], query)

    def test_wrong(self) -> None:
        """A name, a label, a value or a grouping that is not there is found, and so is what is not a query."""
        server = self.queries.shown(EXPOSED)
        for query, words in (
            ("rate(harn_z_total[5m])", "no such metric"),
            ("harn_b_seconds > 1", "no such metric"),
            ('harn_a_total{state="x"}', "no label state"),
            ('harn_a_total{reason="y"}', "never y"),
            ("sum by (state) (harn_a_total)", "groups by state"),
            ("sum by (", ""),
        ):
            found = list(self.queries.findings(query, server))
            self.assertTrue(found and any(words in each for each in found), (query, found))


class ExampleTests(QueryCase):
    def test_rules(self) -> None:
        """Each alert says how bad it is, what happened and what to do."""
        import yaml

        (group,) = yaml.safe_load(self.queries.RULES.read_text())["groups"]
        names = [rule["alert"] for rule in group["rules"]]
        self.assertEqual(len(set(names)), len(names))
        for rule in group["rules"]:
            self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
            self.assertEqual(set(rule["annotations"]), {"summary", "description"}, rule["alert"])

    def test_dashboard(self) -> None:
        """Panels have numbers and places of their own, and use variables that are there."""
        dashboard = json.loads(self.queries.DASHBOARD.read_text())
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
        numbers = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(set(numbers)), len(numbers))
        self.assertLessEqual({x for x, _ in taken}, set(range(24)))
        for _, query in self.queries.dashboard_queries():
            self.assertNotIn("$", query)
