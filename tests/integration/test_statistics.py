"""A server's counts of its triggers over reloads, restarts and crashes, and its metrics for Prometheus."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from harn.testing.manifests import trigger_text
from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, SharedServerCase
from tests.observability import promtool
from tests.observability.lint import findings

HANDLERS = """
def fails(event, context):
    raise ValueError("no luck")
"""
MANIFEST = (
    trigger_text("gh"),
    trigger_text("bad", handler="handlers:fails", extra="retry = { max = 1 }"),
    trigger_text("late", handler="handlers:fails", extra='retry = { max = 3, schedule = ["1h"] }'),
)
RULES = Path(__file__).parents[2] / "examples/prometheus/rules.yml"
FIGURES = ("accepted", "running", "waiting", "dead", "refused", "last_success", "last_failure", "next_due")


class ExampleTests(SharedServerCase):
    """The examples for Prometheus and Grafana."""

    def test_queries(self) -> None:
        """Each name, label and value that a rule or a panel uses is in the output of a server from the start."""
        if find_spec("promql_parser") is None or find_spec("yaml") is None:
            raise SkipTest("the test extra is not installed: promql-parser, pyyaml")
        from tests.observability.queries import alert_queries, dashboard_queries, findings, shown

        self.write_manifest(trigger_text("gh"))
        exposed = shown(self.serve().request("GET", "/metrics").body.decode())
        found = [each for query in alert_queries().values() for each in findings(query, exposed)]
        found += [f"{title}: {each}" for title, query in dashboard_queries() for each in findings(query, exposed)]
        self.assertEqual(found, [])

    def test_promtool(self) -> None:
        """``promtool`` finds nothing wrong with the output of a server that has done something, or with the rules."""
        self.write_handlers(more=HANDLERS)
        self.write_manifest(*MANIFEST)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        server.deliver("/triggers/bad", delivery="d2")
        self.assertEqual(server.deliver("/triggers/gh", delivery="d3", secret=b"wrong").status, 401)
        self.wait_handled("d1")
        self.wait_records(server, "trigger.dlq", 1)
        exposed = server.request("GET", "/metrics").body.decode()
        self.assertEqual(promtool.check("metrics", text=exposed), "")
        wrong = exposed + "# TYPE harn_wait_ms counter\nharn_wait_ms 1\n"
        self.assertIn("harn_wait_ms", promtool.check("metrics", text=wrong))
        if not RULES.exists():
            raise SkipTest("the examples are not here")
        self.assertEqual(promtool.check("rules", str(RULES)), "")


class StatisticsTests(ServerCase):
    def figures(self, trigger_id: str) -> dict[str, Any]:
        """Return the figures of a trigger in ``inspect``, by a running server or without one."""
        found = [each for each in self.checked("inspect")["triggers"] if each["id"] == trigger_id]
        self.assertTrue(found)
        return {name: found[0][name] for name in FIGURES}

    def counts(self, trigger_id: str) -> tuple[int, ...]:
        """Return accepted, running, waiting, dead and refused."""
        found = self.figures(trigger_id)
        return tuple(found[name] for name in FIGURES[:5])

    def stats(self) -> dict[str, tuple[int, ...]]:
        """Return the figures of ``stats``: accepted, succeeded, failed, dead and refused by trigger id."""
        found = self.checked("stats", "--window", "1h")
        for each in found["triggers"]:
            if each["succeeded"] + each["failed"]:
                (handler,) = each["handlers"]
                self.assertIn(handler["handler"], ("handlers:on_event", "handlers:fails"))
                self.assertGreater(handler["handler_seconds"]["p50"], 0.0)
            self.assertEqual(each["accepted_to_done_seconds"] is not None, each["succeeded"] > 0)
        names = ("accepted", "succeeded", "failed", "dead", "refused")
        return {each["id"]: tuple(each[name] for name in names) for each in found["triggers"]}

    def in_state_file(self, server: ServerProcess, trigger_id: str) -> dict[str, Any]:
        """Return the entry of a trigger in the state file."""
        (found,) = (each for each in server.state()["triggers"] if each["id"] == trigger_id)
        return {name: found[name] for name in FIGURES}

    def test_over_reloads_restarts_and_crashes(self) -> None:
        """What was accepted, refused and given up counts for its trigger, whoever served then; files agree with it."""
        self.write_handlers(more=HANDLERS)
        self.write_manifest(*MANIFEST)
        server = self.serve()
        server.deliver("/triggers/gh", delivery="d1")
        self.assertEqual(server.deliver("/triggers/gh", delivery="d2", secret=b"wrong").status, 401)
        server.deliver("/triggers/bad", delivery="d3")
        server.deliver("/triggers/late", delivery="d4")
        wait_until(lambda: self.counts("bad")[3], "a dead letter")
        wait_until(lambda: self.counts("late")[2], "a retry")
        wait_until(lambda: self.figures("gh")["last_success"], "the success")
        self.assertEqual((self.counts("gh"), self.counts("bad")), ((1, 0, 0, 0, 1), (1, 0, 0, 1, 0)))
        self.assertEqual(self.counts("late"), (1, 0, 1, 0, 0))
        self.assertEqual(list(findings(server.request("GET", "/metrics").body.decode())), [])
        self.write_handlers("two", more=HANDLERS + "\n# another\n")
        self.assert_reloaded(server.reload(), modified=["bad", "gh", "late"])
        self.assertEqual((self.counts("gh"), self.counts("bad")), ((1, 0, 0, 0, 1), (1, 0, 0, 1, 0)))
        before = {each: self.figures(each) for each in ("gh", "bad", "late")}
        self.assertIsNotNone(before["gh"]["last_success"])
        self.assertIsNotNone(before["bad"]["last_failure"])
        self.assertIsNotNone(before["late"]["next_due"])
        shown = self.checked("top", "--once")["triggers"]
        self.assertEqual(
            [(each["trigger"], each["waiting"], each["dead"]) for each in shown if each["dead"]], [("bad", 0, 1)]
        )
        counted = self.stats()
        self.assertEqual((counted["gh"], counted["bad"]), ((1, 1, 0, 0, 1), (1, 0, 1, 1, 0)))
        wrong = self.orchestrator("stats", "--trigger", "none")
        self.assertEqual(wrong.status, 1)
        self.assertIn("bad, gh, late", wrong.stderr)
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.assertEqual(self.stats(), counted)
        self.assertIn("id=gh", self.orchestrator("stats", "--trigger", "gh").stdout)
        self.assertEqual(self.orchestrator("top").status, 1)
        for trigger_id, figures in before.items():
            self.assertEqual((self.figures(trigger_id), self.in_state_file(server, trigger_id)), (figures, figures))
        server = self.serve()
        self.assertEqual({each: self.figures(each) for each in before}, before)
        self.assertEqual({each: self.in_state_file(server, each) for each in before}, before)
        server.deliver("/triggers/gh", delivery="d5")
        server.deliver("/triggers/bad", delivery="d6")
        wait_until(lambda: self.counts("bad")[3] == 2, "another dead letter")
        succeeded = before["gh"]["last_success"]
        wait_until(lambda: self.figures("gh")["last_success"] != succeeded, "another success")
        after = {each: self.figures(each) for each in before}
        server.kill()
        # The times of what came in the last seconds are counted again by the next server alone.
        self.assertEqual((self.counts("bad"), self.counts("late")), ((2, 0, 0, 2, 0), (1, 0, 1, 0, 0)))
        self.assertEqual(self.counts("gh"), (2, 0, 0, 0, 1))
        self.serve()
        self.assertEqual({each: self.figures(each) for each in before}, after)
